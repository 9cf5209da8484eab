// See side.h.
#include "ui-export/html/side.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <tuple>
#include <variant>

namespace orrery::html {
namespace {

std::int64_t integer_of(const Cell& cell) {
  const auto* value = std::get_if<std::int64_t>(&cell);
  return value ? *value : 0;
}

// What the reader has no call for.
Status read_static(TraceReader& trace, Side& side) {
  TRY(const Table bytes, trace.query("SELECT role, op, static_bytes FROM op"));
  for (const auto& row : bytes.rows) {
    if (std::holds_alternative<std::monostate>(row[2])) continue;
    side.static_bytes[{static_cast<std::int32_t>(integer_of(row[0])),
                       static_cast<std::int32_t>(integer_of(row[1]))}] = integer_of(row[2]);
  }
  TRY(const Table deps, trace.query("SELECT role, op, on_op FROM dep ORDER BY role, op, on_op"));
  for (const auto& row : deps.rows) {
    side.deps[{static_cast<std::int32_t>(integer_of(row[0])),
               static_cast<std::int32_t>(integer_of(row[1]))}]
        .push_back(static_cast<std::int32_t>(integer_of(row[2])));
  }
  TRY(const Table classes, trace.query("SELECT class, name FROM buffer_class ORDER BY class"));
  for (const auto& row : classes.rows) {
    if (const auto* name = std::get_if<std::string>(&row[1])) {
      side.class_names[static_cast<std::int32_t>(integer_of(row[0]))] = *name;
    }
  }
  TRY(const Table standing, trace.query("SELECT role, class, sum(c0_bytes) FROM buffer "
                                        "WHERE taken_by < 0 AND var IS NULL GROUP BY role, class"));
  for (const auto& row : standing.rows) {
    side.standing_bytes[{static_cast<std::int32_t>(integer_of(row[0])),
                         static_cast<std::int32_t>(integer_of(row[1]))}] = integer_of(row[2]);
  }
  return Ok{};
}

void index_steps(Side& side) {
  for (std::size_t i = 0; i < side.step_rows.size(); ++i) {
    const StepEvent& row = side.step_rows[i];
    side.step_row[{row.step, row.rank}] = i;
    StepFacts& facts = side.steps[row.step];
    if (facts.ranks == 0) {
      facts.first = row;
      facts.start_ns = row.start_ns;
      facts.end_ns = row.end_ns;
    }
    ++facts.ranks;
    facts.seconds += static_cast<double>(nanoseconds(row.start_ns, row.end_ns)) / 1e9;
    facts.start_ns = std::min(facts.start_ns, row.start_ns);
    facts.end_ns = std::max(facts.end_ns, row.end_ns);
  }
  for (auto& [step, facts] : side.steps) {
    facts.seconds /= static_cast<double>(facts.ranks);
    side.counted.insert(step);
  }
  if (side.counted.size() >= 3) side.counted.erase(side.counted.begin());
}

void index_spans(Side& side) {
  std::stable_sort(side.spans.begin(), side.spans.end(), [](const auto& a, const auto& b) {
    return std::tie(a.step, a.rank, a.start_ns, a.op) < std::tie(b.step, b.rank, b.start_ns, b.op);
  });
  for (std::size_t i = 0; i < side.spans.size();) {
    std::size_t end = i;
    while (end < side.spans.size() && side.spans[end].step == side.spans[i].step &&
           side.spans[end].rank == side.spans[i].rank) {
      ++end;
    }
    side.ranges[{side.spans[i].step, side.spans[i].rank}] = {i, end};
    i = end;
  }
}

// The lower median, so that it is a step that was.
void choose_step(Side& side) {
  std::vector<std::pair<double, std::int32_t>> by_time;
  for (const std::int32_t step : side.counted) {
    by_time.emplace_back(side.steps.at(step).seconds, step);
  }
  std::sort(by_time.begin(), by_time.end());
  if (!by_time.empty()) {
    side.default_step = by_time[(by_time.size() - 1) / 2].second;
  } else if (!side.spans.empty()) {
    side.default_step = side.spans.front().step;
  }
}

}  // namespace

std::int64_t nanoseconds(std::int64_t from_ns, std::int64_t to_ns) {
  constexpr std::int64_t kMost = std::int64_t{1} << 53;
  std::int64_t result = 0;
  if (__builtin_sub_overflow(to_ns, from_ns, &result)) return to_ns < from_ns ? -kMost : kMost;
  return std::clamp(result, -kMost, kMost);
}

std::int64_t plus(std::int64_t a, std::int64_t b) {
  constexpr std::int64_t kMost = std::int64_t{1} << 53;
  return std::clamp(std::clamp(a, -kMost, kMost) + std::clamp(b, -kMost, kMost), -kMost, kMost);
}

std::string clean_text(const std::string& text) {
  std::string out;
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  for (std::size_t i = 0; i < text.size();) {
    const unsigned first = byte(i);
    const std::size_t length = first < 0x80U                     ? 1
                               : first >= 0xC2U && first < 0xE0U ? 2
                               : first >= 0xE0U && first < 0xF0U ? 3
                               : first >= 0xF0U && first < 0xF5U ? 4
                                                                 : 0;
    bool good = length > 0 && i + length <= text.size();
    for (std::size_t k = 1; good && k < length; ++k) good = (byte(i + k) & 0xC0U) == 0x80U;
    // Overlong forms, surrogates and what lies beyond U+10FFFF.
    if (good && length == 3) {
      good = !(first == 0xE0U && byte(i + 1) < 0xA0U) && !(first == 0xEDU && byte(i + 1) > 0x9FU);
    }
    if (good && length == 4) {
      good = !(first == 0xF0U && byte(i + 1) < 0x90U) && !(first == 0xF4U && byte(i + 1) > 0x8FU);
    }
    out += good ? text.substr(i, length) : std::string("\xEF\xBF\xBD");
    i += good ? length : 1;
  }
  return out;
}

const OpRow* Side::op_of(const SpanEvent& span) const {
  const auto role = role_of.find(span.rank);
  if (role == role_of.end()) return nullptr;
  const auto found = op.find({role->second, span.op});
  return found == op.end() ? nullptr : found->second;
}

std::vector<std::int32_t> Side::ranks_of(std::int32_t step) const {
  std::vector<std::int32_t> found;
  const auto first = ranges.lower_bound({step, std::numeric_limits<std::int32_t>::min()});
  for (auto at = first; at != ranges.end() && at->first.first == step; ++at) {
    found.push_back(at->first.second);
  }
  return found;
}

std::int64_t Side::origin_ns(std::int32_t step) const {
  const auto facts = steps.find(step);
  if (facts != steps.end()) return facts->second.start_ns;
  std::int64_t origin = std::numeric_limits<std::int64_t>::max();
  for (const std::int32_t rank : ranks_of(step)) {
    origin = std::min(origin, spans[ranges.at({step, rank}).begin].start_ns);
  }
  return origin;
}

Result<std::int32_t> median_step(TraceReader& trace) {
  Side side;
  TRY(side.step_rows, trace.steps());
  index_steps(side);
  choose_step(side);
  return side.default_step;
}

Result<Side> read_side(TraceReader& trace) {
  Side side;
  side.run = trace.run();
  side.file = std::filesystem::path(trace.path()).filename().string();
  TRY(side.ranks, trace.ranks());
  TRY(side.ops, trace.ops());
  TRY(side.spans, trace.spans());
  TRY(side.collectives, trace.collectives());
  TRY(side.allocs, trace.allocs());
  TRY(side.peaks, trace.peaks());
  TRY(side.notes, trace.notes());
  TRY(side.attrs, trace.attrs());
  TRY(side.step_rows, trace.steps());
  TRY_OK(read_static(trace, side));
  for (const RankInfo& rank : side.ranks) side.role_of[rank.rank] = rank.role;
  for (const OpRow& row : side.ops) side.op[{row.role, row.op}] = &row;
  index_steps(side);
  index_spans(side);
  choose_step(side);
  return side;
}

}  // namespace orrery::html
