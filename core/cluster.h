// Cluster: device type, devices a node, nodes, link tiers; with the device and stack profiles that
// it names. Every number cites its source in the file's "source" fields.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/program/block.h"
#include "core/result.h"
#include "core/units.h"

namespace orrery {

// Efficiency of an op class against its size: points (size, fraction of peak), interpolated in the
// logarithm of size, flat outside the measured range.
struct EfficiencyCurve {
  std::vector<double> size;
  std::vector<double> fraction;
  double at(double x) const;
  bool operator==(const EfficiencyCurve&) const = default;
};

struct DeviceProfile {
  std::string name;
  FlopsPerSecond peak_bf16, peak_fp32, peak_fp64;
  BytesPerSecond memory_bandwidth;
  Bytes memory;                            // usable memory is memory minus reserved
  Bytes reserved;                          // context, allocator and communicator reserve
  Seconds launch;                          // host cost of one kernel
  BytesPerSecond host_bandwidth;           // copies to or from the host, one direction
  EfficiencyCurve gemm;                    // size: FLOPs of the call
  EfficiencyCurve grouped;                 // size: FLOPs of one expert's part
  EfficiencyCurve attention;               // size: FLOPs of the call
  EfficiencyCurve memory_eff;              // size: bytes moved
  FlopsPerSecond peak(DType dtype) const;  // of integers: the fp32 peak
  bool operator==(const DeviceProfile&) const = default;
};

// One tier of links: ranks that share a domain of `domain` devices talk over it.
struct LinkTier {
  std::string name;          // "nvlink", "ib", "shm"
  std::int64_t domain = 1;   // devices in one domain; the last tier spans the cluster
  BytesPerSecond bandwidth;  // a device, one direction
  Seconds latency;           // of one message step
  bool operator==(const LinkTier&) const = default;
};

struct Cluster {
  std::string name;
  DeviceProfile device;
  std::int64_t devices_per_node = 1;
  std::int64_t devices = 1;
  std::vector<LinkTier> tiers;      // from the innermost
  double compute_slowdown = 1;      // of compute while a collective runs beside it, >= 1
  double link_slowdown = 1;         // of a collective while compute runs beside it, >= 1
  double uncertainty = 0.25;        // relative half-width of the p10-p90 interval of a step
  Bytes host_memory;                // of a node, for what moves there; 0: not known
  std::int64_t cores_per_node = 0;  // local CPU: cores that the ranks of a node share; else 0
  std::string sha256;               // of to_json(cluster).dump(-1)
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
