// Entries from samples: a profile whose figures are round, samples worked out by hand from it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "simulator/calibration/fit_samples.h"
#include "simulator/calibration/topology_checks.h"
#include "tests/simulator/tool_outputs.h"

namespace orrery::simulator {
namespace {

// Nodes of `node` devices: 300 GB/s inside, `outer` outside; 100 TFLOP/s, 1 TB/s, launch 5 us.
Cluster base_of(std::int64_t node, std::int64_t devices, double outer = 10e9) {
  Cluster c;
  c.name = "base";
  c.devices = devices;
  c.devices_per_node = node;
  c.device.name = "made-up";
  c.device.peak_bf16 = c.device.peak_fp32 = c.device.peak_fp64 = FlopsPerSecond(100e12);
  c.device.memory_bandwidth = BytesPerSecond(1e12);
  c.device.host_bandwidth = BytesPerSecond(25e9);
  c.device.launch = Seconds(5e-6);
  const EfficiencyCurve flat{{1e6}, {0.5}};
  c.device.gemm = c.device.grouped = c.device.attention = c.device.memory_eff = flat;
  c.tiers.push_back({"nvlink", node, BytesPerSecond(300e9), Seconds(1e-6)});
  if (devices > node) c.tiers.push_back({"ib", devices, BytesPerSecond(outer), Seconds(9e-6)});
  return c;
}

Measurements made_of(std::vector<Sample> samples) {
  Measurements m;
  m.file = "made.json";
  m.samples = std::move(samples);
  return m;
}

Sample product(SampleOp op, double flops, double bytes, double seconds) {
  Sample s;
  s.op = op;
  s.dtype = "bf16";
  s.flops = flops;
  s.bytes = bytes;
  s.seconds = seconds;
  return s;
}

Sample transfer(TransferKind kind, double bytes, std::int64_t ranks, std::int64_t nodes,
                double seconds) {
  Sample s;
  s.op = SampleOp::kTransfer;
  s.which = static_cast<std::int32_t>(kind);
  s.bytes = bytes;
  s.ranks = ranks;
  s.nodes = nodes;
  s.seconds = seconds;
  return s;
}

bool says(const SampleFit& fit, bool warning, const std::string& part) {
  return std::any_of(fit.notes.begin(), fit.notes.end(), [&](const Note& note) {
    return note.warning == warning && note.text.find(part) != std::string::npos;
  });
}

const EfficiencyCurve& curve_of(const SampleFit& fit, std::size_t tier, TransferKind kind) {
  return fit.profile.tiers[tier].efficiency[static_cast<std::size_t>(kind)];
}

TEST(FitSamples, OneHost) {
  // 11 us at rest: less 5 of launch, over 2 steps of 4 ranks. 30 MB in 200 us are 150 GB/s of 300.
  const Measurements m = import_measurements(tool_outputs::kAllGather, "ag.txt").value();
  const SampleFit fit = fit_samples(base_of(4, 4), {m}).value();
  EXPECT_NEAR(fit.profile.tiers[0].latency.value(), 3e-6, 1e-15);
  const EfficiencyCurve& curve = curve_of(fit, 0, TransferKind::kGather);
  ASSERT_EQ(curve.size, std::vector<double>{30e6}) << "in and out of place are one point";
  EXPECT_NEAR(curve.fraction[0], 0.5, 1e-9);
  EXPECT_TRUE(curve_of(fit, 0, TransferKind::kReduce).empty());
  EXPECT_NEAR(sample_time(fit.profile, m.samples[4]), 211e-6, 1e-12);
  const auto row = std::find_if(fit.entries.begin(), fit.entries.end(), [](const SampleEntry& e) {
    return name_of(e.entry) == "tiers/0/efficiency/gather/0";
  });
  ASSERT_NE(row, fit.entries.end());
  EXPECT_EQ(row->samples, 6);
  EXPECT_EQ(row->sources, std::vector<std::string>{"ag.txt"});
  EXPECT_DOUBLE_EQ(row->valid_to_s, 211e-6);
  EXPECT_NEAR(row->after_s / row->measured_s, 1, 1e-2);
  EXPECT_LT(row->before_s / row->measured_s, 0.6);
}

TEST(FitSamples, SeveralHosts) {
  // 24 us at rest: (24 - 5) / 2. Of 3 MB that a rank sends, 2/3 leave its host: 2 MB in 400 us are
  // half of 10 GB/s.
  const Measurements m = import_measurements(tool_outputs::kExchangeOfTwoHosts, "x").value();
  const SampleFit fit = fit_samples(base_of(2, 8), {m}).value();
  EXPECT_NEAR(fit.profile.tiers[1].latency.value(), 9.5e-6, 1e-15);
  EXPECT_EQ(fit.profile.tiers[0].latency.value(), 1e-6) << "not measured";
  const EfficiencyCurve& curve = curve_of(fit, 1, TransferKind::kExchange);
  ASSERT_EQ(curve.size, std::vector<double>{2e6});
  EXPECT_NEAR(curve.fraction[0], 0.5, 1e-9);
  EXPECT_TRUE(curve_of(fit, 0, TransferKind::kExchange).empty());
  EXPECT_TRUE(says(fit, true, "tiers inside were not measured"));
  Measurements both = m;
  both.samples.push_back(transfer(TransferKind::kExchange, 3e6, 2, 1, 1e-3));
  const SampleFit whole = fit_samples(base_of(2, 8), {both}).value();
  EXPECT_FALSE(says(whole, true, "tiers inside were not measured"));
  EXPECT_EQ(curve_of(whole, 1, TransferKind::kExchange).size, std::vector<double>{2e6});
}

TEST(FitSamples, HalfOfEachHost) {
  // Four ranks on two hosts of a cluster with four devices each: the same bytes leave a host.
  const Measurements m = import_measurements(tool_outputs::kExchangeOfTwoHosts, "x").value();
  const SampleFit fit = fit_samples(base_of(4, 8), {m}).value();
  EXPECT_EQ(curve_of(fit, 1, TransferKind::kExchange).size, std::vector<double>{2e6});
}

TEST(FitSamples, WhatAnInnerTierBoundsSaysNothingOfTheOuter) {
  // 3 MB sent are a buffer of 4 MB: a half of it enters each rank of a host (2 MB at 300 GB/s:
  // 6.7 us), a quarter goes over each outer link (1 MB at 1 TB/s: 1 us).
  const SampleFit fit =
      fit_samples(base_of(2, 4, 1e12),
                  {made_of({transfer(TransferKind::kGather, 3e6, 4, 2, 23e-6 + 6.8e-6)})})
          .value();
  EXPECT_TRUE(curve_of(fit, 1, TransferKind::kGather).empty());
  EXPECT_TRUE(says(fit, false, "tiers inside"));
  EXPECT_TRUE(says(fit, false, "tiers/1/latency (ib): no sizes so small"));
}

TEST(FitSamples, RepetitionsAreTheirMedian) {
  std::vector<Sample> samples;
  for (const double us : {50.0, 60.0, 500.0}) {
    samples.push_back(transfer(TransferKind::kReduce, 9e6, 2, 1, us * 1e-6));
  }
  // 60 us less 5 of launch and 1 of latency: 9 MB in 54 us, of 300 GB/s.
  const SampleFit fit = fit_samples(base_of(2, 2), {made_of(samples)}).value();
  EXPECT_NEAR(curve_of(fit, 0, TransferKind::kReduce).fraction.at(0), 9e6 / 54e-6 / 300e9, 1e-12);
}

TEST(FitSamples, AllReducesStandBackBehindReduceScatters) {
  Sample twice = transfer(TransferKind::kReduce, 18e6, 2, 1, 106e-6);
  twice.passes = 2;
  const Sample once = transfer(TransferKind::kReduce, 9e6, 2, 1, 66e-6);
  const SampleFit both = fit_samples(base_of(2, 2), {made_of({once, twice})}).value();
  EXPECT_EQ(curve_of(both, 0, TransferKind::kReduce).size, std::vector<double>{9e6});
  EXPECT_TRUE(says(both, false, "1 of its samples are all-reduces"));
  // 18 MB in 100 us of 300 GB/s.
  const SampleFit alone = fit_samples(base_of(2, 2), {made_of({twice})}).value();
  EXPECT_NEAR(curve_of(alone, 0, TransferKind::kReduce).fraction.at(0), 0.6, 1e-9);
}

TEST(FitSamples, ALinkThatBeatsItsPeakIsKeptAndSaid) {
  const SampleFit fit =
      fit_samples(base_of(2, 2), {made_of({transfer(TransferKind::kReduce, 360e6, 2, 1, 806e-6)})})
          .value();
  EXPECT_NEAR(curve_of(fit, 0, TransferKind::kReduce).fraction.at(0), 1.5, 1e-9) << "450 of 300";
  // With 5 us of launch and 1 of latency in its time: 1.2 ms of 0.806.
  EXPECT_TRUE(says(fit, true, "beats the tier's bandwidth by 48.9 %"));
}

TEST(FitSamples, Device) {
  Measurements m = import_measurements(tool_outputs::kSamples, "s.json").value();
  m.samples.erase(m.samples.begin() + 4);  // the exchange
  const SampleFit fit = fit_samples(base_of(4, 4), {m}).value();
  const DeviceProfile& d = fit.profile.device;
  EXPECT_DOUBLE_EQ(d.launch.value(), 4e-6);
  EXPECT_NEAR(d.host_bandwidth.value(), 1e9 / (0.025 - 4e-6), 1);
  EXPECT_EQ(d.gemm.size, (std::vector<double>{1e6, 1e12})) << "the base's first point goes along";
  EXPECT_EQ(d.gemm.fraction, (std::vector<double>{1, 1}))
      << "1e12 in 10 ms are the peak of 100 TFLOP/s";
  EXPECT_FALSE(says(fit, true, "beats")) << "by 0.04 %: noise";
  EXPECT_EQ(d.grouped.size, (std::vector<double>{1e6, 1e11})) << "one of eight experts";
  EXPECT_NEAR(d.grouped.fraction[1], 8e11 / (0.02 - 4e-6) / 100e12, 1e-12);
  const EfficiencyCurve& norm = d.passes[static_cast<std::size_t>(PassKind::kNorm)];
  EXPECT_NEAR(norm.at(1e9), 1, 1e-2);
  EXPECT_EQ(fit.profile.compute_slowdown, 1.2);
  EXPECT_EQ(fit.profile.link_slowdown, 1);
  EXPECT_EQ(d.attention, base_of(4, 4).device.attention) << "not measured";
  for (const SampleEntry& e : fit.entries) {
    EXPECT_NEAR(e.after_s / e.measured_s, 1, 5e-3) << name_of(e.entry);
  }
}

TEST(FitSamples, SamplesThatSayNothingOfACurve) {
  const SampleFit fit =
      fit_samples(base_of(4, 4),
                  {made_of({product(SampleOp::kGemm, 1e6, 1e3, 5.5e-6),      // a launch
                            product(SampleOp::kGemm, 1e9, 1e8, 205e-6),      // 1e8 at 0.5 TB/s
                            product(SampleOp::kGemm, 1e10, 1e6, 205e-6)})})  // 0.5 of the peak
          .value();
  EXPECT_EQ(fit.profile.device.gemm.size, (std::vector<double>{1e6, 1e10}));
  EXPECT_NEAR(fit.profile.device.gemm.fraction[1], 0.5, 1e-9);
  EXPECT_TRUE(says(fit, false, "1 of its samples are hardly longer than a launch"));
  EXPECT_TRUE(says(fit, false, "1 of its samples take what their bytes take"));
}

TEST(FitSamples, APeakThatIsBeaten) {
  Sample fp8 = product(SampleOp::kGemm, 1e12, 1e6, 1e-3);
  fp8.dtype = "fp8_e4m3";
  const SampleFit fit =
      fit_samples(base_of(4, 4), {made_of({product(SampleOp::kGemm, 1e12, 1e6, 8e-3), fp8})})
          .value();
  EXPECT_EQ(fit.profile.device.gemm.fraction.back(), 1);
  EXPECT_TRUE(says(fit, true, "gemm: a measurement beats device/peak_bf16 by 25 %"));
  EXPECT_TRUE(says(fit, false, "1 products of fp8_e4m3"));
}

TEST(FitSamples, BeyondWhatWasMeasuredTheBaseGoesOn) {
  Cluster base = base_of(4, 4);
  base.device.gemm = {{1e8, 1e9, 1.5e10, 1e12}, {0.1, 0.2, 0.4, 0.9}};
  // 0.3 of the peak where the base has 0.2, 0.45 at its 0.4.
  const SampleFit fit =
      fit_samples(base, {made_of({product(SampleOp::kGemm, 1e9, 0, 5e-6 + 1e9 / 30e12),
                                  product(SampleOp::kGemm, 1.5e10, 0, 5e-6 + 1.5e10 / 45e12)})})
          .value();
  const EfficiencyCurve& curve = fit.profile.device.gemm;
  EXPECT_EQ(curve.size, base.device.gemm.size);
  const std::vector<double> expected = {0.15, 0.3, 0.45, 1};  // the last: 1.0125, held at 1
  for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(curve.fraction[i], expected[i], 1e-9) << i;
}

TEST(FitSamples, AHiddenLaunchIsNoFasterDevice) {
  // 8 us, of which 5 of a launch that ran beside: 6 us at the peak of 1 TB/s, not 3.
  Sample pass;
  pass.op = SampleOp::kPass;
  pass.bytes = 6e6;
  pass.seconds = 8e-6;
  const SampleFit fit = fit_samples(base_of(4, 4), {made_of({pass})}).value();
  EXPECT_EQ(fit.profile.device.passes[0].at(6e6), 1);
  EXPECT_FALSE(says(fit, true, "beats"));
}

TEST(FitSamples, HostCopiesByTheSlowerWay) {
  const Measurements m = import_measurements(tool_outputs::kNvbandwidth, "n").value();
  const SampleFit fit = fit_samples(base_of(2, 2), {m}).value();
  // 50 and 52 GB/s to the host, 55 and 53 to the device: 51. A launch is 0.05 % of it.
  EXPECT_NEAR(fit.profile.device.host_bandwidth.value(), 51e9, 0.05e9);
  EXPECT_TRUE(says(fit, true, "less than half of it")) << "80 GB/s between devices, 300 is stated";
}

TEST(FitSamples, SamplesOfAnotherMachine) {
  const auto refused = [](const Cluster& base, const Sample& s) {
    const auto result = fit_samples(base, {made_of({s})});
    EXPECT_FALSE(result.ok());
    return result.ok() ? "" : result.error().text();
  };
  EXPECT_NE(refused(base_of(4, 8), transfer(TransferKind::kGather, 1e6, 8, 1, 1e-3))
                .find("8 ranks on a host, but base has 4 devices a node"),
            std::string::npos);
  EXPECT_NE(refused(base_of(4, 4), transfer(TransferKind::kGather, 1e6, 8, 2, 1e-3))
                .find("measured over 2 hosts, but base is one node"),
            std::string::npos);
  EXPECT_NE(refused(base_of(4, 8), transfer(TransferKind::kGather, 1e6, 6, 2, 1e-3))
                .find("3 ranks a host do not divide"),
            std::string::npos);
}

TEST(TopologyChecks, PairsWithoutNvlink) {
  const Measurements m = import_measurements(tool_outputs::kTopology, "t.txt").value();
  Cluster four = base_of(4, 4);
  const std::vector<Note> notes = check_topology(four, {m});
  ASSERT_EQ(notes.size(), 1U);
  EXPECT_TRUE(notes[0].warning);
  EXPECT_NE(notes[0].text.find("GPU0 and GPU3 are joined by SYS: 1 of 6 pairs have no NVLink"),
            std::string::npos)
      << notes[0].text;
  Cluster eight = base_of(8, 8);
  EXPECT_NE(check_topology(eight, {m}).at(0).text.find("4 devices in this node, 8 in base"),
            std::string::npos);
}

TEST(TopologyChecks, ATierThatTheBaseLacks) {
  Measurements m = import_measurements(tool_outputs::kTopology, "t.txt").value();
  m.nodes[0].links[0][3] = m.nodes[0].links[3][0] = "NV18";
  Cluster flat = base_of(4, 8);
  flat.tiers.erase(flat.tiers.begin());
  Cluster unmeasured = flat;
  EXPECT_TRUE(check_topology(unmeasured, {m}).at(0).warning);
  EXPECT_EQ(unmeasured, flat);
  const Measurements copies = import_measurements(tool_outputs::kNvbandwidth, "n").value();
  check_topology(flat, {m, copies});
  ASSERT_EQ(flat.tiers.size(), 2U);
  EXPECT_EQ(flat.tiers[0].name, "nvlink");
  EXPECT_EQ(flat.tiers[0].domain, 4);
  EXPECT_NEAR(flat.tiers[0].bandwidth.value(), 80e9, 1);
}

}  // namespace
}  // namespace orrery::simulator
