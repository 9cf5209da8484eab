// Explanations: the terms of a difference, families of layouts, and changes that would fit.
#include "planner/plans/explain.h"

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

// More devices are tried by powers of two up to these.
constexpr std::int64_t kMostTimes = 1024, kMostDevices = 16'384;

// Steps of a search for advice, which should not take longer than what was asked.
constexpr std::int64_t kMostSteps = 1'000'000;

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
    all.push_back({name, {std::move(member), {}, {}, recompute}});
  };
  const auto add_policy = [&](const char* name, std::function<bool(const MemoryPolicy&)> policy) {
    all.push_back({name, {{}, {}, std::move(policy), std::nullopt}});
  };
  if (moe) {
    add("ep 1", [](const Layout& l) { return l.ep == 1; });
    add("ep > 1", [](const Layout& l) { return l.ep > 1; });
  }
  const auto replicated = [moe](const Layout& l) {
    return l.replicate_d > 1 || (moe && l.replicate_e > 1);
  };
  add("sp 1", [](const Layout& l) { return l.sp == 1; });
  add("sp > 1", [](const Layout& l) { return l.sp > 1; });
  add("fully sharded", [=](const Layout& l) { return !replicated(l); });
  add("replicated", replicated);
  add("no recompute", {}, 0);
  add("full recompute", {}, model.layers);
  add("micro-batch 1", [](const Layout& l) { return l.micro_batch == 1; });
  add("one micro-batch a step", [](const Layout& l) { return l.accumulation == 1; });
  add_policy("moments on the device", [](const MemoryPolicy& p) { return !p.host_optimizer; });
  add_policy("host optimizer", [](const MemoryPolicy& p) { return p.host_optimizer; });
  add_policy("no swap", [](const MemoryPolicy& p) { return p.swap_layers == 0; });
  add_policy("swap", [](const MemoryPolicy& p) { return p.swap_layers > 0; });
  return all;
}

// Members of the winner's own family are no news.
bool holds(const Subspace& family, const Trial& trial) {
  return (!family.member || family.member(trial.layout)) &&
         (!family.policy || family.policy(trial.choice.policy)) &&
         (!family.recompute || *family.recompute == trial.choice.policy.recompute_layers);
}

// Layouts that differ only in which axis is innermost count as one.
auto factors(const Layout& l) {
  return std::make_tuple(l.fsdp_d, l.fsdp_e, l.ep, l.sp, l.micro_batch);
}

RunnerUp runner_up(const Trial& t, std::string why) {
  return {t.layout, t.choice.chunks, t.choice.policy, t.predicted, std::move(why)};
}

// A workload of the same tokens a step in rows of `part`-th the length.
Workload shorter_rows(const Workload& workload, std::int64_t part) {
  Workload w = workload;
  w.sequence_tokens /= part;
  w.global_sequences *= part;
  if (w.document_lengths) {  // what no row holds is cut
    DocumentLengths& lengths = *w.document_lengths;
    lengths.max_tokens = std::min(lengths.max_tokens, w.sequence_tokens);
    lengths.median_tokens =
        std::min(lengths.median_tokens, static_cast<double>(lengths.max_tokens));
    return w;
  }
  w.document_tokens.clear();
  std::int64_t left = w.sequence_tokens;
  for (auto d = workload.document_tokens.rbegin(); d != workload.document_tokens.rend(); ++d) {
    const std::int64_t tokens = std::min(*d, left);
    if (tokens > 0) w.document_tokens.push_back(tokens);
    left -= tokens;
  }
  return w;
}

}  // namespace

std::optional<Plan> fastest_that_fits(const Request& request, std::int64_t most_steps) {
  auto space = enumerate(request);
  if (!space.ok()) return std::nullopt;
  Search search(request, std::move(space).value());
  if (!search.state_fits()) return std::nullopt;
  // Cheap to know beforehand, where nothing does.
  if (!search.smallest_fits()) return std::nullopt;
  search.run(most_steps);
  const std::optional<Trial> found = search.best() ? search.best() : search.smallest_of({});
  if (!found || !found->fits) return std::nullopt;
  const Trial& best = *found;
  Plan plan = search.plan_of(best.layout, best.choice);
  plan.predicted = best.predicted;
  return plan;
}

namespace {

std::string pin_text(const std::pair<std::string, std::string>& pin) {
  return fmt::format("--pin {}={}", pin.first, pin.second);
}

// Tries changes and keeps those that fit.
class Advisor {
 public:
  explicit Advisor(const Request& request) : request_(request) {}

  Advice run() {
    without_pins();
    const std::string rows = shorter(), devices = more();
    if (advice_.text.empty()) {
      advice_.text = rows.empty() && devices.empty() ? "nothing that was tried makes it fit"
                     : rows.empty() || devices.empty()
                         ? rows + devices + " do not make it fit"
                         : "neither " + rows + " nor " + devices + " make it fit";
    }
    if (illegal_) {
      advice_.text += "; more devices were not tried: no layout of them is legal";
      if (!request_.pins.empty()) advice_.text += " under the pins";
    }
    return std::move(advice_);
  }

 private:
  bool fits(Request request, const std::string& change, const std::string& text) {
    request.progress = nullptr;
    std::optional<Plan> plan = fastest_that_fits(request, kMostSteps);
    if (!plan) return false;
    if (!advice_.text.empty()) advice_.text += "; ";
    advice_.text += fmt::format("{} ({}, {} a step; {})", text, gib_text(plan->predicted.peak),
                                seconds_text(plan->predicted.step.value()),
                                describe(plan->layout, plan->chunks, plan->policy));
    if (!advice_.nearest) advice_.nearest = NearestFeasible{change, std::move(*plan)};
    return true;
  }

