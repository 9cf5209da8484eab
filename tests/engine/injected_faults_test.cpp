// Faults on purpose under mpirun: what docs/faults.md says of each. Limits of time are only there
// to end a run that hangs.
#include <gtest/gtest.h>

#include "tests/engine/faults_fixture.h"

namespace orrery::engine {
namespace {

class Injected : public Faults {
 protected:
  std::vector<std::string> with(std::vector<std::string> words, int steps = 4) const {
    auto all = engine(plan_, data_, out(), steps);
    all.insert(all.end(), words.begin(), words.end());
    return all;
  }

  // The run ends with code 6 and says these words; every part is a failed run.
  void expect_failure(const std::vector<std::string>& words, const std::vector<std::string>& said,
                      const std::vector<std::string>& options = {}) {
    Launch launch(mpirun(2, words, options), folder_);
    const auto ended = launch.wait();
    ASSERT_TRUE(ended.has_value()) << "hangs\n" << launch.out() << launch.err();
    EXPECT_EQ(*ended, 6) << launch.out() << launch.err();
    for (const std::string& word : said) {
      EXPECT_NE(launch.err().find(word), std::string::npos) << word << "\n" << launch.err();
    }
    for (const std::int32_t rank : {0, 1}) {
      const RunInfo run = part_of(rank).run();
      EXPECT_EQ(run.status, RunStatus::kFailed) << "rank " << rank;
      EXPECT_NE(run.reason, "") << "rank " << rank;
      EXPECT_EQ(run.reason.find('\n'), std::string::npos) << run.reason;
    }
  }

  TraceReader part_of(std::int32_t rank) const {
    return std::move(TraceReader::open(part_path(out(), rank))).value();
  }

