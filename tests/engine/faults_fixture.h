// What tests of failing runs share: a plan of a tiny model, the engine's words, and a run whose end
// is looked at.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/program/lower.h"
#include "tests/engine/launch.h"
#include "tests/support/plans.h"
#include "tracer/recorder.h"

namespace orrery::engine {

using std::chrono::seconds;

inline Plan bytes_plan(std::int64_t world) {
  Plan plan = small_moe_plan(world, world, 1);
  plan.model.vocab = 256;
  seal(plan);
  return plan;
}

inline std::string saved(const Folder& folder, const std::string& name, const Plan& plan) {
  return folder.write(name, to_json(plan).dump());
}

inline std::vector<std::string> engine(const std::string& plan, const std::string& data,
                                       const std::string& out, int steps = 3) {
  return {ORRERY_BINARY_DIR "/orrery-engine",
          "run",
          plan,
          "--data",
          data,
          "--out",
          out,
          "--steps",
          std::to_string(steps)};
}

inline std::size_t count_of(const std::string& text, const std::string& word) {
  std::size_t count = 0;
  for (auto at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++count;
  return count;
}

class Faults : public testing::Test {
 protected:
  void SetUp() override { plan_ = saved(folder_, "plan.json", bytes_plan(2)); }
  void TearDown() override {
    EXPECT_TRUE(poll(seconds(15), [&] { return processes_with(folder_.path()).empty(); }))
        << "a process is left";
  }

  // Runs to the end; the code and, once, the message.
  void expect_end(const std::vector<std::string>& words, int code, const std::string& message) {
    Launch launch(words, folder_);
    const auto ended = launch.wait();
    ASSERT_TRUE(ended.has_value()) << "hangs\n" << launch.out() << launch.err();
    EXPECT_EQ(*ended, code) << launch.out() << launch.err();
    EXPECT_EQ(count_of(launch.err(), message), 1U) << launch.err();
  }

  std::string out() const { return folder_.file("run.db"); }

  // Every rank's part can be read and is of this program; returns the steps of the shortest.
  std::size_t readable_parts() {
    std::size_t least = SIZE_MAX;
    const std::uint64_t hash = lower(bytes_plan(2)).hash();
    for (const std::int32_t rank : {0, 1}) {
      auto part = TraceReader::open(part_path(out(), rank));
      EXPECT_TRUE(part.ok()) << (part.ok() ? "" : part.error().text());
      if (!part.ok()) continue;
      TraceReader reader = std::move(part).value();
      EXPECT_EQ(reader.run().program_hash, hash);
      EXPECT_NE(reader.run().status, RunStatus::kOk);
      const auto steps = reader.steps();
      EXPECT_TRUE(steps.ok() && reader.spans().ok());
      if (steps.ok()) least = std::min(least, steps.value().size());
    }
    return least;
  }

  // A long run that has ended its second step.
  std::unique_ptr<Launch> started() {
    auto launch =
        std::make_unique<Launch>(mpirun(2, engine(plan_, data_, out(), 1000000)), folder_);
    poll(seconds(60), [&] {
      return launch->out().find("step 3/") != std::string::npos ||
             launch->wait(seconds(0)).has_value();
    });
    EXPECT_FALSE(launch->wait(seconds(0)).has_value()) << launch->err();
    return launch;
  }

  Folder folder_;
  std::string plan_;
  const std::string data_ = folder_.write("text", std::string(5000, 'a') + std::string(999, 'b'));
};

}  // namespace orrery::engine
