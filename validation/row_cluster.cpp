// Devices by their data sheets, over the efficiency curves of configs/clusters/h100.json. To be
// replaced by core/hardware.
#include "validation/row_cluster.h"

#include <fmt/format.h>

#include <algorithm>

namespace orrery::validation {
namespace {

struct DeviceWord {
  const char* word;
  double tflop_s, fp32_tflop_s;  // dense bf16 of the tensor cores; fp32 outside them
  double memory_gbyte_s, memory_gib;
  double link_gbyte_s;  // NVLink or PCIe of a device, one direction
  double nic_gbit_s;    // of a device, where the row says nothing
};

// NVIDIA's data sheets; memory as the driver reports it. The 96 GB part of torchtitan's reports has
// HBM2e. H800 and A800 have fewer links.
constexpr DeviceWord kDevices[] = {
    {"A100-40GB", 312, 19.5, 1555, 39.4, 300, 200},
    {"A100-80GB", 312, 19.5, 2039, 79.1, 300, 200},
    {"A100-PCIe-80GB", 312, 19.5, 1935, 79.1, 32, 100},
    {"A800-80GB", 312, 19.5, 2039, 79.1, 200, 200},
    {"H100-80GB", 989, 67, 3350, 79.6, 450, 400},
    {"H100-96GB-500W", 989, 67, 2400, 95.0, 450, 400},
    {"H200-141GB", 989, 67, 4800, 139.8, 450, 400},
    {"H800-80GB", 989, 67, 3350, 79.6, 200, 400},
};

const DeviceWord* find_device(const std::string& word) {
  const auto* found = std::find_if(std::begin(kDevices), std::end(kDevices),
                                   [&](const DeviceWord& d) { return word == d.word; });
  return found == std::end(kDevices) ? nullptr : found;
}

}  // namespace

Result<Cluster> cluster_of(const std::string& gpu, std::int64_t gpus, std::int64_t gpus_per_node,
                           double intra_node_bytes_per_s_both_directions,
                           double inter_node_bits_per_s_per_gpu) {
  const DeviceWord* device = find_device(gpu);
  if (device == nullptr) {
    return Error::of(ErrorCode::kInvalid, "gpu", "no device profile of '" + gpu + "'");
  }
  const std::int64_t per_node = std::min(gpus, gpus_per_node);
  static const Result<Cluster> base = load_cluster("h100x16");
  if (!base.ok()) return base.error();
  Cluster c = base.value();
  c.name = fmt::format("{}x{}", gpu, gpus);
  c.device.name = gpu;
  c.device.peak_bf16 = FlopsPerSecond(device->tflop_s * 1e12);
  c.device.peak_fp32 = FlopsPerSecond(device->fp32_tflop_s * 1e12);
  c.device.memory_bandwidth = BytesPerSecond(device->memory_gbyte_s * 1e9);
  c.device.memory =
      Bytes(static_cast<std::int64_t>(device->memory_gib * static_cast<double>(kGiB.value())));
  c.devices = gpus;
  c.devices_per_node = per_node;
  const double link = intra_node_bytes_per_s_both_directions > 0
                          ? intra_node_bytes_per_s_both_directions / 2
                          : device->link_gbyte_s * 1e9;
  c.tiers.front().domain = per_node;
  c.tiers.front().bandwidth = BytesPerSecond(link);
  if (gpus == per_node) {
    c.tiers.pop_back();
    return c;
  }
  const double nic =
      inter_node_bits_per_s_per_gpu > 0 ? inter_node_bits_per_s_per_gpu : device->nic_gbit_s * 1e9;
  c.tiers.back().domain = gpus;
  c.tiers.back().bandwidth = BytesPerSecond(nic / 8);
  return c;
}

}  // namespace orrery::validation
