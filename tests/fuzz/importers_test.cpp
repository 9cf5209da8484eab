// The same fuzzing of what `calibrate --from` reads: an importer answers with measurements that a
// fit can stand on, or with an error that has a place; whatever it accepts gives a cluster file
// that reads back.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <vector>

#include "core/cluster.h"
#include "simulator/calibration/fit_samples.h"
#include "tests/fuzz/mutate_text.h"
#include "tests/simulator/tool_outputs.h"

namespace orrery::simulator {
namespace {

constexpr int kMutations = 20000;

using Import = Result<Measurements> (*)(const std::string&, const std::string&);

void expect_sound(const Measurements& m, const std::string& text) {
  for (const Sample& s : m.samples) {
    EXPECT_TRUE(std::isfinite(s.seconds) && s.seconds > 0) << text;
    EXPECT_TRUE(std::isfinite(s.bytes) && s.bytes >= 0) << text;
    EXPECT_TRUE(s.ranks >= 1 && s.nodes >= 1 && s.ranks % s.nodes == 0) << text;
  }
  for (const NodeTopology& node : m.nodes) {
    for (const auto& row : node.links) EXPECT_EQ(row.size(), node.links.size()) << text;
  }
  if (m.samples.empty()) return;
  const Result<Measurements> again = parse_samples(to_json(m).dump(), "again");
  ASSERT_TRUE(again.ok()) << again.error().text() << text;
  EXPECT_EQ(again.value().samples, m.samples) << text;
}

void expect_fits(const Cluster& base, const Measurements& m, const std::string& text) {
  const Result<SampleFit> fit = fit_samples(base, {m});
  if (!fit.ok()) {
    EXPECT_FALSE(fit.error().problems.empty());
    return;
  }
  const std::string written = to_json(fit.value().profile).dump();
  const Result<Cluster> read = parse_cluster(written, "out", 0);
  ASSERT_TRUE(read.ok()) << read.error().text() << "\nfrom\n" << text;
  for (const Sample& s : m.samples) {
    EXPECT_TRUE(std::isfinite(sample_time(read.value(), s))) << text;
  }
}

TEST(Fuzz, ImportersSurviveMutatedOutputs) {
  using namespace tool_outputs;
  const std::array<Import, 5> importers = {import_measurements, import_nccl_tests,
                                           import_nvbandwidth, import_topology, parse_samples};
  const std::array<std::string, 6> seeds = {kAllGather,       kExchangeOfTwoHosts, kNvbandwidth,
                                            kNvbandwidthJson, kTopology,           kSamples};
  const Cluster base = load_cluster("h100x16").value();
  std::array<int, 5> accepted{};
  for (int i = 0; i < kMutations; ++i) {
    std::mt19937_64 rng(static_cast<std::uint64_t>(i));
    const std::string text = mutate(seeds[rng() % seeds.size()], rng);
    for (std::size_t k = 0; k < importers.size(); ++k) {
      const Result<Measurements> result = importers[k](text, "f.out");
      if (result.ok()) {
        ++accepted[k];
        expect_sound(result.value(), text);
        if (k == 0) expect_fits(base, result.value(), text);
        continue;
      }
      EXPECT_EQ(result.error().code, ErrorCode::kInvalid);
      EXPECT_FALSE(result.error().problems.empty());
      for (const Problem& p : result.error().problems) {
        EXPECT_EQ(p.where.substr(0, 5), "f.out") << p.message;
      }
    }
    if (HasFailure()) FAIL() << "seed " << i;
  }
  for (std::size_t k = 0; k < accepted.size(); ++k) {
    // Some mutations are harmless and some are not: both paths are walked.
    EXPECT_GT(accepted[k], 200) << k;
    EXPECT_LT(accepted[k], kMutations) << k;
  }
}

}  // namespace
}  // namespace orrery::simulator
