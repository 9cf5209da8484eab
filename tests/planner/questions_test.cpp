// Questions over the interface of both planners: against trying all with a searcher made up here,
// and about jobs over all axes.
#include <gtest/gtest.h>

#include <cmath>

#include "planner/plans/decide.h"
#include "planner/questions/engine_searcher.h"
#include "planner/questions/job_searcher.h"
#include "planner/questions/size.h"
#include "planner/questions/versus.h"
#include "tests/support/plans.h"

namespace orrery::planner {
namespace {

constexpr double kInfinity = HUGE_VAL;

// Steps by number of devices and rows that fit, as the test says.
class MadeUp : public Searcher {
 public:
  std::vector<double> steps;  // by devices; 0: none fits, below: no rule allows any
  std::int64_t longest = 0;   // rows that fit
  mutable int asked = 0;

  Result<Answer> decided(const Setting& s) const override { return quick(s, Seconds(kInfinity)); }
  Result<Answer> fastest(const Setting& s) const override { return decided(s); }
  Answer quick(const Setting& s, Seconds) const override {
    ++asked;
    Answer answer;
    if (longest > 0) {
      answer.fits = s.workload.sequence_tokens <= longest;
      return answer;
    }
    const double step = steps[static_cast<std::size_t>(s.cluster.devices)];
    answer.legal = step >= 0;
    answer.fits = step > 0;
    answer.step = answer.p10 = answer.p90 = Seconds(step);
    return answer;
  }
  Result<Answer> exactly(const Setting& s, const Job&) const override { return decided(s); }
  std::optional<Nearest> advice(const Setting&) const override { return std::nullopt; }
  bool suits(const Setting& s) const override {
    return static_cast<std::size_t>(s.cluster.devices) < steps.size() && s.cluster.devices % 3 != 1;
  }
  double least_device_seconds_a_token(const Setting&) const override { return 1e-9; }
  double checkpoint_bytes_a_parameter(const Setting&) const override { return 12; }
  Side side(const Setting&, const Answer& answer) const override { return {answer, {}, {}}; }
  std::string cause(const std::string&, const Answer&, const Answer&) const override { return ""; }
  std::vector<Problem> broken(const Setting&) const override { return {}; }
  std::vector<PinChange> changes(const Setting&, std::size_t) const override { return {}; }
  std::size_t most_changes() const override { return 0; }
};

Setting small_setting() {
  return {small_dense_model(2), small_cluster(1), small_workload(24), {}, {}};
}

Result<Cluster> any_cluster(std::int64_t devices) {
  Cluster cluster = small_cluster(1);
  cluster.devices = devices;
  return cluster;
}

TEST(Questions, TheFewestDevicesOfAnySteps) {
  Draw draw(11);
  const Setting setting = small_setting();
  const std::int64_t tokens = 1000 * setting.workload.global_tokens();
  Reliability rough;
  rough.device_mtbf = Seconds(1e7);
  int met = 0, unmet = 0;
  for (int run = 0; run < 300; ++run) {
    MadeUp searcher;
    searcher.steps.push_back(-1);
    for (int n = 1; n <= 32; ++n) {
      // Neither falling nor everywhere possible.
      searcher.steps.push_back(draw.coin() ? 0.01 * static_cast<double>(draw.between(-20, 200))
                                           : 0);
    }
    const Seconds limit(static_cast<double>(draw.between(50, 1500)));
    std::int64_t expected = 0;
    for (std::int64_t n = 32; n >= 1; --n) {
      Setting at = setting;
      at.cluster.devices = n;
      const Answer answer = searcher.quick(at, limit);
      if (!searcher.suits(at) || !answer) continue;
      if (run_of(facts_of(searcher, at, answer), tokens, rough).wall <= limit) expected = n;
    }
    const Sized sized = size_for(searcher, setting, any_cluster, tokens, limit, rough);
    ASSERT_EQ(sized.met, expected > 0) << run;
    (sized.met ? met : unmet) += 1;
    if (sized.met) {
      EXPECT_EQ(sized.tried.back().devices, expected) << run;
    }
    // More time never takes more devices.
    const Sized longer = size_for(searcher, setting, any_cluster, tokens, limit * 1.5, rough);
    if (sized.met) {
      ASSERT_TRUE(longer.met);
      EXPECT_LE(longer.tried.back().devices, sized.tried.back().devices);
    }
  }
  EXPECT_GT(met, 30);
  EXPECT_GT(unmet, 10);
}

TEST(Questions, TheLongestRowIsWithinAnEighth) {
  for (const std::int64_t longest : {1, 7, 500, 512, 513, 4096, 5000, 100'000, 1 << 27}) {
    MadeUp searcher;
    searcher.longest = longest;
    Setting setting = small_setting();
    setting.workload = with_sequence(setting.workload, 4096);
    std::int64_t found = 0;
    for (const SequenceTried& t : longest_sequence(searcher, setting)) {
      if (t.answer) found = std::max(found, t.tokens);
    }
    EXPECT_LE(found, longest);
    if (longest >= 8 && longest < (1 << 26)) {
      EXPECT_GT(found, longest * 7 / 8) << longest;
    }
    EXPECT_LE(searcher.asked, 40);
  }
}

jobs::Request job_request(const std::string& model, const std::string& cluster) {
  jobs::Request request;
  request.model = load_model(model).value();
  request.cluster = load_cluster(cluster).value();
  request.workload = load_workload("pretrain-4k").value();
  request.stack = load_stack("megatron-bridge-2026").value();
  request.explains = false;
  return request;
}

Setting setting_of(const jobs::Request& r) {
  return {r.model, r.cluster, r.workload, r.stack, r.pins};
}

Answer best_of(const JobSearcher& searcher, const Setting& setting) {
  const Answer best = searcher.fastest(setting).value();
  CHECK(best.fits, "a test of a job that does not fit");
  return best;
}

TEST(JobQuestions, TheFewestDevicesAreThoseOfTryingAll) {
  const jobs::Request request = job_request("llama-3-8b", "h100x1");
  const JobSearcher searcher(request);
  const std::int64_t tokens = 100'000'000'000;
  const auto cluster_of = [](std::int64_t n) { return load_cluster("h100x" + std::to_string(n)); };
  std::vector<std::pair<std::int64_t, double>> walls;
  for (std::int64_t n = 1; n <= kAllSizes; ++n) {
    const Result<Cluster> cluster = cluster_of(n);
    if (!cluster.ok()) continue;
    jobs::Request one = request;
    one.cluster = cluster.value();
    one.simplest = false;
    const Result<jobs::JobPlan> found = jobs::plan(one);
    if (!found.ok() || !found.value().best) continue;
    const Answer answer = answer_of(*found.value().best, true);
    walls.emplace_back(
        n, run_of(facts_of(searcher, setting_of(one), answer), tokens, {}).wall.value());
  }
  ASSERT_GE(walls.size(), 8U);
  for (const double share : {1.01, 0.8, 0.5, 0.3, 0.2, 0.1}) {
    const double limit = walls.front().second * share;
    std::int64_t expected = 0;
    for (const auto& [n, wall] : walls) {
      if (expected == 0 && wall <= limit) expected = n;
    }
    ASSERT_GT(expected, 0);
    const Sized sized =
        size_for(searcher, setting_of(request), cluster_of, tokens, Seconds(limit), {});
    ASSERT_TRUE(sized.met) << share;
    EXPECT_EQ(sized.tried.back().devices, expected) << share;
    EXPECT_LE(sized.least, expected);
  }
}

// Both planners: no answer beats the peak, and a checkpoint holds three fp32 values a parameter.
TEST(JobQuestions, NoAnswerIsFasterThanThePeak) {
  for (const char* model : {"llama-3-8b", "qwen3-30b-a3b"}) {
    const jobs::Request request = job_request(model, "h100x16");
    const JobSearcher searcher(request);
    const Setting setting = setting_of(request);
    const Answer best = best_of(searcher, setting);
    const auto tokens = static_cast<double>(setting.workload.global_tokens());
    EXPECT_GT(best.step.value() * 16 / tokens, searcher.least_device_seconds_a_token(setting));
    EXPECT_NEAR(best.mfu * best.step.value() * 16 / tokens,
                searcher.least_device_seconds_a_token(setting), 1e-12);
    EXPECT_NEAR(best.tokens_per_s * best.step.value(), tokens, 1e-3);
    const EngineSearcher engine({}, {});
    for (const Searcher* s :
         {static_cast<const Searcher*>(&searcher), static_cast<const Searcher*>(&engine)}) {
      EXPECT_EQ(facts_of(*s, setting, best).checkpoint_bytes,
                12 * static_cast<double>(parameter_count(setting.model)));
    }
    // The same peak and the same tokens, whoever is asked.
    EXPECT_NEAR(engine.least_device_seconds_a_token(setting) /
                    searcher.least_device_seconds_a_token(setting),
                1, 1e-9);
  }
}

TEST(JobQuestions, TheBestAgainstItselfIsTheSame) {
  const jobs::Request request = job_request("qwen3-30b-a3b", "h100x32");
  const JobSearcher searcher(request);
  const Setting setting = setting_of(request);
  const Answer best = best_of(searcher, setting);
  const Job& job = job_of(best).job;
  const Comparison c = versus(searcher, setting, best, {pins_of(job), job}).value();
  ASSERT_TRUE(c.own && c.fits);
  EXPECT_EQ(c.reason, "the same time");
  double seconds = 0;
  for (const Term& term : c.own->terms) seconds += term.time.value();
  EXPECT_NEAR(seconds, c.own->answer.step.value(), 1e-9 * seconds);
  std::int64_t bytes = 0;
  for (const MemoryRow& row : c.own->memory) bytes += row.bytes.value();
  EXPECT_NEAR(static_cast<double>(bytes), static_cast<double>(best.peak.value()), 100);
  // Its pins leave no faster one open.
  const Comparison again = versus(searcher, setting, best, {pins_of(job), {}}).value();
  ASSERT_TRUE(again.own && again.fits);
  EXPECT_EQ(again.own->answer.step, best.step);
}

TEST(JobQuestions, WhatIsPinnedHoldsAndTheRestIsSearched) {
  jobs::Request request = job_request("llama-3-8b", "h100x16");
  request.pins = {{"sharding", "optimizer"}, {"tp", "1"}};
  const JobSearcher searcher(request);
  const Setting setting = setting_of(request);
  const Answer best = best_of(searcher, setting);
  const Comparison c = versus(searcher, setting, best, {{{"tp", "4"}}, {}}).value();
  ASSERT_TRUE(c.own && c.fits);
  EXPECT_EQ(job_of(c.own->answer).job.layout.tp, 4);
  EXPECT_EQ(job_of(c.own->answer).job.sharding, Sharding::kOptimizer);
  EXPECT_GT(c.own->answer.step, best.step);
  EXPECT_NE(c.reason.find("more tensor (tp 4 against 1"), std::string::npos) << c.reason;
}

TEST(JobQuestions, ABrokenRuleIsNamedWithItsNumbers) {
  const jobs::Request request = job_request("llama-3-8b", "h100x16");
  const JobSearcher searcher(request);
  const Setting setting = setting_of(request);
  const Answer best = best_of(searcher, setting);
  const Comparison c = versus(searcher, setting, best, {{{"tp", "3"}}, {}}).value();
  EXPECT_FALSE(c.own);
  EXPECT_FALSE(c.fits);
  bool heads = false;
  for (const Problem& p : c.broken) {
    heads = heads || (p.where == "heads_divide" && p.message.find("32") != std::string::npos);
  }
  EXPECT_TRUE(heads);
  ASSERT_TRUE(c.nearest);
  EXPECT_TRUE(c.nearest->change == "tp=2 instead of 3" || c.nearest->change == "tp=4 instead of 3")
      << c.nearest->change;
  // Of a rule that other axes could keep nothing is said: 16 data ranks would take 2048 sequences.
  const Comparison both =
      versus(searcher, setting, best, {{{"micro_batch", "128"}, {"tp", "3"}}, {}}).value();
  for (const Problem& p : both.broken) EXPECT_NE(p.where, "batch") << p.message;
  // A job of another cluster, on this one.
  Job job = job_of(best).job;
  job.layout.dp *= 2;
  const Comparison other = versus(searcher, setting, best, {pins_of(job), job}).value();
  ASSERT_FALSE(other.broken.empty());
  EXPECT_EQ(other.broken.front().where, "world");
  // What cannot be read is a wrong call.
  const auto wrong = versus(searcher, setting, best, {{{"tpp", "3"}}, {}});
  ASSERT_FALSE(wrong.ok());
  EXPECT_EQ(wrong.error().code, ErrorCode::kUsage);
}

TEST(JobQuestions, AShortageNamesTheClassAndTheNearestThatFits) {
  const jobs::Request request = job_request("llama-3-8b", "h100x16");
  const JobSearcher searcher(request);
  const Setting setting = setting_of(request);
  const Answer best = best_of(searcher, setting);
  Job job = job_of(best).job;
  job.sharding = Sharding::kNone;
  for (const OwnLayout& own :
       {OwnLayout{pins_of(job), job},
        OwnLayout{{{"sharding", "none"}, {"tp", "1"}, {"pp", "1"}, {"cp", "1"}}, {}}}) {
    const Comparison c = versus(searcher, setting, best, own).value();
    ASSERT_TRUE(c.own);
    EXPECT_FALSE(c.fits);
    EXPECT_NE(c.reason.find("most of it is optimizer states"), std::string::npos) << c.reason;
    ASSERT_TRUE(c.nearest);
    EXPECT_TRUE(c.nearest->answer.fits);
    // Of what the devices share, before the devices' groups.
    EXPECT_TRUE(c.nearest->change == "sharding=optimizer instead of none" ||
                c.nearest->change == "sharding=gradients instead of none")
        << c.nearest->change;
  }
}

TEST(JobQuestions, ChangesOfPinsAreOtherValues) {
  jobs::Request request = job_request("qwen3-30b-a3b", "h100x64");
  const JobSearcher searcher(request);
  Setting setting = setting_of(request);
  setting.pins = {{"ep", "8"}, {"recompute", "full"}, {"tp", "2"}};
  std::vector<PinChange> changes = searcher.changes(setting, 2);
  std::sort(changes.begin(), changes.end());
  bool four = false, sixteen = false, none = false;
  for (const PinChange& change : changes) {
    ASSERT_LT(change.pin, 2U);  // the third is not the user's
    EXPECT_NE(change.value, setting.pins[change.pin].second);
    EXPECT_GT(change.far, 0);
    four = four || (change.pin == 0 && change.value == "4");
    sixteen = sixteen || (change.pin == 0 && change.value == "16");
    none = none || (change.pin == 1 && change.value == "none");
  }
  EXPECT_TRUE(four && sixteen && none);
  EXPECT_LE(changes.front().far, changes.back().far);
}

}  // namespace
}  // namespace orrery::planner
