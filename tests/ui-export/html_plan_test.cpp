// The page of a plan: what it says equals what the plan carries, of both purposes.
#include <gtest/gtest.h>

#include <cmath>

#include "core/job_json.h"
#include "tests/support/plans.h"
#include "tests/ui-export/job_fixture.h"
#include "ui-export/html/answer.h"
#include "ui-export/html/rules.h"

namespace orrery {
namespace {

using testing::job_plan_text;
using testing::pipeline_picture;

const Json& at(const Json& json, const std::string& key) {
  const Json* found = json.find(key);
  CHECK(found != nullptr, "no " + key);
  return *found;
}

TEST(HtmlPlan, AJobsAnswerIsItsPlan) {
  const auto read = html::answer_of_job(job_plan_text(), "plan.json");
  ASSERT_TRUE(read.ok()) << read.error().text();
  const Json& answer = read.value();
  const Json plan = Json::parse(job_plan_text(), "plan.json").value();
  EXPECT_EQ(at(answer, "purpose").as_string(), "simulate");
  const Json& winner = at(answer, "winner");
  for (const char* key : {"step_s", "p10_s", "p90_s", "mfu", "peak_bytes", "probability_fits"}) {
    EXPECT_EQ(at(winner, key), at(at(plan, "predicted"), key)) << key;
  }
  double sum = 0;
  for (const Json& term : at(winner, "terms").items()) sum += at(term, "seconds").as_double();
  EXPECT_DOUBLE_EQ(sum, at(winner, "step_s").as_double());
  std::int64_t bytes = 0;
  for (const Json& row : at(winner, "memory").items()) bytes += at(row, "bytes").as_integer();
  EXPECT_EQ(bytes, at(winner, "peak_bytes").as_integer());
  const auto& families = at(answer, "families").items();
  ASSERT_EQ(families.size(), 2U);
  EXPECT_EQ(at(families[0], "family").as_string(), "no pipeline");
  EXPECT_EQ(at(families[0], "words").as_string(), words_of(testing::rival_job()));
  EXPECT_FALSE(at(families[0], "proved").as_bool());
  // What does not fit stands last, without figures.
  EXPECT_EQ(at(families[1], "family").as_string(), "no <b>recompute</b>");
  EXPECT_FALSE(at(families[1], "fits").as_bool());
  EXPECT_EQ(families[1].find("step_s"), nullptr);
  const auto& frontier = at(answer, "frontier").items();
  ASSERT_EQ(frontier.size(), 2U);
  EXPECT_EQ(at(frontier[1], "memory_bytes").as_integer(), 3'000'000'000);
  EXPECT_EQ(at(frontier[1], "step_s").as_double(), 3.5);
  const auto& rules = at(answer, "rules").items();
  ASSERT_EQ(rules.size(), 2U);
  EXPECT_EQ(at(rules[0], "rule").as_string(), "batch");
  EXPECT_EQ(at(rules[0], "count").as_integer(), 400);
  EXPECT_EQ(at(at(answer, "proof"), "bound_remaining_s").as_double(), 2.0);
}

TEST(HtmlPlan, AJobWithoutFiguresIsRefused) {
  const auto bare = html::answer_of_job(to_json(testing::winning_job()).dump(), "job.json");
  ASSERT_FALSE(bare.ok());
  EXPECT_EQ(bare.error().code, ErrorCode::kInvalid);
  EXPECT_NE(bare.error().text().find("/predicted"), std::string::npos);
  EXPECT_FALSE(html::answer_of_job("{}", "job.json").ok());
}

TEST(HtmlPlan, OfAPlanOfTheEngineFamiliesAreTold) {
  Plan plan = small_moe_plan(4, 2, 2);
  plan.predicted.step = Seconds(2);
  plan.predicted.peak = Bytes(1000);
  plan.predicted.memory = {
      {"activation", Bytes(900)}, {"gradient", Bytes(100)}, {"host", Bytes(0)}};
  const auto runner = [&](double step, std::int64_t peak, const char* why, bool tie) {
    RunnerUp out{plan.layout, plan.chunks, plan.policy, plan.predicted, why, tie};
    out.predicted.step = Seconds(step);
    out.predicted.peak = Bytes(peak);
    return out;
  };
  const std::int64_t much = plan.cluster.device.memory.value() * 2;
  plan.runners_up = {runner(2.01, 900, "+0.5 %: 10 ms more idle time", true),
                     runner(4, 900, "ep > 1: +100.00 %: 2 s more compute", false),
                     runner(3, 900, "no swap: +50.00 %: 1 s more compute", false),
                     runner(1, much, "no recompute: does not fit: needs 9 GiB of 4 GiB", false)};
  plan.rejected = {{"memory", 3}, {"world_size", 7}, {"heads_divide", 0}};
  plan.frontier = {
      {Bytes(1000), Bytes(2000), plan.layout, plan.chunks, plan.policy, plan.predicted}};
  const Json answer = html::answer_json(plan, {{{"forward", 0.5}, {"backward", 1.5}}});
  EXPECT_EQ(at(answer, "ties").as_integer(), 1);
  const auto& families = at(answer, "families").items();
  ASSERT_EQ(families.size(), 3U);
  EXPECT_EQ(at(families[0], "family").as_string(), "no swap");
  EXPECT_EQ(at(families[0], "lost_by").as_string(), "1 s more compute");
  EXPECT_EQ(at(families[1], "family").as_string(), "ep > 1");
  EXPECT_FALSE(at(families[2], "fits").as_bool());
  EXPECT_EQ(at(at(answer, "winner"), "terms").items().size(), 2U);
  EXPECT_EQ(at(answer, "rules").items().size(), 2U);
  EXPECT_EQ(at(at(answer, "rules").items()[0], "rule").as_string(), "world_size");
  EXPECT_EQ(at(at(answer, "frontier").items().at(0), "memory_bytes").as_integer(), 1000);
}

TEST(HtmlPlan, RulesHaveWords) {
  EXPECT_EQ(html::rule_words("some_new_rule"), "some new rule");
  EXPECT_NE(html::rule_words("heads_divide").find("attention heads"), std::string::npos);
}

TEST(HtmlPlan, ThePictureOfASchedule) {
  std::vector<std::string> omitted;
  const Json json = html::schedule_json(pipeline_picture(2, 3), omitted);
  EXPECT_TRUE(omitted.empty());
  ASSERT_EQ(at(json, "rows").items().size(), 2U);
  // Two stages, three micro-batches, forward and backward of a second each: a second of waiting at
  // either end of each stage.
  EXPECT_DOUBLE_EQ(at(json, "end_s").as_double(), 8);
  EXPECT_DOUBLE_EQ(at(json, "idle_share").as_double(), 0.25);
  EXPECT_EQ(at(at(json, "rows").items()[0], "at").items().size(), 6U);

  const Json large = html::schedule_json(pipeline_picture(70, 200), omitted);
  EXPECT_EQ(omitted.size(), 2U);
  EXPECT_LE(at(large, "rows").items().size(), 32U);
  EXPECT_LT(large.dump(-1).size(), 200'000U);

  // Beside each other: one cell, and no time of its own.
  html::PipelinePicture both;
  both.cells = {{0, html::PictureKind::kForward, 0, 1, 0, 2},
                {0, html::PictureKind::kBackward, 0, 0, 0, 2}};
  const Json beside = html::schedule_json(both, omitted);
  EXPECT_EQ(at(at(beside, "rows").items()[0], "kind").items().at(0).as_integer(), 4);
  EXPECT_DOUBLE_EQ(at(beside, "idle_share").as_double(), 0);
}

}  // namespace
}  // namespace orrery
