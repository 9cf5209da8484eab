// See compare.h.
#include "tracer/compare.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>
#include <unordered_map>
#include <utility>

namespace orrery {
namespace {

using ClassKey = std::tuple<std::string, std::string, std::string>;  // kind, phase, lane

// One op of one run, joined over ranks.
struct OpTime {
  const OpRow* row = nullptr;
  double seconds = 0;  // median over steps, mean over the ranks that run it
  double sum_s = 0;    // the same, summed over ranks
};

// Everything of a run that the comparison needs.
struct RunTimes {
  std::vector<OpRow> rows;
  std::map<std::string, OpTime> ops;  // by join text; see join_of
  std::int64_t ranks = 0;
  double step_s = 0;
  double peak_bytes = 0;
  std::map<std::int32_t, double> peaks;  // by class
  std::map<std::int32_t, std::string> class_names;
};

double median(std::vector<double> values) {
  CHECK(!values.empty(), "the median of nothing");
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

std::string join_of(const OpRow& op, bool by_key) {
  if (by_key) return std::to_string(op.key);
  return op.path + '\n' + op.phase + '\n' + std::to_string(op.micro_batch) + '\n' +
         std::to_string(op.chunk);
}

// The steps that count: all, or all but the first of three or more.
std::set<std::int32_t> counted_steps(const std::vector<StepEvent>& steps) {
  std::set<std::int32_t> counted;
  for (const StepEvent& step : steps) counted.insert(step.step);
  if (counted.size() >= 3) counted.erase(counted.begin());
  return counted;
}

double seconds(std::int64_t start_ns, std::int64_t end_ns) {
  return (static_cast<double>(end_ns) - static_cast<double>(start_ns)) / 1e9;
}

void fill_step_time(const std::vector<StepEvent>& steps, const std::set<std::int32_t>& counted,
                    RunTimes& run) {
  std::map<std::int32_t, std::pair<double, double>> by_step;  // sum and count over ranks
  std::set<std::int32_t> ranks;
  for (const StepEvent& step : steps) {
    ranks.insert(step.rank);
    if (!counted.contains(step.step)) continue;
    by_step[step.step].first += seconds(step.start_ns, step.end_ns);
    by_step[step.step].second += 1;
  }
  std::vector<double> means;
  for (const auto& [step, sum] : by_step) means.push_back(sum.first / sum.second);
  if (!means.empty()) run.step_s = median(std::move(means));
  run.ranks = static_cast<std::int64_t>(ranks.size());
}

// Durations of one op on one rank, by step, are folded as they come: spans are ordered by rank.
void fill_op_times(const std::vector<SpanEvent>& spans, const std::vector<RankInfo>& ranks,
                   const std::set<std::int32_t>& counted, bool by_key, RunTimes& run) {
  std::map<std::pair<std::int32_t, std::int32_t>, const OpRow*> rows;
  for (const OpRow& row : run.rows) rows[{row.role, row.op}] = &row;
  std::unordered_map<std::int32_t, std::int32_t> role_of;
  for (const RankInfo& rank : ranks) role_of[rank.rank] = rank.role;
  std::map<std::string, double> rank_count;
  std::map<const OpRow*, std::vector<double>> of_rank;
  const auto fold = [&] {
    for (auto& [row, durations] : of_rank) {
      OpTime& time = run.ops[join_of(*row, by_key)];
      time.row = row;
      time.sum_s += median(std::move(durations));
      rank_count[join_of(*row, by_key)] += 1;
    }
    of_rank.clear();
  };
  for (std::size_t i = 0; i < spans.size(); ++i) {
    const SpanEvent& span = spans[i];
    if (i > 0 && spans[i - 1].rank != span.rank) fold();
    const auto role = role_of.find(span.rank);
    if (role == role_of.end() || !counted.contains(span.step)) continue;
    const auto row = rows.find({role->second, span.op});
    if (row != rows.end()) of_rank[row->second].push_back(seconds(span.start_ns, span.end_ns));
  }
  fold();
  for (auto& [join, time] : run.ops) time.seconds = time.sum_s / rank_count[join];
}

Result<RunTimes> read_times(TraceReader& trace, bool by_key) {
  RunTimes run;
  TRY(run.rows, trace.ops());
  TRY(const auto steps, trace.steps());
  TRY(const auto ranks, trace.ranks());
  TRY(const auto spans, trace.spans());
  TRY(const auto peaks, trace.peaks());
  TRY(const auto classes, trace.query("SELECT class, name FROM buffer_class"));
  const std::set<std::int32_t> counted = counted_steps(steps);
  fill_step_time(steps, counted, run);
  fill_op_times(spans, ranks, counted, by_key, run);
  for (const PeakEvent& peak : peaks) {
    double& highest = run.peaks[peak.cls];
    highest = std::max(highest, static_cast<double>(peak.bytes));
  }
  run.peak_bytes = run.peaks[-1];
  for (const auto& row : classes.rows) {
    const auto* cls = std::get_if<std::int64_t>(&row[0]);
    const auto* name = std::get_if<std::string>(&row[1]);
    if (cls && name) run.class_names[static_cast<std::int32_t>(*cls)] = *name;
  }
  return run;
}

template <class Row>
void by_difference(std::vector<Row>& rows) {
  std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) {
    return std::abs(a.difference_s()) > std::abs(b.difference_s());
  });
}

void fill_memory(const RunTimes& a, const RunTimes& b, CompareReport& report) {
  std::map<std::int32_t, Compared> rows;
  for (const auto& [cls, bytes] : a.peaks) rows[cls].predicted = bytes;
  for (const auto& [cls, bytes] : b.peaks) rows[cls].measured = bytes;
  for (const auto& [cls, bytes] : rows) {
    if (cls < 0) continue;
    const auto& names = a.class_names.count(cls) > 0 ? a.class_names : b.class_names;
    const auto name = names.find(cls);
    report.memory.push_back(
        {name == names.end() ? "class " + std::to_string(cls) : name->second, bytes});
  }
}

void fill_classes(const RunTimes& a, const RunTimes& b, CompareReport& report) {
  std::map<ClassKey, Compared> rows;
  const auto add = [&](const RunTimes& run, double Compared::*side) {
    for (const auto& [join, time] : run.ops) {
      const OpRow& op = *time.row;
      rows[{op.kind, op.phase, op.lane}].*side +=
          time.sum_s / static_cast<double>(std::max<std::int64_t>(run.ranks, 1));
    }
  };
  add(a, &Compared::predicted);
  add(b, &Compared::measured);
  for (const auto& [key, value] : rows) {
    const auto& [kind, phase, lane] = key;
    report.classes.push_back({kind, phase, lane, value});
  }
  by_difference(report.classes);
}

void fill_ops(const RunTimes& a, const RunTimes& b, CompareReport& report) {
  for (const auto& [join, time] : a.ops) {
    const auto other = b.ops.find(join);
    if (other == b.ops.end()) {
      ++report.only_a;
      continue;
    }
    ++report.joined_ops;
    const OpRow& op = *time.row;
    report.ops.push_back({op.path,
                          op.phase,
                          op.kind,
                          op.lane,
                          op.micro_batch,
                          op.chunk,
                          {time.seconds, other->second.seconds}});
  }
  report.only_b = static_cast<std::int64_t>(b.ops.size()) - report.joined_ops;
  by_difference(report.ops);
}

}  // namespace

double Compared::error() const {
  if (measured == 0) return predicted == 0 ? 0 : std::nan("");
  return predicted / measured - 1;
}

Result<CompareReport> compare_runs(TraceReader& a, TraceReader& b) {
  CompareReport report;
  report.same_program = a.run().program_hash == b.run().program_hash && a.run().program_hash != 0;
  TRY(const RunTimes times_a, read_times(a, report.same_program));
  TRY(const RunTimes times_b, read_times(b, report.same_program));
  report.step_s = {times_a.step_s, times_b.step_s};
  report.peak_bytes = {times_a.peak_bytes, times_b.peak_bytes};
  fill_memory(times_a, times_b, report);
  fill_classes(times_a, times_b, report);
  fill_ops(times_a, times_b, report);
  return report;
}

}  // namespace orrery
