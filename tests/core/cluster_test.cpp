// Clusters and workloads: templates, sizes, exact round trips, curves, and errors by injection.
#include "core/cluster.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "core/configs.h"
#include "core/workload.h"

namespace orrery {
namespace {

TEST(Cluster, TemplatesTakeWholeNodes) {
  const Cluster cluster = load_cluster("h800x256").value();
  EXPECT_EQ(cluster.name, "h800x256");
  EXPECT_EQ(cluster.devices, 256);
  EXPECT_EQ(cluster.devices_per_node, 8);
  ASSERT_EQ(cluster.tiers.size(), 2U);
  EXPECT_EQ(cluster.tiers[0].domain, 8);
  EXPECT_EQ(cluster.tiers[0].bandwidth.value(), 200e9);
  EXPECT_EQ(cluster.tiers[1].domain, 256);
  EXPECT_EQ(cluster.device.peak(DType::kBFloat16).value(), 989e12);
  EXPECT_EQ(cluster.device.peak(DType::kFloat64).value(), 1e12);
  EXPECT_EQ(load_cluster("h100x8").value().tiers.size(), 1U);
  const Cluster part = load_cluster("h100x4").value();
  EXPECT_EQ(part.devices_per_node, 4);
  ASSERT_EQ(part.tiers.size(), 1U);
  EXPECT_EQ(part.tiers[0].domain, 4);
  EXPECT_EQ(load_cluster("local-cpu").value().devices, 4);
}

TEST(Cluster, BadNamesAndSizesAreErrors) {
  for (const char* name : {"h800x12", "h80x256", "h800", "h800x0", "h800x", "h800x2000000", "x8",
                           "h800x99999999999999999999", "local-cpux8", "no/file.json", ""}) {
    const Result<Cluster> cluster = load_cluster(name);
    ASSERT_FALSE(cluster.ok()) << name;
    EXPECT_EQ(cluster.error().code, ErrorCode::kInvalid) << name;
  }
  EXPECT_NE(load_cluster("h80x256").error().text().find("did you mean 'h800'"), std::string::npos);
  EXPECT_NE(load_cluster("h800x12").error().text().find("8 and 16"), std::string::npos);
}

TEST(Cluster, RoundTripsBitForBitWithRandomNumbers) {
  std::mt19937_64 rng(11);
  std::uniform_real_distribution<double> factor(0.1, 1.0);
  for (int i = 0; i < 200; ++i) {
    Cluster c = load_cluster("h800x64").value();
    c.device.peak_bf16 = FlopsPerSecond(c.device.peak_bf16.value() * factor(rng));
    c.device.memory_bandwidth = BytesPerSecond(c.device.memory_bandwidth.value() * factor(rng));
    c.device.memory = Bytes(static_cast<std::int64_t>(80e9 + factor(rng) * 1e9));
    c.device.launch = Seconds(factor(rng) * 1e-5);
    c.device.peak_fp16 = FlopsPerSecond(c.device.peak_bf16.value() * factor(rng));
    c.device.peak_tf32 = FlopsPerSecond(factor(rng) * 1e14);
    c.device.peak_fp8 = FlopsPerSecond(i % 3 == 0 ? 0 : factor(rng) * 1e15);
    c.device.processors = static_cast<std::int64_t>(factor(rng) * 200);
    c.device.l2_bytes = Bytes(static_cast<std::int64_t>(factor(rng) * 1e8));
    c.device.power_w = factor(rng) * 1000;
    for (double& f : c.device.gemm.fraction) f *= factor(rng);
    for (LinkTier& tier : c.tiers) {
      tier.in_network_reduction = i % 2 == 0;
      tier.oversubscription = i % 5 == 0 ? 1 : 1 + factor(rng);
      tier.mesh = i % 7 == 0;
      tier.bandwidth = BytesPerSecond(tier.bandwidth.value() * factor(rng));
      tier.latency = Seconds(factor(rng) * 1e-6);
    }
    c.compute_slowdown = 1 + factor(rng);
    const Result<Cluster> read = parse_cluster(to_json(c).dump(), "probe.json", 0);
    ASSERT_TRUE(read.ok()) << read.error().text();
    c.sha256 = read.value().sha256;
    EXPECT_EQ(read.value(), c);
  }
}

TEST(Cluster, EveryProblemOfAFileIsReported) {
  Json json = to_json(load_cluster("h100x16").value());
  json.set("devices", 12).set("compute_slowdown", 0.5).set("tierz", 1);
  Json device = *json.find("device");
  device.set("memory", 80).set("peak_bf16", "0 TFLOP/s").set("launch", "2 s");
  device.set("peak_fp8", "0 TFLOP/s").set("processors", -1).set("l2_bytes", 1).set("power_w", "1");
  device.set("efficiency", Json::object()
                               .set("gemm", Json::array())
                               .set("grouped", Json::parse("[[1, 0.5], [1, 0.6]]", "").value())
                               .set("attention", Json::parse("[[1, 1.5]]", "").value())
                               .set("memory", Json::parse("[[1]]", "").value()));
  json.set("device", device);
  Json tier = json.find("tiers")->items()[0];
  tier.set("mesh", 1).set("in_network_reduction", "yes").set("oversubscription", 0.5);
  json.set("tiers", Json::array().push(tier));
  const Error error = parse_cluster(json.dump(), "c.json", 0).error();
  const std::string text = error.text();
  for (const char* where :
       {"/devices_per_node", "/compute_slowdown", "/tierz", "/device/memory", "/device/peak_bf16",
        "/device/launch", "/device/efficiency/gemm", "/device/efficiency/grouped",
        "/device/efficiency/attention", "/device/efficiency/memory", "/device/peak_fp8",
        "/device/processors", "/device/l2_bytes", "/device/power_w", "/tiers/0/mesh",
        "/tiers/0/in_network_reduction", "/tiers/0/oversubscription"}) {
    EXPECT_NE(text.find("c.json:" + std::string(where)), std::string::npos) << where << "\n"
                                                                            << text;
  }
  EXPECT_NE(text.find("did you mean 'tiers'"), std::string::npos);
  Json named = to_json(load_cluster("h100x16").value());
  named.set("device", "h100-sxn");
  EXPECT_NE(parse_cluster(named.dump(), "c.json", 0).error().text().find("'h100-sxm'"),
            std::string::npos);
}

// A file without the keys that came later reads to a cluster that is written without them: hashes
// of such files stay what they were.
TEST(Cluster, WhatIsNotSetIsNotWritten) {
  const Cluster cluster = load_cluster("local-cpu").value();
  EXPECT_EQ(cluster.device.peak_fp16, cluster.device.peak_bf16);
  EXPECT_EQ(cluster.sha256, "f772e3b86496f1771c6aeb9b9b2b16182f9f47dbf6ee3056deff5b08775fa86e");
  const std::string text = to_json(cluster).dump();
  for (const char* key : {"peak_fp16", "peak_tf32", "peak_fp8", "processors", "l2_bytes", "power_w",
                          "in_network_reduction", "oversubscription", "mesh"}) {
    EXPECT_EQ(text.find(key), std::string::npos) << key;
  }
}

TEST(LinkTier, ShareOfItsBandwidth) {
  LinkTier tier{"link", 8, BytesPerSecond(70e9), Seconds(1e-6)};
  EXPECT_EQ(tier.share_of(1), 1);
  EXPECT_EQ(tier.share_of(8), 1);
  tier.oversubscription = 4;
  EXPECT_EQ(tier.share_of(2), 0.25);
  tier.mesh = true;
  EXPECT_DOUBLE_EQ(tier.share_of(2), 1.0 / 7 / 4);
  EXPECT_EQ(tier.share_of(8), 0.25);
  EXPECT_EQ(tier.share_of(9), 0.25);
}

TEST(LinkTier, ACutMeshKeepsTheLinksBetweenWhatIsLeft) {
  Json json = to_json(load_cluster("h100x8").value());
  Json tier = json.find("tiers")->items()[0];
  json.set("devices", 4).set("tiers", Json::array().push(tier.set("mesh", true)));
  const Cluster four = parse_cluster(json.dump(), "c.json", 0).value();
  EXPECT_EQ(four.tiers[0].domain, 4);
  EXPECT_DOUBLE_EQ(four.tiers[0].bandwidth.value(), 450e9 * 3 / 7);
  EXPECT_DOUBLE_EQ(four.tiers[0].bandwidth.value() * four.tiers[0].share_of(2), 450e9 / 7);
  const Cluster again = parse_cluster(to_json(four).dump(), "c.json", 0).value();
  EXPECT_EQ(again, four);
}

TEST(EfficiencyCurve, InterpolatesInLogOfSizeAndIsFlatOutside) {
  const EfficiencyCurve curve{{1e6, 1e8, 1e9}, {0.1, 0.5, 0.8}};
  EXPECT_DOUBLE_EQ(curve.at(0), 0.1);
  EXPECT_DOUBLE_EQ(curve.at(1e3), 0.1);
  EXPECT_DOUBLE_EQ(curve.at(1e6), 0.1);
  EXPECT_NEAR(curve.at(1e7), 0.3, 1e-12);
  EXPECT_DOUBLE_EQ(curve.at(1e8), 0.5);
  EXPECT_DOUBLE_EQ(curve.at(1e12), 0.8);
  double last = 0;
  for (double x = 1e5; x < 1e10; x *= 1.1) {
    EXPECT_GE(curve.at(x), last);
    last = curve.at(x);
  }
}

TEST(Configs, EveryFileLoads) {
  for (const std::string& name : list_configs("clusters")) {
    const Result<Cluster> alone = load_cluster(name);
    const Result<Cluster> sized = load_cluster(name + "x64");
    EXPECT_TRUE(alone.ok() || sized.ok()) << sized.error().text();
  }
  for (const std::string& name : list_configs("devices")) {
    Json json = to_json(load_cluster("h100x16").value());
    json.set("device", name);
    const Result<Cluster> cluster = parse_cluster(json.dump(), "c.json", 0);
    EXPECT_TRUE(cluster.ok()) << cluster.error().text();
  }
  for (const std::string& name : list_configs("workloads")) {
    const Result<Workload> workload = load_workload(name);
    ASSERT_TRUE(workload.ok()) << workload.error().text();
    EXPECT_EQ(parse_workload(to_json(workload.value()).dump(-1), "w.json").value(),
              workload.value());
  }
  EXPECT_GE(list_configs("clusters").size(), 3U);
  EXPECT_GE(list_configs("devices").size(), 3U);
  EXPECT_TRUE(list_configs("nothing-here").empty());
  EXPECT_FALSE(find_config("models", "../clusters/h800").ok());
}

TEST(Workload, ShippedOnesAreAsDocumented) {
  const Workload pretrain = load_workload("pretrain-4k").value();
  EXPECT_EQ(pretrain.global_tokens(), 4194304);
  EXPECT_EQ(pretrain.pairs_per_sequence(), 4096LL * 4097 / 2);
  const Workload pack = load_workload("pack-64k").value();
  EXPECT_EQ(pack.sequence_tokens, 65536);
  EXPECT_EQ(pack.global_sequences, 256);
  EXPECT_GT(pack.document_tokens.size(), 8U);
  EXPECT_LT(pack.pairs_per_sequence(), 65536LL * 65537 / 2 / 4);
  const Workload demo = load_workload("demo-local").value();
  EXPECT_EQ(demo.compute, DType::kFloat32);
  EXPECT_EQ(demo.optimizer.lr, 3e-3);
}

TEST(Workload, ErrorsByInjection) {
  const std::vector<std::pair<const char*, Json>> cases = {
      {"sequence_tokens", 0},
      {"sequence_tokens", Json()},
      {"global_sequences", "8"},
      {"document_tokens", 3000},
      {"document_tokens", Json::array().push(4096).push(1)},
      {"document_tokens", Json::array().push(-1).push(4097)},
      {"document_tokens", Json()},
      {"compute", "bf61"},
      {"master", "bf16"},
      {"balance_scope", "global"},
      {"expert_load_cv", -1},
      {"sequence_token", 1}};
  for (const auto& [key, value] : cases) {
    Json json = to_json(load_workload("pretrain-4k").value());
    json.set(key, value);
    const Result<Workload> workload = parse_workload(json.dump(), "w.json");
    ASSERT_FALSE(workload.ok()) << key << " " << value.dump(-1);
    EXPECT_NE(workload.error().text().find("w.json:/" + std::string(key)), std::string::npos);
  }
  Json json = to_json(load_workload("pretrain-4k").value());
  json.set("compute", "fp64");
  EXPECT_FALSE(parse_workload(json.dump(), "w.json").ok());
  json.set("master", "fp64");
  EXPECT_TRUE(parse_workload(json.dump(), "w.json").ok());
  json.set("optimizer", Json::object().set("beta1", 1.0).set("momentum", 0.9));
  EXPECT_EQ(parse_workload(json.dump(), "w.json").error().problems.size(), 2U);
}

}  // namespace
}  // namespace orrery
