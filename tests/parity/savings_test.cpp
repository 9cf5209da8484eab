// What each mechanism saves: counted peaks of a run without it and with it, against the simulated
// ones, on models whose activations are megabytes; and their peaks by class, with no slack.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <map>

#include "core/program/lower.h"
#include "core/program/verify.h"
#include "simulator/simulator.h"
#include "tests/parity/cases.h"
#include "tests/parity/checks.h"
#include "tests/parity/harness.h"

namespace orrery::parity {
namespace {

constexpr std::int64_t kTokens = 512, kLayers = 6;

Model wide_dense() {
  Model model = reference::tiny_dense();
  model.vocab = 512;
  model.hidden = 128;
  model.layers = kLayers;
  model.head_dim = 32;
  model.ffn = 384;
  model.max_positions = kTokens;
  model.moe_layer.assign(kLayers, false);
  return model;
}

Model wide_moe() {
  Model model = wide_dense();
  const Model moe = reference::tiny_moe();
  model.name = "wide-moe";
  model.model_type = moe.model_type;
  model.experts = 8;
  model.top_k = 2;
  model.moe_ffn = 128;
  model.norm_topk = true;
  model.balance_coefficient = 0.01;
  model.moe_layer.assign(kLayers, true);
  return model;
}

// Few weights for its rows: what is swapped outweighs the gradients that grow meanwhile.
Model narrow(Model model) {
  model.hidden = 64;
  model.head_dim = 16;
  model.ffn = 64;
  if (model.is_moe()) model.moe_ffn = 32;
  return model;
}

struct Setting {
  Layout layout;
  Chunks chunks;
  MemoryPolicy policy;
};

struct Case {
  std::string name;
  Model model;
  Setting off, on;
  bool on_host = false;  // what leaves the device is held by the host
};

// The parts that a case is not about are kept from being the peak.
constexpr Chunks kSmall{64, 64};

MemoryPolicy with(std::int64_t MemoryPolicy::*field, std::int64_t layers) {
  MemoryPolicy policy;
  policy.*field = layers;
  return policy;
}

std::vector<Case> cases() {
  const Layout one, two = layout_of(1, 2, 1, 2), ep2 = layout_of(1, 2, 2, 1);
  Layout shared = two, shared_experts = ep2;
  shared.sp = shared_experts.sp = 2;
  const Model dense = wide_dense(), moe = wide_moe();
  Model wide_vocabulary = dense;
  wide_vocabulary.vocab = 4096;
  const MemoryPolicy none, all = with(&MemoryPolicy::recompute_layers, kLayers);
  const auto policy = [&](const std::string& name, const Model& model, const Layout& layout,
                          const MemoryPolicy& on) {
    return Case{name, model, {layout, kSmall, none}, {layout, kSmall, on}};
  };
  const auto half = with(&MemoryPolicy::recompute_layers, kLayers / 2);
  const auto attention = with(&MemoryPolicy::recompute_attention, kLayers);
  const auto ffn = with(&MemoryPolicy::recompute_ffn, kLayers);
  const auto experts = with(&MemoryPolicy::recompute_experts, kLayers);
  MemoryPolicy swap = all, host;
  const Layout rows = layout_of(1, 1, 1, 1, 4);
  swap.swap_layers = kLayers;
  host.host_optimizer = true;
  return {
      policy("dense, recompute all", dense, one, all),
      policy("dense, recompute half", dense, two, half),
      policy("dense, recompute attention", dense, one, attention),
      policy("dense, recompute ffn", dense, one, ffn),
      policy("moe, recompute all", moe, ep2, all),
      policy("moe, recompute half", moe, one, half),
      policy("moe, recompute attention", moe, ep2, attention),
      policy("moe, recompute ffn", moe, ep2, ffn),
      policy("moe, recompute experts", moe, ep2, experts),
      {"dense, swap", narrow(dense), {rows, kSmall, all}, {rows, kSmall, swap}, true},
      {"moe, swap", narrow(moe), {rows, kSmall, all}, {rows, kSmall, swap}, true},
      {"dense, optimizer on the host", dense, {one, kSmall, none}, {one, kSmall, host}, true},
      {"moe, optimizer on the host", moe, {ep2, kSmall, none}, {ep2, kSmall, host}, true},
      {"dense, sp 2", dense, {two, kSmall, none}, {shared, kSmall, none}},
      {"moe, sp 2", moe, {ep2, kSmall, none}, {shared_experts, kSmall, none}},
      {"loss chunk", wide_vocabulary, {one, {0, 64}, all}, {one, kSmall, all}},
      {"attention chunk", dense, {one, {64, 0}, all}, {one, kSmall, all}},
  };
}

// Peaks by rank: of the device, of the host.
using Peaks = std::vector<std::pair<std::int64_t, std::int64_t>>;

Peaks peaks_of(const TraceEvents& events, std::int32_t world) {
  Peaks peaks(static_cast<std::size_t>(world));
  for (const PeakEvent& p : events.peaks) {
    if (p.cls < 0) peaks[static_cast<std::size_t>(p.rank)].first = p.bytes;
    if (p.cls == kHostClass) peaks[static_cast<std::size_t>(p.rank)].second = p.bytes;
  }
  return peaks;
}

struct Outcome {
  Peaks counted, simulated;
};

// Runs two steps; the second one's peaks, and those simulated with its sizes.
Outcome outcome(const Case& c, const Setting& setting, DType dtype) {
  const Plan plan =
      make_plan(c.model, setting.layout, setting.chunks, setting.policy, dtype, kTokens,
                setting.layout.replicate_d * setting.layout.fsdp_d * setting.layout.micro_batch);
  const Program program = lower(plan);
  const auto findings = verify(program);
  CHECK(findings.empty(), findings[0].rule + ": " + findings[0].message);
  const auto batch = reference::random_batch(c.model, plan.workload.global_sequences, kTokens, 41);
  RunOptions options;
  options.steps = 2;
  options.init_std = 0.05;
  const auto run = run_in_process(plan, program, batch, options);
  CHECK(run.ok(), run.error().text());
  simulator::Options bound;
  TraceEvents second;
  for (const TraceEvents& events : run.value().events) {
    bound.bindings.push_back(events.bindings.at(1));
  }
  const auto simulated = simulator::simulate(plan, program, bound);
  CHECK(simulated.ok(), simulated.error().text());
  for (std::int32_t rank = 0; rank < program.world; ++rank) {
    const TraceEvents mine =
        of_step(run.value().events[static_cast<std::size_t>(rank)], program, rank, 1);
    expect_peaks_within(mine, simulated.value().events, rank, 0.02, 0.05, 0);
    second.peaks.insert(second.peaks.end(), mine.peaks.begin(), mine.peaks.end());
  }
  const Outcome out{peaks_of(second, program.world),
                    peaks_of(simulated.value().events, program.world)};
  EXPECT_EQ(run.value().steps[1].peak_bytes, out.counted[0].first);
  EXPECT_EQ(run.value().steps[1].host_peak_bytes, out.counted[0].second);
  return out;
}

class Savings : public testing::TestWithParam<std::tuple<Case, DType>> {};

TEST_P(Savings, AreWhatIsSimulated) {
  const auto& [c, dtype] = GetParam();
  const Outcome off = outcome(c, c.off, dtype), on = outcome(c, c.on, dtype);
  for (std::size_t r = 0; r < off.counted.size(); ++r) {
    SCOPED_TRACE("rank " + std::to_string(r));
    const std::int64_t counted = off.counted[r].first - on.counted[r].first;
    const std::int64_t predicted = off.simulated[r].first - on.simulated[r].first;
    EXPECT_GT(predicted, off.simulated[r].first / 50) << "the mechanism should save something";
    EXPECT_LE(std::abs(counted - predicted), predicted / 50)
        << "saved " << counted << " of " << off.counted[r].first << ", predicted " << predicted;
    // A prediction is no less than what is needed, but for scalars that a product makes.
    EXPECT_LE(off.counted[r].first, off.simulated[r].first + 64);
    EXPECT_LE(on.counted[r].first, on.simulated[r].first + 64);
    EXPECT_EQ(off.counted[r].second, 0);
    EXPECT_EQ(on.counted[r].second, on.simulated[r].second);
    EXPECT_EQ(on.counted[r].second > 0, c.on_host);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Mechanisms, Savings,
    testing::Combine(testing::ValuesIn(cases()),
                     testing::Values(DType::kFloat32, DType::kBFloat16)),
    [](const testing::TestParamInfo<std::tuple<Case, DType>>& test) {
      std::string name = std::get<0>(test.param).name + "_" + name_of(std::get<1>(test.param));
      std::replace_if(
          name.begin(), name.end(),
          [](char ch) { return std::isalnum(static_cast<unsigned char>(ch)) == 0; }, '_');
      return name;
    });

}  // namespace
}  // namespace orrery::parity
