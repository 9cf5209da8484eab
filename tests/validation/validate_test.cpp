// Rows are predicted, judged and summed up, with a predictor that is made up.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "tests/validation/rows.h"
#include "validation/fit.h"
#include "validation/report.h"

namespace orrery::validation {
namespace {

const std::vector<Stack>& stacks() {
  static const std::vector<Stack> all = load_stacks().value();
  return all;
}

// Slower with tp, and full where it takes 30 GB more than stated.
simulator::JobPrediction made_up(const Job& job) {
  simulator::JobPrediction p;
  p.step = Seconds(static_cast<double>(job.layout.tp));
  p.p10 = Seconds(0.5 * p.step.value());
  p.p90 = Seconds(2 * p.step.value());
  p.peak_bytes = 40e9 * static_cast<double>(job.layout.micro_batch);
  p.usable_bytes = 80e9;
  p.fits = p.peak_bytes <= p.usable_bytes;
  p.probability_fits = p.fits ? 1 : 0;
  return p;
}

PublishedRow with_layout(std::int64_t tp, std::int64_t dp, double seconds) {
  PublishedRow row = made_up_row();
  row.id = "made_up#" + std::to_string(tp);
  row.plan.pp = row.plan.vpp = 1;
  row.plan.tp = tp;
  row.plan.dp = dp;
  row.measured.step_s = seconds;
  return row;
}

// Layouts tp 1, 2, 4 predicted as 1, 2, 4 s, measured as 3, 2, 4: tau 1/3, regret 0.5.
std::vector<PublishedRow> three_layouts() {
  return {with_layout(1, 16, 3), with_layout(2, 8, 2), with_layout(4, 4, 4)};
}

Summary summary_of(const std::vector<PublishedRow>& rows) {
  return summarise(validate_rows(rows, stacks(), made_up));
}

TEST(Validate, JudgesAGroup) {
  const Summary s = summary_of(three_layouts());
  EXPECT_EQ(s.rows, 3U);
  EXPECT_EQ(s.predicted, 3U);
  EXPECT_EQ(s.judged, 3U);
  ASSERT_EQ(s.groups.size(), 1U);
  EXPECT_EQ(s.groups[0].layouts, 3U);
  EXPECT_DOUBLE_EQ(s.groups[0].regret, 0.5);
  EXPECT_NEAR(s.groups[0].tau, 1.0 / 3, 1e-12);
  EXPECT_FALSE(s.groups[0].best_in_top_quarter);
  EXPECT_NEAR(s.all.step.bias, 0, 1e-12);  // ln 1/3, 0, 0
  EXPECT_NEAR(s.all.step.coverage, 2.0 / 3, 1e-12);
}

TEST(Validate, GroupsDifferInLayoutAlone) {
  std::vector<PublishedRow> rows = three_layouts();
  rows[0].plan.precision = "fp8";
  EXPECT_TRUE(summary_of(rows).groups.empty());
  rows = three_layouts();
  rows[1].plan.extra["container"] = "25.09";  // another release
  EXPECT_TRUE(summary_of(rows).groups.empty());
  rows = three_layouts();
  rows[2].plan.tp = 2;  // the same layout twice is one
  rows[2].plan.dp = 8;
  EXPECT_TRUE(summary_of(rows).groups.empty());
  rows = three_layouts();
  rows[2].plan.recompute = "full";  // recompute is a choice, too
  EXPECT_EQ(summary_of(rows).groups.size(), 1U);
}

TEST(Validate, MemoryAndFits) {
  std::vector<PublishedRow> rows = three_layouts();
  rows[0].measured.memory = 100;  // GB; predicted 80
  rows[1].plan.micro_batch = 4;   // predicted not to fit, and ran
  rows[2].measured.step_s.reset();
  rows[2].measured.out_of_memory = true;  // predicted to fit, and did not
  const Summary s = summary_of(rows);
  EXPECT_EQ(s.all.memory_rows, 1U);
  EXPECT_NEAR(s.all.memory_bias, -0.2, 1e-12);
  EXPECT_EQ(s.ran, 2U);
  EXPECT_EQ(s.false_misfits, 1U);
  EXPECT_EQ(s.out_of_memory, 1U);
  EXPECT_EQ(s.false_fits, 1U);
}

TEST(Validate, MemoryIsComparedWithWhatWasMeasured) {
  PublishedRow row = made_up_row();
  row.measured.memory = 40;
  const Predictor predict = [](const Job& job) {
    simulator::JobPrediction p = made_up(job);
    p.allocated_bytes = 50e9;
    p.peak_bytes = 60e9;
    return p;
  };
  EXPECT_NEAR(validate_row(row, stacks(), predict).memory_error(), 0.5, 1e-12);
  row.measured.memory_allocated = true;
  const Outcome allocated = validate_row(row, stacks(), predict);
  EXPECT_NEAR(allocated.memory_error(), 0.25, 1e-12);
  EXPECT_NEAR(rows_json({allocated}).items()[0].find("predicted_mem_gib")->as_double(),
              50e9 / (1 << 30), 1e-6);
  EXPECT_EQ(fit_rows({row}, stacks())[0].measured_bytes, 40e9);
  EXPECT_TRUE(fit_rows({row}, stacks())[0].allocated);
}

TEST(Validate, MeansOverSourcesWeighSourcesAlike) {
  std::vector<PublishedRow> rows = three_layouts();
  for (PublishedRow& row : rows) row.source = "large";
  rows.push_back(with_layout(1, 16, 2));  // ln 1/2
  rows.back().source = "small";
  const Summary s = summary_of(rows);
  ASSERT_EQ(s.sources.size(), 2U);
  EXPECT_NEAR(s.mean_of_sources, (0 + std::log(2.0)) / 2, 1e-12);
}

TEST(Validate, StepsComeFromTokensToo) {
  PublishedRow row = made_up_row();
  row.measured.step_s.reset();
  row.measured.tokens_per_device_s = 64.0 * 4096 / 16 / 2;  // a step of 2 s
  EXPECT_DOUBLE_EQ(row.step_s().value(), 2);
}

// Order, ids and names of sources change no figure.
TEST(Validate, OrderAndNamesChangeNothing) {
  std::vector<PublishedRow> rows = three_layouts();
  rows.push_back(made_up_moe());
  rows.push_back(made_up_row());
  rows.back().plan.global_batch.reset();
  const std::string before = summary_json(summary_of(rows), {}).dump();
  for (unsigned seed = 0; seed < 20; ++seed) {
    std::mt19937 rng(seed);
    std::shuffle(rows.begin(), rows.end(), rng);
    for (PublishedRow& row : rows) row.id = std::to_string(rng());
    EXPECT_EQ(summary_json(summary_of(rows), {}).dump(), before);
  }
  const std::vector<Outcome> named = validate_rows(rows, stacks(), made_up);
  for (PublishedRow& row : rows) row.source = "renamed";
  const std::vector<Outcome> renamed = validate_rows(rows, stacks(), made_up);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(named[i].prediction.has_value(), renamed[i].prediction.has_value());
    if (!named[i].prediction) continue;
    EXPECT_EQ(named[i].prediction->step, renamed[i].prediction->step);
  }
}

TEST(Report, JsonKeepsItsContract) {
  std::vector<PublishedRow> rows = three_layouts();
  rows.push_back(made_up_row());
  rows.back().plan.global_batch.reset();
  const auto outcomes = validate_rows(rows, stacks(), made_up);
  const Json json = rows_json(outcomes);
  ASSERT_EQ(json.items().size(), 4U);
  for (const Json& row : json.items()) {
    for (const char* key : {"id", "predicted_step_s", "p10_s", "p90_s", "measured_step_s",
                            "predicted_mem_gib", "measured_mem_gb", "fits", "p_fits", "refused"}) {
      EXPECT_NE(row.find(key), nullptr) << key;
    }
  }
  EXPECT_TRUE(json.items()[0].find("refused")->is_null());
  EXPECT_TRUE(json.items()[3].find("fits")->is_null());
  const Json& refused = *json.items()[3].find("refused");
  EXPECT_EQ(refused.items()[0].find("field")->as_string(), "plan.global_batch");
  Fitting fitting;
  fitting.parameters = 3;
  fitting.without_source.assign(aims(summarise(outcomes)).size(), 0.5);
  const Json summary = summary_json(summarise(outcomes), fitting);
  EXPECT_EQ(summary.find("leave_one_source_out")->find("worst regret")->as_double(), 0.5);
  EXPECT_EQ(summary.find("fitted_parameters")->as_integer(), 3);
  EXPECT_TRUE(summary.find("leave_one_device_out")->is_null());
  EXPECT_EQ(summary.find("predicted")->as_integer(), 3);
}

TEST(Report, PageSaysWhatIsMissed) {
  std::vector<PublishedRow> rows = three_layouts();
  rows.push_back(made_up_row());
  rows.back().plan.global_batch.reset();
  const auto outcomes = validate_rows(rows, stacks(), made_up);
  const std::string page = accuracy_page(summarise(outcomes), outcomes, {});
  for (const char* part : {"**missed**", "not asked for", "plan.global_batch: is missing",
                           "| made_up | 4 | 1 |", "## What is completed", "no rows"}) {
    EXPECT_NE(page.find(part), std::string::npos) << part << "\n" << page;
  }
}

}  // namespace
}  // namespace orrery::validation
