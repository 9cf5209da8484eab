// A deterministic mutation fuzzer of every text parser of core, and of sets of parameters. A seed's
// bytes are flipped, cut, repeated and spliced; whatever comes out, a parser answers with a value
// or with an error that has a place, never with a crash; and what it accepts it can write and read
// again to the same.
#include <gtest/gtest.h>

#include <array>
#include <functional>

#include "core/configs.h"
#include "core/plan.h"
#include "core/quantity.h"
#include "core/stack.h"
#include "simulator/stages/parameter_set.h"
#include "tests/fuzz/mutate_text.h"

namespace orrery {
namespace {

constexpr int kMutations = 20000;

std::string sample_plan() {
  Plan plan;
  plan.model = load_model("qwen3-moe-10m").value();
  plan.cluster = load_cluster("local-cpu").value();
  plan.workload = load_workload("demo-local").value();
  plan.layout.dp = 4;
  plan.layout.fsdp_d = 4;
  plan.layout.ep = 4;
  plan.layout.micro_batch = 2;
  plan.predicted.memory = {{"saved", Bytes(1024)}};
  plan.predicted.document_cost = {2e-6, 3e-10};
  plan.runners_up = {{plan.layout, plan.chunks, plan.policy, plan.predicted, "slower"}};
  plan.rejected = {{"experts_divide", 3}};
  return to_json(plan).dump();
}

// With every key that a workload need not have.
std::string sample_workload() {
  Workload w = load_workload("pretrain-4k").value();
  w.document_tokens.clear();
  w.document_lengths = DocumentLengths{700, 1.2, 4096, 5};
  w.packing = Packing::kSoft;
  w.z_loss = 1e-3;
  w.bias_speed = 1e-3;
  w.optimizer.schedule = {ScheduleKind::kCosine, 100, 1000, 3e-5};
  return to_json(w).dump();
}

// With every key that a cluster need not have.
std::string sample_cluster() {
  Cluster c = load_cluster("h800x16").value();
  c.device.peak_fp16 = FlopsPerSecond(c.device.peak_bf16.value() / 2);
  for (EfficiencyCurve& curve : c.device.passes) curve = c.device.memory_eff;
  for (LinkTier& tier : c.tiers) {
    tier.cpu = 0.3;
    tier.spread = 0.1;
    tier.shared_by = 2;
    tier.in_network_reduction = true;
    tier.oversubscription = 1.5;
    tier.mesh = true;
    for (EfficiencyCurve& curve : tier.efficiency) curve = {{1e3, 1e6}, {0.5, 1.25}};
  }
  c.spread = 0.05;
  c.cores_per_node = 16;
  c.nodes_per_machine = 2;
  c.collectives = CollectiveAlgorithm::kPairs;
  return to_json(c).dump();
}

// With every key that a set of parameters need not have.
std::string sample_parameters() {
  using simulator::Owner;
  simulator::ParameterSet set;
  set.values = {{Owner::kDevice, "hopper", "product", 0.7, 100, 0.65, 0.75},
                {Owner::kLink, "nvlink", "attainable", 0.8, 40},
                {Owner::kStack, "megatron", "step_s", 0.01, 30, 0.005, 0.02}};
  set.spread.rows = 12;
  set.spread.shapes = {{"a", "f", "hopper", false, true, {1024, 2048, 8, 1, 1, 1, 1}},
                       {"b", "f", "hopper", true, false, {4096, 8192, 64, 2, 4, 1, 8}}};
  set.without_source = {{"worst regret", 0.2}, {"inside, 0 to 1", 0.8}};
  set.without_device = {{"worst regret", 0.3}};
  return to_json(set).dump();
}

// Kinds of texts: each is drawn as often, however many files there are of it.
std::vector<std::vector<std::string>> seeds() {
  std::vector<std::vector<std::string>> kinds = {
      {sample_plan()},
      {sample_workload()},
      {sample_cluster(), to_json(load_cluster("h800x16").value()).dump()},
      {sample_parameters()}};
  for (const char* folder : {"models", "devices", "clusters", "workloads", "stacks"}) {
    kinds.emplace_back();
    for (const std::string& name : list_configs(folder)) {
      kinds.back().push_back(read_file(find_config(folder, name).value()).value());
    }
  }
  return kinds;
}

// Parses; what is accepted must be written and read again to the same. Counts what was accepted.
template <class Parse, class Write>
int survives(const std::string& text, const Parse& parse, const Write& write) {
  const auto result = parse(text);
  if (!result.ok()) {
    EXPECT_FALSE(result.error().problems.empty());
    for (const Problem& p : result.error().problems) EXPECT_FALSE(p.where.empty()) << p.message;
    return 0;
  }
  const std::string written = write(result.value());
  const auto again = parse(written);
  EXPECT_TRUE(again.ok()) << again.error().text() << "\n" << written << "\nfrom\n" << text;
  if (again.ok()) {
    EXPECT_EQ(write(again.value()), written) << text;
  }
  return 1;
}

using Target = std::function<int(const std::string&)>;

std::string place() {
  return "f.json";
}

const std::vector<std::pair<const char*, Target>>& targets() {
  static const std::vector<std::pair<const char*, Target>> all = {
      {"json",
       [](const std::string& text) {
         return survives(
             text, [](const std::string& t) { return Json::parse(t, place()); },
             [](const Json& json) { return json.dump(); });
       }},
      {"model",
       [](const std::string& text) {
         return survives(
             text, [](const std::string& t) { return parse_model(t, place()); },
             [](const Model& model) { return to_json(model).dump(); });
       }},
      {"cluster",
       [](const std::string& text) {
         return survives(
             text, [](const std::string& t) { return parse_cluster(t, place(), 0); },
             [](const Cluster& cluster) { return to_json(cluster).dump(); });
       }},
      {"workload",
       [](const std::string& text) {
         return survives(
             text, [](const std::string& t) { return parse_workload(t, place()); },
             [](const Workload& workload) { return to_json(workload).dump(); });
       }},
      {"stack",
       [](const std::string& text) {
         return survives(
             text, [](const std::string& t) { return parse_stack(t, place()); },
             [](const Stack& stack) { return to_json(stack).dump(); });
       }},
      {"parameters",
       [](const std::string& text) {
         return survives(
             text, [](const std::string& t) { return simulator::parse_parameters(t, place()); },
             [](const simulator::ParameterSet& set) { return to_json(set).dump(); });
       }},
      {"plan", [](const std::string& text) {
         return survives(
             text, [](const std::string& t) { return parse_plan(t, place()); },
             [](const Plan& plan) { return to_json(plan).dump(); });
       }}};
  return all;
}

TEST(Fuzz, ParsersSurviveMutatedFiles) {
  const std::vector<std::vector<std::string>> kinds = seeds();
  std::vector<int> accepted(targets().size(), 0);
  for (std::size_t t = 0; t < targets().size(); ++t) {
    for (const std::vector<std::string>& texts : kinds) {
      ASSERT_FALSE(texts.empty());
      for (const std::string& seed : texts) accepted[t] += targets()[t].second(seed);
    }
    EXPECT_GT(accepted[t], 0) << targets()[t].first << " accepts no seed: the fuzzer tests nothing";
    accepted[t] = 0;
  }
  for (int i = 0; i < kMutations; ++i) {
    std::mt19937_64 rng(static_cast<std::uint64_t>(i));
    const std::vector<std::string>& texts = kinds[rng() % kinds.size()];
    const std::string text = mutate(texts[rng() % texts.size()], rng);
    for (std::size_t t = 0; t < targets().size(); ++t) {
      ASSERT_NO_THROW(accepted[t] += targets()[t].second(text)) << targets()[t].first << "\n"
                                                                << text;
    }
    if (HasFailure()) FAIL() << "seed " << i;
  }
  for (std::size_t t = 0; t < targets().size(); ++t) {
    // Some mutations are harmless and some are not: both paths are walked.
    EXPECT_GT(accepted[t], 20) << targets()[t].first;
    EXPECT_LT(accepted[t], kMutations) << targets()[t].first;
    RecordProperty(targets()[t].first, accepted[t]);
  }
}

TEST(Fuzz, QuantitiesSurviveMutatedText) {
  const std::array<std::pair<const char*, const char*>, 5> samples = {{{"79.6 GiB", "bytes"},
                                                                       {"450 GB/s", "bytes/s"},
                                                                       {"400 Gb/s", "bytes/s"},
                                                                       {"2.5 us", "s"},
                                                                       {"989 TFLOP/s", "flop/s"}}};
  int accepted = 0;
  for (int i = 0; i < 5 * kMutations; ++i) {
    std::mt19937_64 rng(static_cast<std::uint64_t>(i));
    const auto& [seed, dimension] = samples[rng() % samples.size()];
    const char* dim = dimension;
    ASSERT_NO_THROW(accepted += survives(
                        mutate(seed, rng),
                        [dim](const std::string& t) { return parse_quantity(t, dim, "f"); },
                        [dim](double value) { return exact_quantity(value, dim); }));
    if (HasFailure()) FAIL() << "seed " << i;
  }
  EXPECT_GT(accepted, 100);
}

}  // namespace
}  // namespace orrery
