// The user's layout is the best under its pins; what it lacks is told by terms and by layout.
#include "planner/versus.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "core/quantity.h"
#include "planner/explain.h"
#include "planner/space.h"

namespace orrery::planner {
namespace {

using PinList = std::vector<std::pair<std::string, std::string>>;

// Other values of a pin that are tried, the nearest first; beyond so many pins none are.
constexpr std::size_t kNearestTried = 6, kMostPins = 8;
// Terms smaller than this share of the difference are not spoken of.
constexpr double kTold = 0.1;

bool speaks_of(const PinList& pins, const std::string& name) {
  return std::any_of(pins.begin(), pins.end(), [&](const auto& p) { return p.first == name; });
}

Request own_request(const Request& request, const PinList& pins) {
  Request own = request;
  own.pins = pins;
  for (const auto& pin : request.pins) {
    if (!speaks_of(pins, pin.first)) own.pins.push_back(pin);
  }
  own.runners_up = 0;
  own.stop = nullptr;
  own.progress = nullptr;
  return own;
}

// Values that an axis or a chunk may sensibly have here.
std::set<std::int64_t> sensible_values(const Request& request) {
  std::set<std::int64_t> values = {0};
  for (const std::int64_t whole : {request.cluster.devices, request.model.experts,
                                   request.workload.global_sequences, request.model.layers}) {
    for (const std::int64_t d : divisors(std::max<std::int64_t>(1, whole))) values.insert(d);
  }
  for (std::int64_t rows = 1; rows <= request.workload.sequence_tokens; rows *= 2) {
    values.insert(rows);
  }
  return values;
}

std::optional<std::int64_t> whole(const std::string& text) {
  if (text.empty() || text.size() > 18) return std::nullopt;
  if (!std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; })) {
    return std::nullopt;
  }
  return std::stoll(text);
}

// One pin set to the nearest value, by its ratio, under which a plan fits.
std::optional<NearestFeasible> nearest_value(const Request& own, std::size_t pins) {
  struct Change {
    double far;
    std::size_t pin;
    std::int64_t value;
    auto operator<=>(const Change&) const = default;
  };
  std::vector<Change> changes;
  for (std::size_t i = 0; i < pins && pins <= kMostPins; ++i) {
    const auto pinned = whole(own.pins[i].second);
    if (!pinned) continue;
    const auto at = [](std::int64_t v) { return std::log2(static_cast<double>(v) + 0.5); };
    for (const std::int64_t v : sensible_values(own)) {
      if (v != *pinned) changes.push_back({std::abs(at(v) - at(*pinned)), i, v});
    }
  }
  std::sort(changes.begin(), changes.end());
  std::size_t tried = 0;
  for (const Change& change : changes) {
    if (tried == kNearestTried) break;
    Request r = own;
    auto& pin = r.pins[change.pin];
    const std::string before = pin.second;
    pin.second = std::to_string(change.value);
    if (!enumerate(r).ok()) continue;
    ++tried;
    if (auto plan = fastest_that_fits(r)) {
      return NearestFeasible{fmt::format("{}={} instead of {}", pin.first, pin.second, before),
                             std::move(*plan)};
    }
  }
  return std::nullopt;
}

std::string against(const char* what, std::int64_t own, std::int64_t best) {
  return own == best ? "" : fmt::format("{} {} against {}", what, own, best);
}

// Chunks of 0 rows are the whole.
std::string chunks_against(const char* what, std::int64_t own, std::int64_t best) {
  const auto rows = [](std::int64_t n) { return n == 0 ? "whole" : std::to_string(n); };
  return own == best ? "" : fmt::format("{} {} against {}", what, rows(own), rows(best));
}

std::string joined(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) {
    if (!part.empty()) text += (text.empty() ? "" : ", ") + part;
  }
  return text;
}