  std::string dispatch() const { return "layer.0/moe/dispatch"; }
};

TEST_F(Injected, ARankThatHangsInComputeIsNamedByTheOneThatWaits) {
  expect_failure(with({"--inject", "hang:rank=1,step=1,op=layer.1/attn", "--stall-limit", "2 s"}),
                 {"rank 0: error: rank 0 op ", "step 1)", "rank 1 did not come to op layer.1/",
                  "within 2.00 s"});
  EXPECT_NE(part_of(0).run().reason.find("rank 1 did not come"), std::string::npos);
  EXPECT_EQ(part_of(0).attrs().value().at(0).name, "injected_fault");
}

TEST_F(Injected, ARankThatHangsInACollectiveIsNamedToo) {
  expect_failure(
      with({"--inject", "hang:rank=0,step=1,op=" + dispatch(), "--stall-limit", "2 s"}),
      {"rank 1: error: rank 1 op " + dispatch(), "ep/ep: rank 0 did not come to op " + dispatch()});
}

// Stopped where no rendezvous sees it: after the members have met.
TEST_F(Injected, DataThatStopMovingAreFoundOut) {
  expect_failure(with({"--stall-limit", "2 s"}), {"the data of op ", " have been moving for "},
                 {"-x", "LD_PRELOAD=" ORRERY_BINARY_DIR "/tests/libpmpi_fail.so", "-x",
                  "PMPI_FAIL_RANK=1", "-x", "PMPI_FAIL_AT=9", "-x", "PMPI_FAIL_HANGS=1"});
}

TEST_F(Injected, ALongWaitWithinTheLimitIsNone) {
  Launch launch(
      mpirun(2, with({"--inject", "slow:rank=1,step=1,seconds=1.2", "--stall-limit", "30 s"}, 3)),
      folder_);
  EXPECT_EQ(launch.wait(), 0) << launch.err();
}

TEST_F(Injected, AnotherCollectiveIsFoundOutOnBothRanks) {
  expect_failure(with({"--inject", "mismatch:rank=1,step=1,op=" + dispatch()}),
                 {"the members issued different collectives: rank 0 op " + dispatch() +
                  " (fwd, micro-batch 0), rank 1 op "});
  for (const std::int32_t rank : {0, 1}) {
    const std::string reason = part_of(rank).run().reason;
    EXPECT_TRUE(reason.find("different collectives") != std::string::npos ||
                reason.find("signal 15") != std::string::npos)
        << reason;
  }
}

TEST_F(Injected, OtherSizesAreFoundOutBeforeDataMove) {
  expect_failure(with({"--inject", "sizes:rank=1,step=1,op=" + dispatch()}),
                 {"the members expect other sizes than are sent: rank 0 op " + dispatch(),
                  "rank 1 op " + dispatch()});
}

TEST_F(Injected, MemoryThatIsNotThere) {
  expect_failure(with({"--inject", "oom:rank=1,step=1,op=layer.1/attn"}),
                 {"rank 1 op layer.1/attn (fwd, micro-batch 0, step 1): out of memory: the "
                  "machine has no 1.00 PiB left"});
}

TEST_F(Injected, AMemoryLimit) {
  // Parameters and moments fit, the first layers do not.
  expect_failure(with({"--memory-limit", "40 KiB"}),
                 {": out of memory: ", " more are beyond the limit of 40.0 KiB; live ", "parameter",
                  "hint: plan with a smaller micro-batch"});
}

TEST_F(Injected, OneStepWithoutAFiniteGradientIsSkipped) {
  // The fault lasts: three steps, of four that are allowed.
  Launch launch(mpirun(2, with({"--inject", "nan:rank=1,step=1", "--skip-limit", "4"}, 4)),
                folder_);
  EXPECT_EQ(launch.wait(), 0) << launch.err();
  EXPECT_EQ(count_of(launch.out(), "gradient norm not finite: weights left alone"), 3U);
  const auto notes = std::move(part_of(0).notes()).value();
  ASSERT_EQ(notes.size(), 3U);
  EXPECT_EQ(notes[0].name, "update_skipped");
  EXPECT_EQ(notes[2].message,
            "step 3: the gradient norm is not finite: weights were left alone (3 in a row)");
}

TEST_F(Injected, TooManyOfThemEndTheRun) {
  expect_failure(with({"--inject", "nan:rank=0,step=1", "--skip-limit", "2"}),
                 {"error: step 2: the gradient norm is not finite: weights were left alone (2 in "
                  "a row)"});
}

TEST_F(Injected, ASlowRankIsNamedByTheSkewOfItsCompute) {
  Launch launch(mpirun(2, with({"--inject", "slow:rank=1,step=0,seconds=0.3"})), folder_);
  EXPECT_EQ(launch.wait(), 0) << launch.err();
  const auto compute = [&](std::int32_t rank) {
    return std::get<std::int64_t>(
        part_of(rank)
            .query("SELECT sum(duration_ns) FROM v_op WHERE NOT communication")
            .value()
            .rows.at(0)
            .at(0));
  };
  EXPECT_GT(compute(1) - compute(0), 600000000);  // 4 x 0.3 s, less what the machine adds to rank 0
}

TEST_F(Injected, AFaultThatCannotBeIsRefused) {
  Launch launch(mpirun(2, with({"--inject", "mismatch:op=layer.0/moe/dispatc"})), folder_);
  EXPECT_EQ(launch.wait(), 2) << launch.err();
  EXPECT_NE(launch.err().find("did you mean layer.0/moe/dispatch?"), std::string::npos)
      << launch.err();
}

TEST_F(Injected, AnEmulatedLinkIsToldInTheTrace) {
  Launch launch(mpirun(2, with({"--emulate-link", "1 Gbit/s,100 us,shared,ep"}, 2)), folder_);
  EXPECT_EQ(launch.wait(), 0) << launch.err();
  const auto attrs = std::move(part_of(0).attrs()).value();
  ASSERT_EQ(attrs.size(), 1U);
  EXPECT_EQ(attrs[0].subject, "run");
  EXPECT_EQ(attrs[0].name, "emulated_link");
  EXPECT_EQ(attrs[0].value, "125 MB/s,0.1 ms,shared,ep");
}

}  // namespace
}  // namespace orrery::engine
