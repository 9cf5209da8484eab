// Devices, fabrics and the words of published runs: every shipped number has a source, relations
// that hold between devices, and clusters cut to what a run prints.
#include "core/hardware.h"

#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <set>
#include <sstream>

#include "core/configs.h"

namespace orrery {
namespace {

Json file_of(const std::string& folder, const std::string& name) {
  return Json::load(find_config(folder, name).value()).value();
}

DeviceProfile device(const std::string& name) {
  return cluster_of(name, 1, 1, 0, 0).value().device;
}

std::vector<std::string> words_of(const std::string& name) {
  std::vector<std::string> words;
  const Json json = file_of("devices", name);
  const Json* aliases = json.find("aliases");
  if (aliases == nullptr) return words;
  for (const Json& alias : aliases->items()) words.push_back(alias.as_string());
  return words;
}

// The keys of "a, b, c".
std::set<std::string> split(const std::string& keys) {
  std::set<std::string> out;
  std::istringstream in(keys);
  for (std::string key; std::getline(in >> std::ws, key, ',');) out.insert(key);
  return out;
}

TEST(Devices, EveryNumberHasASource) {
  for (const std::string& name : list_configs("devices")) {
    const Json json = file_of("devices", name);
    EXPECT_EQ(json.find("name")->as_string(), name);
    const Json* source = json.find("source");
    ASSERT_NE(source, nullptr) << name;
    if (source->is_string()) continue;  // one for all
    std::set<std::string> covered = {"name", "family", "aliases", "fabric", "source"};
    for (const auto& [keys, text] : source->members()) {
      for (const std::string& key : split(keys)) {
        EXPECT_NE(json.find(key), nullptr)
            << name << ": a source of " << key << ", which is not there";
        covered.insert(key);
      }
      EXPECT_GT(text.as_string().size(), 10U) << name << "/" << keys;
    }
    for (const auto& [key, value] : json.members()) {
      EXPECT_EQ(covered.count(key), 1U) << name << ": " << key << " has no source";
    }
  }
}

TEST(Clusters, EveryTierHasASource) {
  for (const std::string& name : list_configs("clusters")) {
    const Json json = file_of("clusters", name);
    EXPECT_EQ(json.find("name")->as_string(), name);
    ASSERT_NE(json.find("source"), nullptr) << name;
    for (const Json& tier : json.find("tiers")->items()) {
      EXPECT_NE(tier.find("source"), nullptr) << name << ": " << tier.dump(-1);
    }
  }
}

TEST(Clusters, EveryFileRoundTrips) {
  for (const std::string& name : list_configs("clusters")) {
    const bool fixed = file_of("clusters", name).find("devices") != nullptr;
    const Result<Cluster> cluster = load_cluster(fixed ? name : name + "x3072");
    ASSERT_TRUE(cluster.ok()) << cluster.error().text();
    EXPECT_EQ(parse_cluster(to_json(cluster.value()).dump(), "c.json", 0).value(), cluster.value());
  }
}

TEST(Clusters, AnOversubscribedSpineJoinsPods) {
  const Cluster cluster = load_cluster("h100-podsx6144").value();
  ASSERT_EQ(cluster.tiers.size(), 3U);
  EXPECT_EQ(cluster.tiers[1].domain, 3072);
  EXPECT_EQ(cluster.tiers[2].domain, 6144);
  EXPECT_EQ(cluster.tiers[2].oversubscription, 7);
  EXPECT_EQ(load_cluster("h100-podsx3072").value().tiers.size(), 2U);
}

TEST(Devices, NewerIsFaster) {
  const DeviceProfile a100 = device("a100-sxm-80"), h100 = device("h100-sxm");
  for (const auto peak :
       {&DeviceProfile::peak_bf16, &DeviceProfile::peak_fp16, &DeviceProfile::peak_fp32,
        &DeviceProfile::peak_fp64, &DeviceProfile::peak_tf32, &DeviceProfile::peak_fp8}) {
    EXPECT_GT(h100.*peak, a100.*peak);
    EXPECT_GE(h100.*peak, device("h100-nvl").*peak);
    EXPECT_GT(device("h100-nvl").*peak, device("h100-pcie").*peak);
    EXPECT_EQ(device("h200-sxm").*peak, h100.*peak);
    EXPECT_EQ(device("a100-sxm-40").*peak, a100.*peak);
    EXPECT_EQ(device("a100-pcie-80").*peak, a100.*peak);
  }
  for (const auto rate : {&DeviceProfile::memory_bandwidth, &DeviceProfile::host_bandwidth}) {
    EXPECT_GT(h100.*rate, a100.*rate);
    EXPECT_GE(device("h200-sxm").*rate, h100.*rate);
    EXPECT_GE(a100.*rate, device("a100-pcie-80").*rate);
  }
  EXPECT_GT(device("a100-pcie-80").memory_bandwidth, device("a100-sxm-40").memory_bandwidth);
  EXPECT_LT(device("h100-sxm-96").memory_bandwidth, h100.memory_bandwidth);
  EXPECT_EQ(a100.peak_fp8.value(), 0);
  EXPECT_EQ(a100.processors, 108);
  EXPECT_EQ(h100.processors, 132);
  EXPECT_EQ(device("h100-pcie").processors, 114);
  const Cluster old = load_cluster("a100x64").value(), now = load_cluster("h100x64").value();
  for (std::size_t t = 0; t < 2; ++t) EXPECT_GT(now.tiers[t].bandwidth, old.tiers[t].bandwidth);
}

TEST(Devices, ExportVariantsDifferInTheLink) {
  DeviceProfile a800 = device("a800-sxm"), h800 = device("h800-sxm");
  a800.name = "a100-sxm-80";
  EXPECT_EQ(a800, device("a100-sxm-80"));
  h800.name = "h100-sxm";
  EXPECT_LT(h800.peak_fp64.value(), 2e12);  // cut too
  h800.peak_fp64 = device("h100-sxm").peak_fp64;
  EXPECT_EQ(h800, device("h100-sxm"));
  for (const auto& [less, full] : {std::pair("a800x64", "a100x64"), {"h800x64", "h100x64"}}) {
    const Cluster cut = load_cluster(less).value(), whole = load_cluster(full).value();
    EXPECT_EQ(cut.tiers[0].bandwidth.value(), 200e9);
    EXPECT_LT(cut.tiers[0].bandwidth, whole.tiers[0].bandwidth);
    EXPECT_EQ(cut.tiers[1], whole.tiers[1]);
  }
}

TEST(Hardware, EveryWordIsOneDevice) {
  std::map<std::string, std::string> owner;
  for (const std::string& name : list_configs("devices")) {
    for (const std::string& word : words_of(name)) {
      EXPECT_TRUE(owner.emplace(word, name).second)
          << word << " is " << owner[word] << " and " << name;
      const Result<Cluster> one = cluster_of(word, 64, 8, 0, 0);
      ASSERT_TRUE(one.ok()) << one.error().text();
      EXPECT_EQ(one.value().device.name, name);
      EXPECT_EQ(one.value().name, name + "x64");
    }
  }
  const std::map<std::string, std::string> expected = {
      {"A100-80GB", "a100-sxm-80"},       {"A100-40GB", "a100-sxm-40"},
      {"A100-PCIe-80GB", "a100-pcie-80"}, {"A800-80GB", "a800-sxm"},
      {"H100-80GB", "h100-sxm"},          {"H100-96GB-500W", "h100-sxm-96"},
      {"H200-141GB", "h200-sxm"},         {"H800-80GB", "h800-sxm"},
      {"H100-PCIe", "h100-pcie"},         {"H100-NVL", "h100-nvl"}};
  for (const auto& [word, name] : expected) EXPECT_EQ(owner[word], name);
}

TEST(Hardware, APrintedClusterHasItsBandwidths) {
  const Cluster c = cluster_of("A100-80GB", 128, 8, 600e9, 50e9).value();
  EXPECT_EQ(c.devices, 128);
  EXPECT_EQ(c.devices_per_node, 8);
  ASSERT_EQ(c.tiers.size(), 2U);
  EXPECT_EQ(c.tiers[0].domain, 8);
  EXPECT_EQ(c.tiers[0].bandwidth.value(), 300e9);
  EXPECT_EQ(c.tiers[1].domain, 128);
  EXPECT_EQ(c.tiers[1].bandwidth.value(), 50e9 / 8);
  EXPECT_EQ(parse_cluster(to_json(c).dump(), "c.json", 0).value(), c);
  const Cluster four = cluster_of("H100-80GB", 64, 4, 900e9, 400e9).value();
  EXPECT_EQ(four.tiers[0].domain, 4);
  EXPECT_EQ(four.devices_per_node, 4);
  EXPECT_EQ(four.tiers[1].bandwidth.value(), 50e9);
}

TEST(Hardware, WhatIsNotPrintedIsTheTemplates) {
  const Cluster c = cluster_of("H200-141GB", 64, 8, 0, -1).value();
  const Cluster h200 = load_cluster("h200x64").value();
  EXPECT_EQ(c.tiers, h200.tiers);
  EXPECT_EQ(c.device, h200.device);
  EXPECT_EQ(c.host_memory, h200.host_memory);
  EXPECT_EQ(cluster_of("H100-96GB-500W", 8, 8, 0, 0).value().tiers[0].bandwidth.value(), 450e9);
}

TEST(Hardware, PartsOfANode) {
  for (const std::int64_t gpus : {1, 2, 4, 8}) {
    const Cluster c = cluster_of("A100-80GB", gpus, 8, 600e9, 0).value();
    EXPECT_EQ(c.devices, gpus);
    EXPECT_EQ(c.devices_per_node, gpus);
    ASSERT_EQ(c.tiers.size(), 1U);
    EXPECT_EQ(c.tiers[0].domain, gpus);
    EXPECT_EQ(c.tiers[0].name, "nvlink");
  }
  EXPECT_EQ(cluster_of("A100-PCIe-80GB", 8, 8, 64e9, 0).value().tiers[0].name, "pcie");
  EXPECT_EQ(cluster_of("A100-PCIe-80GB", 8, 8, 64e9, 0).value().tiers[0].bandwidth.value(), 32e9);
}

TEST(Hardware, BridgesAreTheInnermostTier) {
  const Cluster c = cluster_of("H100-NVL", 16, 8, 0, 0).value();
  ASSERT_EQ(c.tiers.size(), 3U);
  EXPECT_EQ(c.tiers[0].domain, 2);
  EXPECT_EQ(c.tiers[1].domain, 8);
  const Cluster printed = cluster_of("H100-NVL", 16, 8, 400e9, 0).value();
  EXPECT_EQ(printed.tiers[0].bandwidth.value(), 200e9);
  EXPECT_EQ(printed.tiers[1].bandwidth, c.tiers[1].bandwidth);
  const Cluster without = cluster_of("H100-NVL", 16, 8, 128e9, 0).value();
  ASSERT_EQ(without.tiers.size(), 2U);
  EXPECT_EQ(without.tiers[0].name, "pcie");
  EXPECT_EQ(without.tiers[0].domain, 8);
}

TEST(Hardware, ErrorsNameWhatIsWrong) {
  const Error near = cluster_of("A100-80G", 8, 8, 0, 0).error();
  EXPECT_EQ(near.code, ErrorCode::kInvalid);
  EXPECT_NE(near.text().find("'A100-80G'"), std::string::npos);
  EXPECT_NE(near.text().find("did you mean 'A100-80GB'"), std::string::npos);
  EXPECT_NE(cluster_of("Ascend-910B", 8, 8, 0, 0).error().text().find("H800-80GB"),
            std::string::npos);
  EXPECT_NE(cluster_of("cpu-core", 8, 8, 0, 0).error().text().find("fabric"), std::string::npos);
  EXPECT_NE(cluster_of("H100-80GB", 12, 8, 0, 0).error().text().find("8 and 16"),
            std::string::npos);
  const double inf = std::numeric_limits<double>::infinity();
  for (const std::int64_t n : {-8, 0, 1 << 21}) {
    EXPECT_EQ(cluster_of("H100-80GB", n, 8, 0, 0).error().code, ErrorCode::kInvalid) << n;
    EXPECT_EQ(cluster_of("H100-80GB", 8, n, 0, 0).error().code, ErrorCode::kInvalid) << n;
  }
  for (const double rate : {inf, std::numeric_limits<double>::quiet_NaN(), 1e300}) {
    EXPECT_EQ(cluster_of("H100-80GB", 16, 8, rate, 0).error().code, ErrorCode::kInvalid) << rate;
    EXPECT_EQ(cluster_of("H100-80GB", 16, 8, 0, rate).error().code, ErrorCode::kInvalid) << rate;
  }
}

}  // namespace
}  // namespace orrery
