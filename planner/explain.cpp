// Explanations: the terms of a difference, families of layouts, and changes that would fit.
#include "planner/explain.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <optional>
#include <tuple>
#include <utility>

namespace orrery::planner {
namespace {

double gib(Bytes bytes) {
  return static_cast<double>(bytes.value()) / static_cast<double>(kGiB.value());
}

std::string gib_text(Bytes bytes) {
  return fmt::format("{:.2f} GiB", gib(bytes));
}

std::string seconds_text(double s) {
  if (std::abs(s) >= 1) return fmt::format("{:.2f} s", s);
  return fmt::format("{:.3g} ms", s * 1e3);
}

struct Part {
  const char* name;
  double mine, other;
  double more() const { return mine - other; }
};

std::array<Part, 4> parts_of(const Trial& mine, const Trial& other) {
  const auto own = [](const Trial& t) { return t.compute.value() - t.recompute.value(); };
  return {{{"compute", own(mine), own(other)},
           {"recompute", mine.recompute.value(), other.recompute.value()},
           {"exposed communication", mine.exposed.value(), other.exposed.value()},
           {"idle time", mine.idle.value(), other.idle.value()}}};
}

struct NamedSubspace {
  std::string name;
  Subspace family;
};

// Families that people ask about.
std::vector<NamedSubspace> families(const Model& model) {
  std::vector<NamedSubspace> all;
  const bool moe = model.is_moe();
  const auto add = [&](const char* name, std::function<bool(const Layout&)> member,
                       std::optional<std::int64_t> recompute = std::nullopt) {
    all.push_back({name, {std::move(member), recompute}});
  };
  if (moe) {
    add("ep 1", [](const Layout& l) { return l.ep == 1; });
    add("ep > 1", [](const Layout& l) { return l.ep > 1; });
  }
  const auto replicated = [moe](const Layout& l) {
    return l.replicate_d > 1 || (moe && l.replicate_e > 1);
  };
  add("fully sharded", [=](const Layout& l) { return !replicated(l); });
  add("replicated", replicated);
  add("no recompute", {}, 0);
  add("full recompute", {}, model.layers);
  add("micro-batch 1", [](const Layout& l) { return l.micro_batch == 1; });
  add("one micro-batch a step", [](const Layout& l) { return l.accumulation == 1; });
  return all;
}

// Members of the winner's own family are no news.
bool holds(const Subspace& family, const Trial& trial) {
  return (!family.member || family.member(trial.layout)) &&
         (!family.recompute || *family.recompute == trial.choice.policy.recompute_layers);
}

// Layouts that differ only in which axis is innermost count as one.
auto factors(const Layout& l) {
  return std::make_tuple(l.fsdp_d, l.fsdp_e, l.ep, l.micro_batch);
}

RunnerUp runner_up(const Trial& t, std::string why) {
  return {t.layout, t.choice.chunks, t.choice.policy, t.predicted, std::move(why)};
}

// A workload of the same tokens a step in rows of `part`-th the length.
Workload shorter_rows(const Workload& workload, std::int64_t part) {
  Workload w = workload;
  w.sequence_tokens /= part;
  w.global_sequences *= part;
  w.document_tokens.clear();
  std::int64_t left = w.sequence_tokens;
  for (auto d = workload.document_tokens.rbegin(); d != workload.document_tokens.rend(); ++d) {
    const std::int64_t tokens = std::min(*d, left);
    if (tokens > 0) w.document_tokens.push_back(tokens);
    left -= tokens;
  }
  return w;
}

// The least memory of any layout, where that fits.
std::optional<Trial> fitting(const Request& request) {
  auto space = enumerate(request);
  if (!space.ok()) return std::nullopt;
  Search search(request, std::move(space).value());
  if (!search.state_fits()) return std::nullopt;
  const auto least = search.smallest_of({});
  return least && least->fits ? least : std::nullopt;
}

}  // namespace

std::string does_not_fit(Bytes needed, Bytes usable) {
  return fmt::format("does not fit: needs {} of {}", gib_text(needed), gib_text(usable));
}

std::string lost_by(const Trial& trial, const Trial& best) {
  const double mine = trial.predicted.step.value(), other = best.predicted.step.value();
  std::string text = fmt::format("{:+.2f} %", (mine / other - 1) * 100);
  if (trial.step == best.step) {
    const std::int64_t more = trial.predicted.peak.value() - best.predicted.peak.value();
    if (more > 0) return text + ": the same time with " + gib_text(Bytes(more)) + " more memory";
    return text + ": the same time, less simple";
  }
  const auto parts = parts_of(trial, best);
  const auto by_more = [](const Part& a, const Part& b) { return a.more() < b.more(); };
  const Part& most = *std::max_element(parts.begin(), parts.end(), by_more);
  const Part& least = *std::min_element(parts.begin(), parts.end(), by_more);
  text += fmt::format(": {} more {} ({} against {})", seconds_text(most.more()), most.name,
                      seconds_text(most.mine), seconds_text(most.other));
  if (least.more() < -0.2 * most.more()) {
    text += fmt::format(", though {} less {}", seconds_text(-least.more()), least.name);
  }
  return text;
}

std::vector<RunnerUp> runners_up(Search& search, const Request& request) {
  const Trial best = *search.best();
  std::vector<RunnerUp> out;
  const auto wanted = static_cast<std::size_t>(std::max(0, request.runners_up));
  std::vector<std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t>> seen = {
      factors(best.layout)};
  const auto fresh = [&](const Layout& l) {
    return std::find(seen.begin(), seen.end(), factors(l)) == seen.end();
  };
  while (out.size() < wanted) {
    const auto next = search.best_of({fresh, std::nullopt});
    if (!next) break;
    seen.push_back(factors(next->layout));
    out.push_back(runner_up(*next, lost_by(*next, best)));
  }
  if (wanted == 0) return out;
  const Bytes usable = usable_memory(request.cluster);
  for (const auto& [name, family] : families(request.model)) {
    if (holds(family, best)) continue;
    const auto trial = search.best_of(family);
    const auto same = std::find_if(out.begin(), out.end(), [&](const RunnerUp& r) {
      return trial && r.layout == trial->layout && r.chunks == trial->choice.chunks &&
             r.policy == trial->choice.policy;
    });
    if (same != out.end()) {
      same->lost_by = name + ": " + same->lost_by;
    } else if (trial) {
      out.push_back(runner_up(*trial, name + ": " + lost_by(*trial, best)));
    } else if (const auto least = search.smallest_of(family); least && !least->fits) {
      out.push_back(runner_up(*least, name + ": " + does_not_fit(least->predicted.peak, usable)));
    }
  }
  return out;
}

std::string advice(const Request& request) {
  std::vector<std::string> found;
  for (const std::int64_t part : {2, 4, 8, 16}) {
    if (request.workload.sequence_tokens % part != 0) break;
    Request r = request;
    r.progress = nullptr;
    r.workload = shorter_rows(request.workload, part);
    const auto trial = fitting(r);
    if (!trial) continue;
    found.push_back(
        fmt::format("rows of {} tokens fit ({}; {})", r.workload.sequence_tokens,
                    gib_text(trial->predicted.peak),
                    describe(trial->layout, trial->choice.chunks, trial->choice.policy)));
    break;
  }
  for (const std::int64_t times : {2, 4, 8, 16}) {
    Request r = request;
    r.progress = nullptr;
    r.cluster.devices *= times;
    const auto trial = fitting(r);
    if (!trial) continue;
    found.push_back(
        fmt::format("{} devices fit ({}; {})", r.cluster.devices, gib_text(trial->predicted.peak),
                    describe(trial->layout, trial->choice.chunks, trial->choice.policy)));
    break;
  }
  if (found.empty()) {
    return "neither rows down to a sixteenth nor up to sixteen times the devices fit";
  }
  std::string text = found[0];
  if (found.size() > 1) text += "; " + found[1];
  return text;
}

}  // namespace orrery::planner
