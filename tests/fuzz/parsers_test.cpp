// A deterministic mutation fuzzer of every text parser of core. A seed's bytes are flipped, cut,
// repeated and spliced; whatever comes out, a parser answers with a value or with an error that has
// a place, never with a crash; and what it accepts it can write and read again to the same.
#include <gtest/gtest.h>

#include <array>
#include <functional>

#include "core/configs.h"
#include "core/plan.h"
#include "core/quantity.h"
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

std::vector<std::string> files_of(const std::string& folder) {
  std::vector<std::string> texts;
  for (const std::string& name : list_configs(folder)) {
    texts.push_back(read_file(find_config(folder, name).value()).value());
  }
  return texts;
}

std::vector<std::string> other_seeds() {
  std::vector<std::string> texts = {sample_plan(), sample_workload(),
                                    to_json(load_cluster("h800x16").value()).dump()};
  for (const char* folder : {"devices", "clusters", "workloads"}) {
    for (std::string& text : files_of(folder)) texts.push_back(std::move(text));
  }
  return texts;
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
      {"plan", [](const std::string& text) {
         return survives(
             text, [](const std::string& t) { return parse_plan(t, place()); },
             [](const Plan& plan) { return to_json(plan).dump(); });
       }}};
  return all;
}

TEST(Fuzz, ParsersSurviveMutatedFiles) {
  // Models are many, and a reader each: they have half of the mutations.
  const std::vector<std::vector<std::string>> texts = {files_of("models"), other_seeds()};
  ASSERT_GE(texts[0].size(), 25U);
  ASSERT_GE(texts[1].size(), 12U);
  std::vector<int> accepted(targets().size(), 0);
  for (std::size_t t = 0; t < targets().size(); ++t) {
    for (const auto& kind : texts) {
      for (const std::string& seed : kind) accepted[t] += targets()[t].second(seed);
    }
    EXPECT_GT(accepted[t], 0) << targets()[t].first << " accepts no seed: the fuzzer tests nothing";
    accepted[t] = 0;
  }
  for (int i = 0; i < kMutations; ++i) {
    std::mt19937_64 rng(static_cast<std::uint64_t>(i));
    const std::vector<std::string>& kind = texts[static_cast<std::size_t>(i % 2)];
    const std::string text = mutate(kind[rng() % kind.size()], rng);
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
