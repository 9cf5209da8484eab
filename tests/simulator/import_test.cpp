// Outputs of measuring tools -> samples: figures worked out by hand from the rows, and what must be
// refused, with its line.
#include <gtest/gtest.h>

#include <algorithm>

#include "core/cluster.h"
#include "simulator/calibration/samples.h"
#include "tests/simulator/tool_outputs.h"

namespace orrery::simulator {
namespace {

using tool_outputs::kAllGather;
using tool_outputs::kExchangeOfTwoHosts;
using tool_outputs::kNvbandwidth;
using tool_outputs::kNvbandwidthJson;
using tool_outputs::kSamples;
using tool_outputs::kTopology;

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  for (std::size_t at = text.find(from); at != std::string::npos;
       at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
  return text;
}

std::string without_line(const std::string& text, const std::string& part) {
  const std::size_t at = text.find(part);
  const std::size_t start = text.rfind('\n', at);
  return text.substr(0, start) + text.substr(text.find('\n', at));
}

// The text of all problems.
std::string refused(const Result<Measurements>& result) {
  EXPECT_FALSE(result.ok());
  if (result.ok()) return "";
  for (const Problem& p : result.error().problems) EXPECT_FALSE(p.hint.empty()) << p.message;
  return result.error().text();
}

bool warns(const Measurements& m, const std::string& part) {
  return std::any_of(m.notes.begin(), m.notes.end(), [&](const Note& note) {
    return note.warning && note.text.find(part) != std::string::npos;
  });
}

TransferKind kind_of(const Sample& s) {
  return static_cast<TransferKind>(s.which);
}

TEST(NcclTests, SizesAreOfTheWholeBuffer) {
  const Measurements m = import_measurements(kAllGather, "ag.txt").value();
  EXPECT_EQ(m.tool, "nccl-tests");
  EXPECT_EQ(m.device, "Made Up Accelerator");
  EXPECT_TRUE(m.notes.empty()) << m.notes.front().text;
  ASSERT_EQ(m.samples.size(), 6U) << "three rows, out of place and in place";
  const Sample& last = m.samples[4];
  EXPECT_EQ(last.op, SampleOp::kTransfer);
  EXPECT_EQ(kind_of(last), TransferKind::kGather);
  EXPECT_EQ(last.dtype, "fp32");
  EXPECT_EQ(last.bytes, 30e6) << "3/4 of 40 MB";
  EXPECT_DOUBLE_EQ(last.seconds, 211e-6);
  EXPECT_EQ(last.ranks, 4);
  EXPECT_EQ(last.nodes, 1);
  EXPECT_EQ(last.source, "ag.txt:15 all_gather_perf");
  EXPECT_EQ(m.samples[5].source, "ag.txt:15 all_gather_perf, in place");
}

TEST(NcclTests, TheOtherTests) {
  const std::string scatter = replaced(kAllGather, "all_gather_perf", "reduce_scatter_perf");
  const Sample part = import_nccl_tests(scatter, "f").value().samples[4];
  EXPECT_EQ(kind_of(part), TransferKind::kReduce);
  EXPECT_EQ(part.bytes, 30e6);
  // An all-reduce sends its buffer twice: busbw is 2 * 3/4 of algbw.
  std::string sum = replaced(kAllGather, "all_gather_perf", "all_reduce_perf");
  sum = replaced(replaced(sum, "142.18", "284.36"), "1.12", "2.24");
  const Sample whole = import_nccl_tests(sum, "f").value().samples[4];
  EXPECT_EQ(kind_of(whole), TransferKind::kReduce);
  EXPECT_EQ(whole.bytes, 60e6);
  EXPECT_EQ(whole.passes, 2);
  // Its columns give it away without its name.
  const Measurements nameless =
      import_nccl_tests(without_line(sum, "all_reduce_perf"), "f").value();
  EXPECT_EQ(nameless.samples[4].bytes, 60e6);
  const std::string broadcast = replaced(kAllGather, "all_gather_perf", "broadcast_perf");
  const Measurements both = import_nccl_tests(kAllGather + broadcast, "f").value();
  EXPECT_EQ(both.samples.size(), 6U);
  ASSERT_EQ(both.notes.size(), 1U);
  EXPECT_NE(both.notes[0].text.find("broadcast_perf"), std::string::npos);
}

TEST(NcclTests, LabelledInterleavedAndCut) {
  const Measurements m = import_nccl_tests(kExchangeOfTwoHosts, "x.txt").value();
  ASSERT_EQ(m.samples.size(), 3U) << "no exchange is in place";
  EXPECT_EQ(kind_of(m.samples[2]), TransferKind::kExchange);
  EXPECT_EQ(m.samples[2].bytes, 3e6);
  EXPECT_EQ(m.samples[2].ranks, 4);
  EXPECT_EQ(m.samples[2].nodes, 2);
  EXPECT_EQ(m.samples[2].dtype, "bf16");
  EXPECT_TRUE(warns(m, "x.txt:15: alltoall_perf: 1 torn rows"));
  EXPECT_TRUE(warns(m, "output is cut"));
}

TEST(NcclTests, RowsThatAreMissing) {
  const Measurements m = import_nccl_tests(without_line(kAllGather, "   16384 "), "f").value();
  EXPECT_EQ(m.samples.size(), 4U);
  EXPECT_TRUE(warns(m, "rows are missing")) << "the average is 71.23, not 47.86";
}

TEST(NcclTests, OlderTablesHaveNoReduction) {
  // The columns redop and root are not there.
  std::string old = replaced(kAllGather, "    none      -1", "");
  old = replaced(old, "   redop    root", "");
  EXPECT_EQ(import_nccl_tests(old, "f").value().samples[4].bytes, 30e6);
  // Or redop is blank below its header.
  const std::string blank = replaced(kAllGather, "    none", "        ");
  EXPECT_EQ(import_nccl_tests(blank, "f").value().samples[4].bytes, 30e6);
}

TEST(NcclTests, WrongElements) {
  std::string wrong = replaced(kAllGather, "142.18      0    211.0", "142.18      7    211.0");
  wrong = replaced(wrong, "0 OK", "7 FAILED");
  const Measurements m = import_nccl_tests(wrong, "f").value();
  EXPECT_EQ(m.samples.size(), 5U);
  EXPECT_TRUE(warns(m, "1 results with wrong elements"));
  const std::string unchecked = replaced(replaced(kAllGather, "0 OK", "7 FAILED"), "0\n", "N/A\n");
  EXPECT_NE(refused(import_nccl_tests(unchecked, "f")).find("check failed"), std::string::npos);
}

TEST(NcclTests, WhatNoMeasurementGives) {
  const auto with = [](const char* from, const char* to) {
    return refused(import_nccl_tests(replaced(kAllGather, from, to), "f.txt"));
  };
  EXPECT_NE(with("   211.0", "  -211.0").find("f.txt:15: time -211"), std::string::npos);
  EXPECT_NE(with("   211.0", "     0.0").find("f.txt:15: time 0"), std::string::npos);
  EXPECT_NE(with("   211.0", "   2110.").find("algbw says 189.57"), std::string::npos)
      << "size and time must agree with algbw";
  EXPECT_NE(with("142.18", "189.57").find("is not 0.75 of algbw"), std::string::npos);
  EXPECT_NE(with("    40000000 ", "   -40000000 ").find("is no size"), std::string::npos);
}

TEST(NcclTests, HeadersThatDoNotSayWhoTookPart) {
  std::string headless = kAllGather;
  for (int rank = 0; rank < 4; ++rank) headless = without_line(headless, "#  Rank");
  EXPECT_NE(refused(import_nccl_tests(headless, "f")).find("no line says which ranks"),
            std::string::npos);
  const std::string lost = without_line(kAllGather, "#  Rank  1");
  EXPECT_NE(refused(import_nccl_tests(lost, "f")).find("3 ranks up to rank 3"), std::string::npos);
  // Without MPI each process is rank 0 of its own group.
  const std::string alone = replaced(kExchangeOfTwoHosts, "#  Rank  2", "#  Rank  0");
  EXPECT_NE(refused(import_nccl_tests(alone, "f")).find("MPI=1"), std::string::npos);
  const std::string nameless = without_line(kAllGather, "all_gather_perf");
  EXPECT_NE(refused(import_nccl_tests(nameless, "f")).find("whose test is not said"),
            std::string::npos);
  const std::string uneven =
      replaced(kAllGather, "on     node-a device  3", "on     node-b device  0");
  EXPECT_NE(refused(import_nccl_tests(uneven, "f")).find("unequal numbers"), std::string::npos);
}

TEST(Nvbandwidth, BothForms) {
  const Measurements m = import_measurements(kNvbandwidth, "n.txt").value();
  EXPECT_EQ(m.tool, "nvbandwidth");
  EXPECT_EQ(m.device, "Made Up Accelerator (00000000:04:00)");
  ASSERT_EQ(m.samples.size(), 6U) << "two ways, two pairs; no kernel's, none of both ways at once";
  EXPECT_EQ(m.samples[0].op, SampleOp::kCopyToDevice);
  EXPECT_DOUBLE_EQ(m.samples[0].bytes / m.samples[0].seconds, 55e9);
  EXPECT_EQ(m.samples[2].op, SampleOp::kCopyToHost);
  EXPECT_DOUBLE_EQ(m.samples[2].bytes / m.samples[2].seconds, 50e9);
  EXPECT_EQ(m.samples[4].op, SampleOp::kCopyToPeer);
  EXPECT_EQ(m.samples[4].source, "n.txt:36 device_to_device_memcpy_read_ce, 0 to 1");
  const Measurements json = import_measurements(kNvbandwidthJson, "n.json").value();
  EXPECT_EQ(json.device, "Made Up Accelerator");
  ASSERT_EQ(json.samples.size(), 2U);
  EXPECT_DOUBLE_EQ(json.samples[1].bytes / json.samples[1].seconds, 40.5e9);
}

TEST(Nvbandwidth, WhatIsTorn) {
  EXPECT_NE(refused(import_nvbandwidth(replaced(kNvbandwidth, "53.00", "5e.00"), "n"))
                .find("n:15: host_to_device_memcpy_ce: '5e.00' is no bandwidth"),
            std::string::npos);
  EXPECT_NE(refused(import_nvbandwidth(replaced(kNvbandwidth, "     53.00", ""), "n"))
                .find("a row of 1 cells below 2 columns"),
            std::string::npos);
  EXPECT_NE(refused(import_nvbandwidth(replaced(kNvbandwidthJson, "40.5", "-1"), "n"))
                .find("/testcases/0/bandwidth_matrix/0/1"),
            std::string::npos);
}

TEST(Topology, Matrix) {
  const Measurements m = import_measurements(kTopology, "t.txt").value();
  ASSERT_EQ(m.nodes.size(), 1U);
  EXPECT_EQ(m.nodes[0].nics, 2);
  ASSERT_EQ(m.nodes[0].links.size(), 4U);
  EXPECT_EQ(m.nodes[0].links[0], (std::vector<std::string>{"X", "NV18", "NV18", "SYS"}));
}

TEST(Topology, WhatIsTorn) {
  EXPECT_NE(refused(import_topology(replaced(kTopology, "GPU3\tSYS", "GPU3\tPHB"), "t"))
                .find("GPU0 reaches GPU3 by SYS, but back by PHB"),
            std::string::npos);
  EXPECT_NE(refused(import_topology(without_line(kTopology, "GPU3\tSYS"), "t"))
                .find("names 4 devices, 3 have a row"),
            std::string::npos);
  EXPECT_NE(refused(import_topology(replaced(kTopology, "GPU1\tNV18", "GPU1\tNVx"), "t"))
                .find("t:3: 'NVx' between GPU1 and GPU0 is no link"),
            std::string::npos);
}

TEST(Samples, ReadAndWritten) {
  const Measurements m = import_measurements(kSamples, "s.json").value();
  EXPECT_EQ(m.device, "Made Up Accelerator");
  ASSERT_EQ(m.samples.size(), 6U);
  EXPECT_EQ(m.samples[2].groups, 8);
  EXPECT_EQ(m.samples[3].op, SampleOp::kPass);
  EXPECT_EQ(static_cast<PassKind>(m.samples[3].which), PassKind::kNorm);
  EXPECT_EQ(m.facts.at("compute_slowdown"), 1.2);
  const Measurements again = parse_samples(to_json(m).dump(), "s.json").value();
  EXPECT_EQ(again.samples, m.samples);
  EXPECT_EQ(again.facts, m.facts);
}

TEST(Samples, WhatNoMeasurementGives) {
  const auto with = [](const char* from, const char* to) {
    const auto result = parse_samples(replaced(kSamples, from, to), "s.json");
    EXPECT_FALSE(result.ok());
    return result.ok() ? "" : result.error().text();
  };
  EXPECT_NE(with("\"seconds\": 0.01", "\"seconds\": 0").find("/samples/1/seconds: is no time"),
            std::string::npos);
  EXPECT_NE(with("\"gemm\"", "\"gem\"").find("did you mean 'gemm'"), std::string::npos);
  EXPECT_NE(with("\"flops\": 1e12, ", "").find("a product without FLOPs"), std::string::npos);
  EXPECT_NE(with("\"nodes\": 2", "\"nodes\": 3").find("4 ranks do not divide over 3 nodes"),
            std::string::npos);
  EXPECT_NE(with("_version\": 1", "_version\": 2").find("schema_version"), std::string::npos);
  EXPECT_NE(with("\"spread\"", "\"spraed\"").find("did you mean 'spread'"), std::string::npos);
}

TEST(Import, WhatIsNoneOfThese) {
  for (const char* text : {"", "hello", "{\"x\": 1}", "[1]", "{"}) {
    const auto result = import_measurements(text, "f");
    ASSERT_FALSE(result.ok()) << text;
    EXPECT_EQ(result.error().code, ErrorCode::kInvalid);
    EXPECT_EQ(result.error().problems[0].where.substr(0, 1), "f");
  }
}

}  // namespace
}  // namespace orrery::simulator
