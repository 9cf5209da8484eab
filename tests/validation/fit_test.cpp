// Fits: parameters of a made-up machine are found again from its steps, and predict jobs that were
// not fitted; what is held out is not seen.
#include "validation/fit.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/outline/jobs.h"

namespace orrery::validation {
namespace {

const Predictor kPredict = simulator::predict;

// Jobs that differ in what they rest on: products, attention, passes, links, the host, the step.
std::vector<Job> jobs() {
  std::vector<Job> out;
  for (const std::int64_t tp : {1, 2, 8}) {
    for (const std::int64_t sequence : {512, 2048, 16384}) {
      for (const std::int64_t batch : {64, 256}) {
        Job job = dense_job(16, 6);
        job.cluster.device.family = "made_up";
        job.stack.name = "made_up-1";
        job.stack.family = "made_up";
        job.layout.tp = tp;
        job.layout.dp = job.layout.fsdp_d = 16 / tp;
        job.sequence_parallel = tp > 1;
        job.sequence_tokens = sequence;
        job.global_sequences = batch;
        out.push_back(job);
      }
    }
  }
  return out;
}

simulator::ParameterValue value(simulator::Owner owner, const char* of, const char* name,
                                double number) {
  return {owner, of, name, number, 0};
}

const std::vector<simulator::ParameterValue> kMachine = {
    value(simulator::Owner::kDevice, "made_up", "product", 0.55),
    value(simulator::Owner::kDevice, "made_up", "memory", 0.7),
    value(simulator::Owner::kLink, "near", "attainable", 0.6),
    value(simulator::Owner::kStack, "made_up", "step_s", 0.05),
    value(simulator::Owner::kStack, "made_up", "attention_factor", 1.4),
    value(simulator::Owner::kStack, "made_up", "reserve_bytes", 4e9),
    value(simulator::Owner::kStack, "made_up", "fragmentation", 1.3)};

std::vector<FitRow> rows_of(const std::vector<Job>& all, std::size_t first, const char* source) {
  std::vector<FitRow> out;
  for (std::size_t i = first; i < all.size(); i += 2) {
    out.push_back({all[i], with(kMachine, kPredict)(all[i]).step.value(), source});
  }
  return out;
}

double worst_error(const std::vector<FitRow>& rows,
                   const std::vector<simulator::ParameterValue>& values) {
  double worst = 0;
  for (const FitRow& r : rows) {
    const double predicted = with(values, kPredict)(r.job).step.value();
    worst = std::max(worst, std::abs(std::log(predicted / r.measured_s)));
  }
  return worst;
}

TEST(Fit, PredictsJobsThatWereNotFitted) {
  const std::vector<Job> all = jobs();
  const std::vector<FitRow> fitted = rows_of(all, 0, "seen"), others = rows_of(all, 1, "unseen");
  ASSERT_GT(worst_error(others, {}), 0.15);
  const FitResult result = fit(fitted, kPredict);
  EXPECT_LT(result.after, result.before / 5);
  EXPECT_LT(worst_error(others, result.values), worst_error(others, {}) / 3);
}

// The same jobs by their memory; without a step time where `steps` is false.
std::vector<FitRow> memory_rows(std::size_t first, bool steps) {
  std::vector<Job> all = jobs();
  for (Job& job : all) job.layout.micro_batch = 1;
  std::vector<FitRow> out = rows_of(all, first, "read");
  for (FitRow& r : out) {
    r.measured_bytes = with(kMachine, kPredict)(r.job).peak_bytes;
    if (!steps) r.measured_s = 0;
  }
  return out;
}

double worst_memory_error(const std::vector<FitRow>& rows,
                          const std::vector<simulator::ParameterValue>& values) {
  double worst = 0;
  for (const FitRow& r : rows) {
    const double predicted = with(values, kPredict)(r.job).peak_bytes;
    worst = std::max(worst, std::abs(std::log(predicted / r.measured_bytes)));
  }
  return worst;
}

TEST(Fit, PredictsMemoryOfJobsThatWereNotFitted) {
  const std::vector<FitRow> fitted = memory_rows(0, false), others = memory_rows(1, false);
  ASSERT_GT(worst_memory_error(others, {}), 0.15);
  const FitResult result = fit(fitted, kPredict);
  EXPECT_LT(result.memory_after, result.memory_before / 5);
  EXPECT_LT(worst_memory_error(others, result.values), worst_memory_error(others, {}) / 3);
  for (const simulator::ParameterValue& v : result.values) {
    EXPECT_TRUE(v.name == "reserve_bytes" || v.name == "fragmentation") << v.name;
  }
}

TEST(Fit, MemoryAndTimeAreFittedApart) {
  const std::vector<FitRow> both = memory_rows(0, true), bytes = memory_rows(0, false);
  std::vector<FitRow> steps = both;
  for (FitRow& r : steps) r.measured_bytes = 0;
  std::vector<simulator::ParameterValue> apart = fit(steps, kPredict).values;
  for (const simulator::ParameterValue& v : fit(bytes, kPredict).values) apart.push_back(v);
  const std::vector<simulator::ParameterValue> together = fit(both, kPredict).values;
  ASSERT_EQ(together.size(), apart.size());
  for (std::size_t i = 0; i < together.size(); ++i) {
    EXPECT_EQ(together[i].name, apart[i].name);
    EXPECT_EQ(together[i].value, apart[i].value) << together[i].name;
  }
}

TEST(Fit, MemoryOfAnotherJobTeachesNothing) {
  std::vector<FitRow> rows = memory_rows(0, false);
  const std::vector<simulator::ParameterValue> before = fit(rows, kPredict).values;
  const std::size_t count = rows.size();
  for (std::size_t i = 0; i < count; ++i) {
    rows.push_back(rows[i]);
    rows.back().measured_bytes *= 3;
  }
  const std::vector<simulator::ParameterValue> after = fit(rows, kPredict).values;
  ASSERT_EQ(before.size(), after.size());
  for (std::size_t i = 0; i < before.size(); ++i) {
    EXPECT_NEAR(std::log(after[i].value / before[i].value), 0, 0.1) << before[i].name;
  }
}

TEST(Fit, AllocatedMemoryKnowsNoReserve) {
  // Rows of what was alive say nothing of what the process took beyond it.
  std::vector<FitRow> rows = memory_rows(0, false);
  for (FitRow& r : rows) {
    r.measured_bytes = kPredict(r.job).allocated_bytes;
    r.allocated = true;
  }
  const FitResult result = fit(rows, kPredict);
  EXPECT_EQ(result.memory_before, 0);
  for (const simulator::ParameterValue& v : result.values) {
    EXPECT_EQ(v.value, v.name == "fragmentation" ? Stack{}.fragmentation : Stack{}.reserve_bytes);
  }
}

TEST(Fit, StaysWithinPhysicalRanges) {
  std::vector<FitRow> rows = rows_of(jobs(), 0, "absurd");
  for (FitRow& r : rows) {
    r.measured_s /= 1000;
    r.measured_bytes = 1e15;
  }
  for (const simulator::ParameterValue& v : fit(rows, kPredict).values) {
    const auto& registry = simulator::free_parameters();
    const auto p = std::find_if(registry.begin(), registry.end(), [&](const auto& f) {
      return f.owner == v.owner && f.name == v.name;
    });
    ASSERT_NE(p, registry.end()) << v.name;
    EXPECT_GE(v.value, p->min) << v.name;
    EXPECT_LE(v.value, p->max) << v.name;
    EXPECT_GE(v.low, p->min) << v.name;
    EXPECT_LE(v.low, v.value) << v.name;
    EXPECT_GE(v.high, v.value) << v.name;
    EXPECT_LE(v.high, p->max) << v.name;
  }
}

// A value that rows say nothing about keeps the interval of its prior; what they say narrows it.
TEST(Fit, IntervalsSayWhatRowsKnow) {
  const FitResult result = fit(rows_of(jobs(), 0, "seen"), kPredict);
  const auto interval = [&](const char* name) {
    for (const simulator::ParameterValue& v : result.values) {
      if (v.name == name) return std::log(v.high / v.low) / 2;
    }
    ADD_FAILURE() << name;
    return 0.0;
  };
  const auto deviation = [&](const char* name) {
    return simulator::find_parameter(simulator::Owner::kDevice, name)->spread;
  };
  EXPECT_NEAR(interval("low_product"), deviation("low_product"), 0.01);  // nothing has 8 bits
  EXPECT_LT(interval("product"), deviation("product") / 2);
}

TEST(Fit, NamesOfJobsChangeNothing) {
  std::vector<FitRow> rows = rows_of(jobs(), 0, "seen");
  const FitResult before = fit(rows, kPredict);
  for (FitRow& r : rows) r.job.model.name = r.job.cluster.name = r.source = "another";
  const FitResult after = fit(rows, kPredict);
  ASSERT_EQ(before.values.size(), after.values.size());
  ASSERT_FALSE(before.values.empty());
  for (std::size_t i = 0; i < before.values.size(); ++i) {
    EXPECT_EQ(before.values[i].value, after.values[i].value) << before.values[i].name;
  }
}

TEST(Fit, ParametersReadBack) {
  simulator::ParameterSet set;
  set.values = kMachine;
  set.without_source = {{"worst regret", 0.25}};
  const auto read = simulator::parse_parameters(simulator::to_json(set).dump(), "set.json");
  ASSERT_TRUE(read.ok()) << read.error().text();
  ASSERT_EQ(read.value().values.size(), kMachine.size());
  EXPECT_EQ(read.value().values[3].value, 0.05);
  EXPECT_EQ(read.value().without_source, set.without_source);
  const auto wrong = simulator::parse_parameters(
      R"({"values": [{"owner": "device", "of": "hopper", "name": "product", "value": 7}]})", "x");
  ASSERT_FALSE(wrong.ok());
  EXPECT_NE(wrong.error().text().find("/values/0"), std::string::npos) << wrong.error().text();
}

}  // namespace
}  // namespace orrery::validation
