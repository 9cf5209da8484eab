// Runs that cannot start or that end badly: the engine under mpirun, its exit code and words, no
// rank left behind, and parts that tell how far the run came.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <filesystem>

#include "tests/engine/faults_fixture.h"
#include "tracer/merge.h"

namespace orrery::engine {
namespace {

TEST_F(Faults, APlanForAnotherWorld) {
  const std::string four = saved(folder_, "four.json", bytes_plan(4));
  expect_end(mpirun(2, engine(four, data_, out())), 3,
             "four.json: the plan is for 4 ranks, and 2 were started");
  EXPECT_FALSE(std::filesystem::exists(parts_directory(out())));
}

TEST_F(Faults, ATruncatedPlan) {
  const std::string text = contents(plan_);
  const std::string torn = folder_.write("torn.json", text.substr(0, text.size() / 2));
  expect_end(mpirun(2, engine(torn, data_, out())), 3, "error: " + torn);
}

TEST_F(Faults, AModelWithTooFewTokens) {
  const std::string few = saved(folder_, "few.json", small_moe_plan(2, 2, 1));
  expect_end(mpirun(2, engine(few, data_, out())), 3, "need a vocabulary of 256");
}

TEST_F(Faults, PlansThatDiffer) {
  Plan other = bytes_plan(2);
  other.chunks.loss_tokens = 4;
  seal(other);
  std::vector<std::string> words = mpirun(1, engine(plan_, data_, out()));
  words.push_back(":");
  const auto second = mpirun(1, engine(saved(folder_, "other.json", other), data_, out()));
  words.insert(words.end(), std::find(second.begin(), second.end(), "-np"), second.end());
  expect_end(words, 3, "the ranks were given different plans");
}

TEST_F(Faults, MissingData) {
  const std::string none = folder_.file("none");
  expect_end(mpirun(2, engine(plan_, none, out())), 5, none + ": no text files there");
}

TEST_F(Faults, PlanOrDataMissingOnOneRank) {
  const std::string none = folder_.file("none");
  for (const auto& second : {engine(plan_, none, out()), engine(none, data_, out())}) {
    std::vector<std::string> words = mpirun(1, engine(plan_, data_, out()));
    words.insert(words.end(), {":", "-np", "1"});
    words.insert(words.end(), second.begin(), second.end());
    expect_end(words, 5, "error: rank 1: " + none + ": ");
  }
}

TEST_F(Faults, DataShorterThanARow) {
  const std::string few = folder_.write("few", "abc");
  expect_end(mpirun(2, engine(plan_, few, out())), 3, "3 bytes are less than one row of 8");
}

TEST_F(Faults, AnUnknownOption) {
  auto words = engine(plan_, data_, out());
  words.insert(words.end(), {"--stepz", "3"});
  Launch launch(mpirun(2, words), folder_);
  EXPECT_EQ(launch.wait(), 2) << launch.err();
  EXPECT_NE(launch.err().find("unknown option --stepz"), std::string::npos) << launch.err();
}

TEST_F(Faults, MoreStepsThanCanBeCounted) {
  auto words = engine(plan_, data_, out());
  words.back() = "4294967297";
  Launch launch(mpirun(2, words), folder_);
  EXPECT_EQ(launch.wait(), 2) << launch.err();
  EXPECT_NE(launch.err().find("--steps takes an integer from 0 to 2147483647"), std::string::npos);
}

TEST_F(Faults, AFolderThatIsNotThere) {
  const std::string nowhere = folder_.file("none/run.db");
  expect_end(mpirun(2, engine(plan_, data_, nowhere)), 5, "No such file or directory");
  EXPECT_FALSE(std::filesystem::exists(folder_.file("none")));
}

TEST_F(Faults, OneRankHasNowhereToWrite) {
  std::vector<std::string> words = mpirun(1, engine(plan_, data_, out()));
  words.insert(words.end(), {":", "-np", "1"});
  const auto second = engine(plan_, data_, folder_.file("none/run.db"));
  words.insert(words.end(), second.begin(), second.end());
  expect_end(words, 5, "error: rank 1: ");
  auto part = TraceReader::open(part_path(out(), 0));
  ASSERT_TRUE(part.ok()) << part.error().text();
  EXPECT_EQ(part.value().run().status, RunStatus::kFailed);
}

// The limit stands for the disk; shared memory of the ranks would fall under it too, so that they
// talk through sockets here.
TEST_F(Faults, AFullDisk) {
  std::vector<std::string> words = {"/bin/sh", "-c", "ulimit -f 400; exec \"$0\" \"$@\""};
  const auto program = engine(plan_, data_, out(), 60);
  words.insert(words.end(), program.begin(), program.end());
  Launch launch(mpirun(2, words, {"--mca", "btl", "self,tcp", "--mca", "pml", "ob1"}), folder_);
  EXPECT_EQ(launch.wait(), 5) << launch.out() << launch.err();
  EXPECT_NE(launch.err().find("error: "), std::string::npos);
  EXPECT_NE(launch.out().find("step 60/60"), std::string::npos) << "training itself needs no disk";
  EXPECT_GT(readable_parts(), 0U);
}

TEST_F(Faults, AKilledRank) {
  auto launch = started();
  const auto victim = process_of_rank(folder_.path(), 1);
  ASSERT_TRUE(victim.has_value());
  ::kill(*victim, SIGKILL);
  ASSERT_TRUE(launch->wait(seconds(15)).has_value()) << "mpirun goes on";
  EXPECT_NE(launch->wait(), 0);
  EXPECT_TRUE(processes_with(folder_.path()).empty());
  EXPECT_GE(readable_parts(), 1U);
  // The part of the dead rank names the op that it ended last.
  TraceReader part = std::move(TraceReader::open(part_path(out(), 1))).value();
  const auto spans = std::move(part.spans()).value();
  const auto ops = std::move(part.ops()).value();
  ASSERT_FALSE(spans.empty());
  const auto last = std::max_element(
      spans.begin(), spans.end(), [](const auto& a, const auto& b) { return a.end_ns < b.end_ns; });
  const auto named =
      std::find_if(ops.begin(), ops.end(), [&](const OpRow& row) { return row.op == last->op; });
  ASSERT_NE(named, ops.end());
  EXPECT_FALSE(named->path.empty());
  // The other one was ended by the launcher, and says so.
  const TraceReader other = std::move(TraceReader::open(part_path(out(), 0))).value();
  EXPECT_EQ(other.run().status, RunStatus::kFailed);
  EXPECT_NE(other.run().reason.find("signal 15"), std::string::npos) << other.run().reason;
  // And the run as a whole is a failed one.
  MergeOptions merge;
  merge.out = out();
  merge.world = 2;
  const auto merged = merge_parts(merge);
  ASSERT_TRUE(merged.ok()) << merged.error().text();
  EXPECT_EQ(merged.value().status, RunStatus::kFailed);
  EXPECT_TRUE(merged.value().missing.empty());
}

// The others wait for what was never sent; the failed rank ends them and says where it stood.
TEST_F(Faults, ACollectiveThatFailsOnOneRank) {
  for (const char* call : {"1", "40"}) {
    expect_end(mpirun(2, engine(plan_, data_, out()),
                      {"-x", "LD_PRELOAD=" ORRERY_BINARY_DIR "/tests/libpmpi_fail.so", "-x",
                       "PMPI_FAIL_RANK=1", "-x", std::string("PMPI_FAIL_AT=") + call}),
               6, "rank 1: error: rank 1 op ");
    auto part = TraceReader::open(part_path(out(), 1));
    ASSERT_TRUE(part.ok()) << part.error().text();
    EXPECT_EQ(part.value().run().status, RunStatus::kFailed);
    EXPECT_NE(part.value().run().reason.find("rank 1 op "), std::string::npos);
    readable_parts();
  }
}

class Signals : public Faults, public testing::WithParamInterface<int> {};

TEST_P(Signals, EndEverything) {
  auto launch = started();
  ::kill(launch->pid(), GetParam());
  ASSERT_TRUE(launch->wait(seconds(15)).has_value()) << "mpirun goes on";
  EXPECT_NE(launch->wait(), 0);
  EXPECT_TRUE(poll(seconds(15), [&] { return processes_with(folder_.path()).empty(); }));
  EXPECT_GE(readable_parts(), 1U);
}

INSTANTIATE_TEST_SUITE_P(OfTheTerminal, Signals, testing::Values(SIGINT, SIGTERM));

}  // namespace
}  // namespace orrery::engine
