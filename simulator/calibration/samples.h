// Samples: what measuring tools found one op to take, and facts about a machine that are no times.
// All that `calibrate --from` reads comes down to these; text in, samples out, no input or output.
//
// File form: {"schema_version": 1, "device": NAME, "samples": [{"op", "dtype", "flops", "bytes",
// "groups", "ranks", "nodes", "passes", "seconds", "spread", "count", "source"}],
// "facts": {NAME: number}}.
// `op`, `bytes` where there are any, and `seconds` must be there; other keys of the file and of
// its "device", where that is an object, are the tool's own.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/result.h"

namespace orrery::simulator {

enum class SampleOp : std::uint8_t {
  kGemm,
  kGrouped,
  kAttention,   // forward or backward: its FLOPs say how much
  kPass,        // which: PassKind
  kTransfer,    // which: TransferKind
  kLaunch,      // of one kernel
  kCopyToHost,  // pinned memory
  kCopyToDevice,
  kCopyToPeer,  // device to device, one pair at a time
};

struct Sample {
  SampleOp op = SampleOp::kLaunch;
  std::int32_t which = 0;
  std::string dtype;  // "bf16", "fp32", "fp64"; others are kept, but no product of theirs fits
  double flops = 0;   // of the call, multiply-adds count two
  double bytes = 0;   // read and written; of a transfer: what a rank sends, own part excluded
  std::int64_t groups = 1;  // experts of a grouped product
  std::int64_t ranks = 1, nodes = 1;
  std::int64_t passes = 1;  // of a transfer over its links: 2 of an all-reduce, within its bytes
  double seconds = 0;       // median
  double spread = 0;        // (p90 - p10) / median of the repetitions; 0: not known
  std::int64_t count = 1;   // repetitions
  std::string source;       // "nccl.txt:31 all_gather_perf, in place"
  bool operator==(const Sample&) const = default;
};

// "gemm", "grouped", "attention", the names of passes and transfers, "launch", "copy_to_host",
// "copy_to_device", "copy_to_peer".
std::string name_of(const Sample& sample);
std::string name_of(SampleOp op);  // of kPass and kTransfer: ""

// Links between the devices of one node, as `nvidia-smi topo -m` has them.
struct NodeTopology {
  std::string place;
  std::vector<std::vector<std::string>> links;  // [device][device]: "X", "NV18", "PHB", "SYS", ...
  std::int64_t nics = 0;
};

struct Note {
  bool warning = false;
  std::string text;
};

// What one file says.
struct Measurements {
  std::string file;    // as it was given
  std::string tool;    // "nccl-tests", "nvbandwidth", "nvidia-smi topo -m", "samples"
  std::string device;  // as the tool names it; may be empty
  std::vector<Sample> samples;
  std::vector<NodeTopology> nodes;
  std::map<std::string, double> facts;  // "compute_slowdown", "link_slowdown", "noise", ...
  std::vector<Note> notes;              // what was left out, and why
};

// kInvalid: not of this form, or a number that no measurement gives.
Result<Measurements> parse_samples(const std::string& text, const std::string& place);
Json to_json(const Sample& sample);
Json to_json(const Measurements& measurements);  // samples and facts

// Text tables of nccl-tests, any number of them in one file, other lines between.
Result<Measurements> import_nccl_tests(const std::string& text, const std::string& place);
// nvbandwidth's text or its JSON (-j).
Result<Measurements> import_nvbandwidth(const std::string& text, const std::string& place);
Result<Measurements> import_topology(const std::string& text, const std::string& place);

// Whichever of these it is by its content, never by its name. kInvalid where it is none.
Result<Measurements> import_measurements(const std::string& text, const std::string& place);

}  // namespace orrery::simulator