  void without_pins() {
    const auto& pins = request_.pins;
    for (std::size_t i = 0; i < pins.size() && pins.size() > 1; ++i) {
      Request r = request_;
      r.pins.erase(r.pins.begin() + static_cast<std::ptrdiff_t>(i));
      const std::string change = "without " + pin_text(pins[i]);
      fits(r, change, change + " it fits");
    }
    if (pins.empty() || !advice_.text.empty()) return;
    Request r = request_;
    r.pins.clear();
    std::string change = "without";
    for (const auto& pin : pins) change += " " + pin_text(pin);
    fits(r, change, change + " it fits");
  }

  // These two return what was tried in vain.
  std::string shorter() {
    std::string tried;
    for (const std::int64_t part : {2, 4, 8, 16}) {
      if (request_.workload.sequence_tokens % part != 0) break;
      Request r = request_;
      r.workload = shorter_rows(request_.workload, part);
      if (!enumerate(r).ok()) continue;
      const std::string rows = fmt::format("rows of {} tokens", r.workload.sequence_tokens);
      if (fits(r, rows, rows + " fit")) return "";
      tried = fmt::format("rows down to {} tokens", r.workload.sequence_tokens);
    }
    return tried;
  }

  std::string more() {
    std::string tried;
    illegal_ = true;
    for (std::int64_t times = 2; times <= kMostTimes; times *= 2) {
      Request r = request_;
      r.cluster.devices *= times;
      if (r.cluster.devices > kMostDevices) break;
      if (!enumerate(r).ok()) continue;
      illegal_ = false;
      const std::string devices = fmt::format("{} devices", r.cluster.devices);
      if (fits(r, devices, devices + " fit")) return "";
      tried = fmt::format("up to {} devices", r.cluster.devices);
    }
    return tried;
  }

  const Request& request_;
  Advice advice_;
  bool illegal_ = false;
};

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
  text += fmt::format(": {} more {}", seconds_text(most.more()), most.name);
  const std::string own = seconds_text(most.mine), its = seconds_text(most.other);
  if (own != its) text += fmt::format(" ({} against {})", own, its);
  if (least.more() < -0.2 * most.more()) {
    text += fmt::format(", though {} less {}", seconds_text(-least.more()), least.name);
  }
  return text;
}

std::vector<RunnerUp> runners_up(Search& search, const Request& request, const Trial& best) {
  std::vector<RunnerUp> out;
  const auto wanted = static_cast<std::size_t>(std::max(0, request.runners_up));
  std::vector<decltype(factors(best.layout))> seen = {factors(best.layout)};
  const auto fresh = [&](const Layout& l) {
    return std::find(seen.begin(), seen.end(), factors(l)) == seen.end();
  };
  while (out.size() < wanted && !search.stopped()) {
    const auto next = search.best_of({fresh, {}, {}, std::nullopt});
    if (!next) break;
    seen.push_back(factors(next->layout));
    out.push_back(runner_up(*next, lost_by(*next, best)));
  }
  if (wanted == 0) return out;
  const Bytes usable = usable_memory(request.cluster);
  for (const auto& [name, family] : families(request.model)) {
    if (search.stopped()) break;
    if (holds(family, best)) continue;
    auto trial = search.best_of(family);
    std::string why = trial ? lost_by(*trial, best) : "";
    if (!trial) {
      trial = search.smallest_of(family);
      if (!trial || trial->fits) continue;
      why = does_not_fit(trial->predicted.peak, usable);
    }
    const RunnerUp news = runner_up(*trial, name + ": " + why);
    const auto same = std::find_if(out.begin(), out.end(), [&](const RunnerUp& r) {
      return r.layout == news.layout && r.chunks == news.chunks && r.policy == news.policy;
    });
    if (same != out.end()) {
      same->lost_by = name + ": " + same->lost_by;
    } else {
      out.push_back(news);
    }
  }
  return out;
}

std::optional<NearestFeasible> nearest_legal(const Request& original) {
  Request request = original;
  request.progress = nullptr;
  const auto with = [&](const Request& r, std::string change) -> std::optional<NearestFeasible> {
    auto plan = fastest_that_fits(r);
    if (!plan) return std::nullopt;
    return NearestFeasible{std::move(change), std::move(*plan)};
  };
  if (!request.pins.empty()) {
    Request free = request;
    free.pins.clear();
    if (auto found = with(free, "without the pins")) return found;
  }
  const std::int64_t batch = request.workload.global_sequences, world = request.cluster.devices;
  for (const std::int64_t sequences : {batch / world * world, (batch / world + 1) * world}) {
    Request r = request;
    r.workload.global_sequences = sequences;
    if (sequences <= 0 || sequences == batch) continue;
    if (auto found = with(r, fmt::format("a batch of {} sequences", sequences))) return found;
  }
  std::int64_t fewer = 1;
  while (fewer * 2 < world) fewer *= 2;
  for (int tried = 0; tried < 3 && fewer >= 1; ++tried, fewer /= 2) {
    Request r = request;
    r.cluster.devices = fewer;
    if (auto found = with(r, fmt::format("{} devices", fewer))) return found;
  }
  return std::nullopt;
}

Advice advice(const Request& request) {
  return Advisor(request).run();
}

}  // namespace orrery::planner
