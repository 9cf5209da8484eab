// Cluster: device type, devices a node, nodes, link tiers; with the device and stack profiles that
// it names. Every number cites its source in the file's "source" fields.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/program/work.h"
#include "core/result.h"
#include "core/units.h"

namespace orrery {

// Efficiency of an op class against its size: points (size, fraction of peak), interpolated in the
// logarithm of size, flat outside the measured range.
struct EfficiencyCurve {
  std::vector<double> size;
  std::vector<double> fraction;
  double at(double x) const;
  // Between which points x lies: (1 - t) of `below`, t of the next one.
  struct Place {
    std::size_t below = 0;
    double t = 0;
  };
  Place place(double x) const;
  bool empty() const { return size.empty(); }
  bool operator==(const EfficiencyCurve&) const = default;
};

// Of what a datasheet promises, what large ops reach: free parameters of a device
// (simulator/stages/parameters.h).
struct Attainable {
  double product = 0.8;       // of the peak, by large products of 16 bit
  double low_product = 0.65;  // the same of 8 bit
  double attention = 0.5;     // of the 16 bit peak, forward
  double attention_backward = 0.4;
  double memory = 0.85;  // of the bandwidth, by large passes
  bool operator==(const Attainable&) const = default;
};

struct DeviceProfile {
  std::string name;
  std::string family;  // whose attainable shares are alike: "ampere", "hopper"
  FlopsPerSecond peak_bf16, peak_fp32, peak_fp64;
  FlopsPerSecond peak_fp16;            // where a file is silent: peak_bf16
  FlopsPerSecond peak_tf32, peak_fp8;  // of matrix units; 0: it has none
  BytesPerSecond memory_bandwidth;
  Bytes memory;                                       // usable memory is memory minus reserved
  Bytes reserved;                                     // context, allocator and communicator reserve
  std::int64_t processors = 0;                        // SMs, compute units; 0: not known
  Bytes l2_bytes;                                     // of the last level of cache; 0: not known
  double power_w = 0;                                 // the limit of the board; 0: not known
  Seconds launch;                                     // host cost of one kernel
  BytesPerSecond host_bandwidth;                      // copies to or from the host, one direction
  EfficiencyCurve gemm;                               // size: FLOPs of the call
  EfficiencyCurve grouped;                            // size: FLOPs of one expert's part
  EfficiencyCurve attention;                          // size: FLOPs of the call
  EfficiencyCurve memory_eff;                         // size: bytes moved, by passes of every kind
  std::array<EfficiencyCurve, kNumPassKinds> passes;  // of one kind; empty: as memory_eff
  Attainable attainable;
  FlopsPerSecond peak(DType dtype) const;  // of integers: the fp32 peak
  const EfficiencyCurve& pass(PassKind kind) const {
    const EfficiencyCurve& own = passes[static_cast<std::size_t>(kind)];
    return own.empty() ? memory_eff : own;
  }
  bool operator==(const DeviceProfile&) const = default;
};

// Kinds of transfers, each with a curve of its own: a sum costs more than a copy.
enum class TransferKind : std::uint8_t { kGather, kReduce, kExchange };
inline constexpr int kNumTransferKinds = 3;
const char* name_of(TransferKind kind);  // "gather", "reduce", "exchange"

// One tier of links: ranks that share a domain of `domain` devices talk over it.
struct LinkTier {
  std::string name;          // "nvlink", "ib", "shm"
  std::int64_t domain = 1;   // devices in one domain; the last tier spans the cluster
  BytesPerSecond bandwidth;  // a device, one direction
  Seconds latency;           // of one message step
  double cpu = 0;            // share of a core that a member's transfer takes meanwhile
  double spread = 0;         // relative spread of transfers: see Cluster::spread
  // Devices in a row that share one link of this tier (the NIC of a node): `bandwidth` is that of
  // the link, and transfers beside each other part it. 0: every device has its own, and what runs
  // beside is not priced.
  std::int64_t shared_by = 0;
  double attainable = 0.8;  // of the bandwidth, by large collectives: a free parameter
  // The switches of this tier sum what passes them (NVLink SHARP, InfiniBand SHARP): an all-reduce
  // may send each byte once instead of twice. What is priced as a ring makes no use of it.
  bool in_network_reduction = false;
  // Links below this tier over its own (a spine of 3:1 has 3): of its bandwidth a device has the
  // 1 / oversubscription part when all talk over it.
  double oversubscription = 1;
  // No switch: a device's bandwidth is split over links to each other device of the domain (NVLink
  // bridges, HCCS, Infinity Fabric), so a group has only those to its members.
  bool mesh = false;
  // Fraction of the bandwidth against the bytes that a rank moves over this tier; empty: 1. More
  // than 1 where bursts pass a shaped link faster.
  std::array<EfficiencyCurve, kNumTransferKinds> efficiency = {};
  // The part of `bandwidth` that a device has towards `members` ranks of its domain, itself one of
  // them, when all of them talk: 1 where neither oversubscription nor mesh is set.
  double share_of(std::int64_t members) const;
  bool operator==(const LinkTier&) const = default;
};

// What a collective sends where. `kTiers`: rings over the tiers, each byte enters a domain once
// (the vendors' libraries). `kPairs`: every member sends to every other on its own (Orrery over
// MPI).
enum class CollectiveAlgorithm : std::uint8_t { kTiers, kPairs };
const char* name_of(CollectiveAlgorithm algorithm);  // "tiers", "pairs"

struct Cluster {
  std::string name;
  DeviceProfile device;
  std::int64_t devices_per_node = 1;
  std::int64_t devices = 1;
  std::vector<LinkTier> tiers;  // from the innermost
  double compute_slowdown = 1;  // of compute while a collective runs beside it, >= 1
  double link_slowdown = 1;     // of a collective while compute runs beside it, >= 1
  // Relative spread of what a rank takes from one collective to the next: of a group the last is
  // waited for. By it the simulator stretches compute, and transfers by their tier's (op_cost.h).
  double spread = 0;
  double uncertainty = 0.25;  // relative half-width of the p10-p90 interval of a step
  Bytes host_memory;          // of a node, for what moves there; 0: not known
  CollectiveAlgorithm collectives = CollectiveAlgorithm::kTiers;
  std::int64_t cores_per_node = 0;     // local CPU: cores that the ranks of a node share; else 0
  std::int64_t nodes_per_machine = 1;  // nodes that share the cores of one node: a lab's
  std::string sha256;                  // of to_json(cluster).dump(-1)
  bool operator==(const Cluster&) const = default;
};

// `name` is "<template>x<devices>" ("h800x256"), a template alone where it fixes its size
// ("local-cpu"), or a file. `devices` is a multiple of the template's devices a node, or fewer than
// one node has: then the node and its link domains are cut to them.
Result<Cluster> load_cluster(const std::string& name);
// A template or a complete cluster file. `devices` is the size asked for, 0 where the text fixes
// it.
Result<Cluster> parse_cluster(const std::string& text, const std::string& place,
                              std::int64_t devices);
// The same of JSON inside another file; `place` is "file:/json/pointer".
Result<Cluster> cluster_from_json(const Json& json, const std::string& place, std::int64_t devices);
// A complete cluster file, device included, that reads back to an equal Cluster, bit for bit.
Json to_json(const Cluster& cluster);

}  // namespace orrery
