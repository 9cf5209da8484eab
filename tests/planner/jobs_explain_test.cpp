// What is said of a single job: changes are legal and do what is said, fixes fix, nothing that is
// listed beats the planner's best.
#include "planner/jobs/explain.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "core/job_json.h"
#include "tests/support/random_jobs.h"

namespace orrery::planner::jobs {
namespace {

Job job_of(const std::string& text) {
  const Result<Job> job = parse_job(text, "job.json");
  EXPECT_TRUE(job.ok()) << job.error().text();
  return job.value();
}

// Does not fit: ZeRO-2 of 30 B on devices of 80 GB.
Job unfit() {
  return job_of(R"({"model": "qwen3-30b-a3b", "cluster": "h100x16", "stack": "megatron-core-2025",
    "job": {"sharding": "gradients", "sequence_tokens": 4096, "global_sequences": 64}})");
}

// Fits, and is slow: tensor parallelism over both nodes.
Job slow() {
  return job_of(R"({"model": "llama-3-8b", "cluster": "h100x16", "stack": "megatron-core-2025",
    "job": {"layout": {"tp": 8}, "sequence_tokens": 4096, "global_sequences": 64}})");
}

Diagnosis diagnosis_of(const Job& job) {
  Question question;
  question.job = job;
  question.threads = 1;
  return diagnose(question);
}

TEST(JobChanges, AreLegalAndChangeSomething) {
  const std::vector<Model> models = published_models();
  std::size_t tried = 0;
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    const Job job = random_job(models, seed);
    for (const Change& change : changes_of(job)) {
      Job changed = job;
      if (!change.apply(changed)) continue;
      ++tried;
      EXPECT_TRUE(violations(changed).empty())
          << describe(job) << ": " << change.words << ": " << violations(changed)[0].reason;
      const bool same = axes_json(changed) == axes_json(job) && changed.stack == job.stack &&
                        changed.cluster == job.cluster;
      EXPECT_FALSE(same) << describe(job) << ": " << change.words;
      const bool work = changed.global_sequences * changed.sequence_tokens ==
                            job.global_sequences * job.sequence_tokens &&
                        changed.cluster == job.cluster;
      EXPECT_TRUE(work || change.kind >= ChangeKind::kWorkload) << change.words;
    }
  }
  EXPECT_GT(tried, 600U);
}

TEST(JobChanges, DifferencesAreNamed) {
  const Job a = slow();
  Job b = a;
  EXPECT_EQ(difference_words(a, b), "");
  b.layout.tp = 2;
  b.recompute.full = true;
  EXPECT_EQ(difference_words(a, b), "tp 2 instead of 8, recompute full instead of none");
  EXPECT_EQ(difference_words(a, b, false), "tp 2, recompute full");
}

TEST(JobExplain, FixesFixAndTheSmallestComeFirst) {
  const Diagnosis d = diagnosis_of(unfit());
  EXPECT_LT(d.own.predicted.probability_fits, 0.5);
  EXPECT_NE(d.binding.find("memory"), std::string::npos) << d.binding;
  ASSERT_FALSE(d.fixes.empty());
  EXPECT_TRUE(d.helps.empty());
  EXPECT_TRUE(d.faster.empty());
  std::set<std::string> axes;
  for (const Trial& t : d.fixes) {
    ASSERT_EQ(t.changes.size(), 1U);
    Job changed = unfit();
    ASSERT_TRUE(t.changes.front().apply(changed));
    EXPECT_GE(simulator::predict(changed).probability_fits, 0.99) << t.words();
    EXPECT_TRUE(axes.insert(t.changes.front().axis).second) << "one of each axis";
  }
  for (std::size_t i = 1; i < d.fixes.size(); ++i) {
    EXPECT_LE(d.fixes[i - 1].changes.front().kind, d.fixes[i].changes.front().kind);
  }
  // Sharded parameters are the change that everybody knows.
  EXPECT_TRUE(axes.count("sharding"));
  EXPECT_NEAR(d.memory.total(), d.own.predicted.allocated_bytes + d.own.job.stack.reserve_bytes,
              1e6);
}

TEST(JobExplain, NoChangeOfTheLayoutBeatsThePlanner) {
  for (const Job& job : {slow(), unfit()}) {
    const Diagnosis d = diagnosis_of(job);
    ASSERT_TRUE(d.best);
    const double best = d.best->predicted.step.value();
    for (const std::vector<Trial>* trials : {&d.fixes, &d.faster, &d.faster_pairs}) {
      for (const Trial& t : *trials) {
        if (t.after.predicted.probability_fits < 0.99) continue;
        bool layout = true;
        for (const Change& c : t.changes) {
          layout = layout && c.kind <= ChangeKind::kAxis && c.axis != "stage_layers";
        }
        if (layout) {
          EXPECT_GE(t.after.predicted.step.value(), best * (1 - 1e-9)) << t.words();
        }
      }
    }
    EXPECT_FALSE(d.best_words.empty());
  }
}

TEST(JobExplain, ASlowJobIsToldWhatHelps) {
  const Diagnosis d = diagnosis_of(slow());
  EXPECT_TRUE(d.sure);
  EXPECT_TRUE(d.fixes.empty());
  ASSERT_FALSE(d.faster.empty());
  for (std::size_t i = 0; i < d.faster.size(); ++i) {
    EXPECT_GT(d.faster[i].speed, 1);
    if (i > 0) {
      EXPECT_LE(d.faster[i].speed, d.faster[i - 1].speed);
    }
  }
  // Less tensor parallelism, among others.
  bool tp = false;
  for (const Trial& t : d.faster) tp = tp || t.changes.front().axis == "tp";
  EXPECT_TRUE(tp);
}

TEST(JobExplain, CircumstancesMoveTheRightWay) {
  const Diagnosis d = diagnosis_of(slow());
  ASSERT_FALSE(d.what_ifs.empty());
  const double now = d.own.predicted.step.value();
  std::size_t seen = 0;
  for (const WhatIf& w : d.what_ifs) {
    const double step = w.own.predicted.step.value();
    EXPECT_TRUE(w.searched);
    if (w.words == "links between nodes twice as fast") {
      EXPECT_LE(step, now * (1 + 1e-9));
      ++seen;
    } else if (w.words == "links between nodes half as fast") {
      EXPECT_GE(step, now * (1 - 1e-9));
      ++seen;
    } else if (w.words == "memory 25 % smaller") {
      EXPECT_LT(w.own.predicted.usable_bytes, d.own.predicted.usable_bytes);
      if (w.best) {
        EXPECT_GE(w.best->predicted.step.value(), d.best->predicted.step.value());
      }
      ++seen;
    }
  }
  EXPECT_EQ(seen, 3U);
}

// Adapters are of a kind that the planner does not search: no best, but changes all the same.
TEST(JobExplain, AdaptersHaveChangesAndNoBest) {
  Job job = unfit();
  job.trains_adapters = true;
  job.sharding = Sharding::kParameters;
  const Diagnosis d = diagnosis_of(job);
  EXPECT_FALSE(d.best);
  for (const WhatIf& w : d.what_ifs) EXPECT_FALSE(w.searched);
}

}  // namespace
}  // namespace orrery::planner::jobs