// What of the layouts decides a term, where it differs.
std::string cause(const std::string& term, const Plan& own, const Plan& best) {
  const Layout &a = own.layout, &b = best.layout;
  const Chunks &c = own.chunks, &d = best.chunks;
  const MemoryPolicy &p = own.policy, &q = best.policy;
  const auto micro_batch = against("micro-batch", a.micro_batch, b.micro_batch);
  const auto passes = against("passes a step", a.accumulation, b.accumulation);
  const auto sp = against("sp", a.sp, b.sp), ep = against("ep", a.ep, b.ep);
  if (term == "forward" || term == "backward") {
    return joined({micro_batch, sp, ep, chunks_against("loss chunk", c.loss_tokens, d.loss_tokens),
                   chunks_against("attention chunk", c.attention_query, d.attention_query),
                   against("interleaved", c.domino, d.domino)});
  }
  if (term == "recompute") {
    return joined({against("layers run again", p.recompute_layers, q.recompute_layers),
                   against("of attention", p.recompute_attention, q.recompute_attention),
                   against("of the MLP", p.recompute_ffn, q.recompute_ffn),
                   against("of the experts", p.recompute_experts, q.recompute_experts)});
  }
  if (term == "optimizer") {
    return joined({against("fsdp", a.fsdp_d, b.fsdp_d), against("expert fsdp", a.fsdp_e, b.fsdp_e),
                   p.host_optimizer == q.host_optimizer ? ""
                   : p.host_optimizer                   ? "moments on the host"
                                                        : "moments on the device"});
  }
  if (term == "exposed gathers and reductions") {
    return joined({against("fsdp", a.fsdp_d, b.fsdp_d), against("expert fsdp", a.fsdp_e, b.fsdp_e),
                   passes, against("prefetch", c.prefetch_depth, d.prefetch_depth),
                   against("layers a bucket", c.gather_layers, d.gather_layers)});
  }
  if (term == "exposed expert exchanges") {
    return joined({ep,
                   a.dispatcher == b.dispatcher ? "" : a.dispatcher + " against " + b.dispatcher,
                   against("exchange parts", c.exchange_parts, d.exchange_parts),
                   against("interleaved", c.domino, d.domino)});
  }
  if (term == "exposed sequence exchanges") return sp;
  if (term == "waiting") return joined({ep, passes});
  return joined({against("layers swapped", p.swap_layers, q.swap_layers),
                 p.host_optimizer == q.host_optimizer ? "" : "place of the moments"});
}

std::string shortage_text(const Shortage& lack) {
  const auto most =
      std::max_element(lack.parts.begin(), lack.parts.end(),
                       [](const MemoryRow& x, const MemoryRow& y) { return x.bytes < y.bytes; });
  std::string text = does_not_fit(lack.needed, lack.usable);
  if (most != lack.parts.end()) {
    text += fmt::format("; most of it is {}, {}", most->cls, format_bytes(most->bytes));
  }
  return text;
}

}  // namespace

std::string difference_text(const Side& own, const Side& best) {
  const double step = own.terms.step.value(), other = best.terms.step.value();
  const double more = step - other;
  const double relative = (step / other - 1) * 100;
  if (std::abs(relative) < 0.005) return "the same time";
  std::string text = fmt::format("{:+.2f} %", relative);
  struct Part {
    double more;
    std::string name;
  };
  std::vector<Part> parts;
  for (std::size_t i = 0; i < own.terms.parts.size(); ++i) {
    parts.push_back({own.terms.parts[i].time.value() - best.terms.parts[i].time.value(),
                     own.terms.parts[i].name});
  }
  std::stable_sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) {
    return std::abs(a.more) > std::abs(b.more);
  });
  const char* between = ": ";
  for (const Part& part : parts) {
    if (std::abs(part.more) < kTold * std::abs(more)) break;
    text += fmt::format("{}{} {} {}", between, format_seconds(Seconds(std::abs(part.more))),
                        part.more > 0 ? "more" : "less", part.name);
    const std::string why = cause(part.name, own.plan, best.plan);
    if (!why.empty()) text += " (" + why + ")";
    between = ", ";
  }
  return text;
}

Result<Comparison> versus(const Request& request, const Plan& best, const PinList& pins) {
  const Request own = own_request(request, pins);
  Comparison c;
  c.best = {best, terms_of(best)};
  Result<Outcome> found = plan(own);
  if (!found.ok()) {
    if (found.error().code != ErrorCode::kInfeasible) return found.error();
    c.broken = found.error().problems;
    c.reason = "breaks a rule: " + c.broken.front().where + ": " + c.broken.front().message;
    c.nearest = nearest_value(own, pins.size());
    return c;
  }
  Outcome outcome = std::move(found).value();
  c.fits = outcome.best.has_value();
  Plan mine = c.fits ? std::move(*outcome.best) : std::move(*outcome.nearest);
  c.own = Side{mine, terms_of(mine)};
  if (c.fits) {
    c.reason = difference_text(*c.own, c.best);
    return c;
  }
  c.reason = shortage_text(*outcome.shortage);
  c.nearest = nearest_value(own, pins.size());
  if (!c.nearest) c.nearest = std::move(outcome.nearest_feasible);
  return c;
}

PinList pins_of(const Plan& plan) {
  PinList pins;
  for (const Json& json : {to_json(plan.layout), to_json(plan.chunks), to_json(plan.policy)}) {
    for (const auto& [name, value] : json.members()) {
      pins.emplace_back(name, value.is_string() ? value.as_string() : value.dump(-1));
    }
  }
  return pins;
}

}  // namespace orrery::planner
