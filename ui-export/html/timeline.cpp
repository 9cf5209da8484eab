// See timeline.h.
#include "ui-export/html/timeline.h"

#include <algorithm>
#include <map>
#include <set>

namespace orrery::html {
namespace {

// One span, or several neighbours of a lane drawn as one.
struct Mark {
  const OpRow* op = nullptr;  // the longest of them
  std::int64_t start_ns = 0, end_ns = 0;
  std::int64_t busy_ns = 0, longest_ns = 0;
  std::int64_t count = 1;
};

using Lanes = std::map<std::string, std::vector<Mark>>;

std::size_t size_of(const Lanes& lanes) {
  std::size_t size = 0;
  for (const auto& [lane, marks] : lanes) size += marks.size();
  return size;
}

// Joins marks that are both shorter than `reach` and no further apart.
void join_close(std::vector<Mark>& marks, std::int64_t reach) {
  std::vector<Mark> out;
  for (const Mark& mark : marks) {
    const bool joins = !out.empty() && nanoseconds(out.back().end_ns, mark.start_ns) <= reach &&
                       nanoseconds(mark.start_ns, mark.end_ns) <= reach &&
                       nanoseconds(out.back().start_ns, out.back().end_ns) <= 8 * reach;
    if (!joins) {
      out.push_back(mark);
      continue;
    }
    Mark& last = out.back();
    if (mark.longest_ns > last.longest_ns) last.op = mark.op;
    last.longest_ns = std::max(last.longest_ns, mark.longest_ns);
    last.end_ns = std::max(last.end_ns, mark.end_ns);
    last.busy_ns = plus(last.busy_ns, mark.busy_ns);
    last.count += mark.count;
  }
  marks = std::move(out);
}

// The marks of one rank in one step, at most `most` where that can be.
std::vector<Mark> marks_of(const Side& side, const SpanRange& range, std::size_t most,
                           std::int64_t& joined) {
  Lanes lanes;
  std::int64_t last = side.spans[range.begin].end_ns;
  for (std::size_t i = range.begin; i < range.end; ++i) {
    const SpanEvent& span = side.spans[i];
    const OpRow* op = side.op_of(span);
    if (op == nullptr) continue;
    const std::int64_t busy = nanoseconds(span.start_ns, span.end_ns);
    lanes[op->lane].push_back({op, span.start_ns, span.end_ns, busy, busy, 1});
    last = std::max(last, span.end_ns);
  }
  const std::int64_t extent = nanoseconds(side.spans[range.begin].start_ns, last);
  std::int64_t reach = std::max<std::int64_t>(1, extent / 1'000'000);
  for (int pass = 0; pass < 40 && size_of(lanes) > most; ++pass, reach *= 2) {
    for (auto& [lane, marks] : lanes) join_close(marks, reach);
  }
  std::vector<Mark> all;
  for (const auto& [lane, marks] : lanes) all.insert(all.end(), marks.begin(), marks.end());
  for (const Mark& mark : all) joined += mark.count > 1 ? mark.count : 0;
  std::stable_sort(all.begin(), all.end(),
                   [](const Mark& a, const Mark& b) { return a.start_ns < b.start_ns; });
  return all;
}

Json wire_json(const Side& side, std::int32_t step, std::int32_t rank, OpTable& ops) {
  Json op = Json::array(), wait = Json::array(), sent = Json::array(), received = Json::array();
  const auto first = std::lower_bound(
      side.collectives.begin(), side.collectives.end(), std::pair(rank, step),
      [](const CollectiveEvent& c, const auto& key) { return std::pair(c.rank, c.step) < key; });
  for (auto at = first; at != side.collectives.end() && at->rank == rank && at->step == step;
       ++at) {
    SpanEvent span;
    span.rank = rank;
    span.op = at->op;
    const OpRow* row = side.op_of(span);
    if (row == nullptr) continue;
    op.push(ops.add(*row));
    wait.push(nanoseconds(at->posted_ns, at->ready_ns));
    sent.push(at->bytes_sent);
    received.push(at->bytes_received);
  }
  return Json::object()
      .set("op", std::move(op))
      .set("wait", std::move(wait))
      .set("sent", std::move(sent))
      .set("received", std::move(received));
}

// When the step of the rank began and ended; null where no row of `step` says so.
void set_bounds(const Side& side, std::int32_t step, std::int32_t rank, std::int64_t origin,
                Json& json) {
  const auto found = side.step_row.find({step, rank});
  const bool known = found != side.step_row.end();
  const StepEvent row = known ? side.step_rows[found->second] : StepEvent{};
  json.set("start", known ? Json(nanoseconds(origin, row.start_ns)) : Json());
  json.set("end", known ? Json(nanoseconds(origin, row.end_ns)) : Json());
}

Json rank_json(const Side& side, std::int32_t step, std::int32_t rank, std::size_t most,
               OpTable& ops, std::int64_t& joined) {
  const std::int64_t origin = side.origin_ns(step);
  std::int64_t joined_here = 0;
  const std::vector<Mark> marks = marks_of(side, side.ranges.at({step, rank}), most, joined_here);
  Json op = Json::array(), at = Json::array(), ns = Json::array(), count = Json::array(),
       busy = Json::array();
  std::int64_t before = 0;
  for (const Mark& mark : marks) {
    const std::int64_t start = nanoseconds(origin, mark.start_ns);
    op.push(ops.add(*mark.op));
    at.push(start - before);
    ns.push(nanoseconds(mark.start_ns, mark.end_ns));
    before = start;
    if (joined_here == 0) continue;
    count.push(mark.count);
    busy.push(mark.busy_ns);
  }
  const auto role = side.role_of.find(rank);
  Json json = Json::object()
                  .set("rank", static_cast<int>(rank))
                  .set("role", role == side.role_of.end() ? -1 : static_cast<int>(role->second));
  set_bounds(side, step, rank, origin, json);
  json.set("op", std::move(op)).set("at", std::move(at)).set("ns", std::move(ns));
  if (joined_here > 0) {
    json.set("count", std::move(count)).set("busy", std::move(busy));
  } else {
    json.set("wire", wire_json(side, step, rank, ops));
  }
  joined += joined_here;
  return json;
}

std::vector<std::int32_t> steps_with_spans(const Side& side) {
  std::vector<std::int32_t> all;
  for (const auto& [key, range] : side.ranges) {
    if (all.empty() || all.back() != key.first) all.push_back(key.first);
  }
  return all;
}

// The steps that have spans, the most telling first.
std::vector<std::int32_t> steps_by_interest(const Side& side) {
  const std::vector<std::int32_t> all = steps_with_spans(side);
  std::vector<std::int32_t> order = {side.default_step};
  std::vector<std::pair<double, std::int32_t>> by_time;
  for (const std::int32_t step : side.counted) {
    by_time.emplace_back(side.steps.at(step).seconds, step);
  }
  std::sort(by_time.begin(), by_time.end());
  if (!by_time.empty()) {
    order.push_back(by_time.back().second);
    order.push_back(by_time.front().second);
  }
  if (!all.empty()) {
    order.push_back(all.front());
    order.push_back(all.back());
  }
  order.insert(order.end(), all.begin(), all.end());
  std::vector<std::int32_t> distinct;
  std::set<std::int32_t> seen;
  for (const std::int32_t step : order) {
    const bool known = std::binary_search(all.begin(), all.end(), step);
    if (known && seen.insert(step).second) distinct.push_back(step);
  }
  return distinct;
}

std::string what(const Side& side) {
  return side.run.kind == RunKind::kSim ? "simulated" : "measured";
}

}  // namespace

std::vector<std::int32_t> ranks_shown(const std::vector<std::int32_t>& ranks) {
  if (ranks.size() <= kMaxRanksShown) return ranks;
  std::vector<std::int32_t> shown;
  for (std::size_t i = 0; i < kMaxRanksShown; ++i) {
    shown.push_back(ranks[i * (ranks.size() - 1) / (kMaxRanksShown - 1)]);
  }
  return shown;
}

std::vector<std::int32_t> timeline_steps(const Side& side, std::size_t budget) {
  std::vector<std::int32_t> chosen;
  std::size_t used = 0;
  for (const std::int32_t step : steps_by_interest(side)) {
    std::size_t wanted = 0;
    for (const std::int32_t rank : ranks_shown(side.ranks_of(step))) {
      wanted += side.ranges.at({step, rank}).size();
    }
    if (!chosen.empty() && used + wanted > budget) continue;
    chosen.push_back(step);
    used += wanted;
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

Json timeline_json(const Side& side, std::size_t budget, OpTable& ops,
                   std::vector<std::string>& omitted) {
  const std::vector<std::int32_t> chosen = timeline_steps(side, budget);
  const std::size_t steps = steps_with_spans(side).size();
  const std::size_t ranks_there = side.ranks_of(side.default_step).size();
  Json list = Json::array();
  std::int64_t joined = 0;
  for (const std::int32_t step : chosen) {
    const std::vector<std::int32_t> ranks = ranks_shown(side.ranks_of(step));
    const std::size_t most = budget / std::max<std::size_t>(1, ranks.size());
    Json rows = Json::array();
    for (const std::int32_t rank : ranks) {
      rows.push(rank_json(side, step, rank, most, ops, joined));
    }
    list.push(Json::object().set("step", static_cast<int>(step)).set("ranks", std::move(rows)));
  }
  if (chosen.size() < steps) {
    omitted.push_back("The timeline holds " + std::to_string(chosen.size()) + " of the " +
                      std::to_string(steps) + " " + what(side) + " steps.");
  }
  if (ranks_there > kMaxRanksShown) {
    omitted.push_back("The timeline holds " + std::to_string(kMaxRanksShown) + " of the " +
                      std::to_string(ranks_there) + " " + what(side) + " ranks, spread evenly.");
  }
  if (joined > 0) {
    omitted.push_back("In the " + what(side) + " timeline " + std::to_string(joined) +
                      " short ops are drawn as blocks together with their neighbours.");
  }
  return Json::object().set("steps", std::move(list));
}

}  // namespace orrery::html
