// Answers from plans and from jobs, and what both searchers need. See searcher.h.
#include "planner/questions/searcher.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "core/check.h"
#include "planner/pinned_number.h"
#include "planner/plans/search.h"
#include "simulator/stages/speed.h"

namespace orrery::planner {

Answer answer_of(Plan plan, bool fits) {
  const Prediction& p = plan.predicted;
  Answer answer;
  answer.fits = fits;
  answer.step = p.step;
  answer.p10 = p.p10;
  answer.p90 = p.p90;
  answer.tokens_per_s = p.tokens_per_s;
  answer.mfu = p.mfu;
  answer.peak = p.peak;
  answer.usable = usable_memory(plan.cluster);
  answer.best = std::move(plan);
  return answer;
}

Answer answer_of(jobs::PlannedJob job, bool fits) {
  const simulator::JobPrediction& p = job.predicted;
  Answer answer;
  answer.fits = fits;
  answer.step = p.step;
  answer.p10 = p.p10;
  answer.p90 = p.p90;
  answer.tokens_per_s = simulator::tokens_a_step(job.job) / p.step.value();
  answer.mfu = simulator::mfu(job.job, p.step);
  answer.peak = Bytes(static_cast<std::int64_t>(p.peak_bytes));
  answer.usable = Bytes(static_cast<std::int64_t>(p.usable_bytes));
  answer.best = std::move(job);
  return answer;
}

const Plan& plan_of(const Answer& answer) {
  const Plan* plan = std::get_if<Plan>(&answer.best);
  CHECK(plan != nullptr, "an answer that is no plan of the engine");
  return *plan;
}

const jobs::PlannedJob& job_of(const Answer& answer) {
  const jobs::PlannedJob* job = std::get_if<jobs::PlannedJob>(&answer.best);
  CHECK(job != nullptr, "an answer that is no job");
  return *job;
}

std::string reason_of(const Searcher& searcher, const Setting& setting, const Error& error) {
  const std::vector<Problem> broken = searcher.broken(setting);
  const Problem& first = broken.empty() ? error.problems.front() : broken.front();
  return first.where + ": " + first.message;
}

std::vector<std::int64_t> sensible_values(const Setting& setting) {
  std::set<std::int64_t> values = {0};
  const auto add_divisors = [&](std::int64_t whole) {
    for (std::int64_t d = 1; d * d <= whole; ++d) {
      if (whole % d == 0) values.insert({d, whole / d});
    }
  };
  add_divisors(setting.cluster.devices);
  add_divisors(setting.model.experts);
  add_divisors(setting.workload.global_sequences);
  add_divisors(setting.model.layers);
  for (std::int64_t rows = 1; rows <= setting.workload.sequence_tokens; rows *= 2) {
    values.insert(rows);
  }
  return {values.begin(), values.end()};
}

void add_changes(const Setting& setting, std::size_t pin, std::int64_t least,
                 std::vector<PinChange>& out) {
  const auto pinned = pinned_number(setting.pins[pin].second, 0);
  if (!pinned) return;
  const auto at = [](std::int64_t v) { return std::log2(static_cast<double>(v) + 0.5); };
  for (const std::int64_t v : sensible_values(setting)) {
    if (v == *pinned || v < least) continue;
    out.push_back({std::abs(at(v) - at(*pinned)), pin, std::to_string(v)});
  }
}

std::string against(const char* what, std::int64_t own, std::int64_t best) {
  return own == best ? "" : fmt::format("{} {} against {}", what, own, best);
}

std::string joined(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) {
    if (!part.empty()) text += (text.empty() ? "" : ", ") + part;
  }
  return text;
}

}  // namespace orrery::planner
