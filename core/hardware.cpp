// Words of published runs to clusters: device files are searched for an alias, their template is
// cut to the run's size and takes the run's bandwidths.
#include "core/hardware.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/configs.h"
#include "core/json.h"
#include "core/quantity.h"

namespace orrery {
namespace {

constexpr std::int64_t kLargestDomain = 1 << 19;

// What a device's file says beside its profile.
struct DeviceFile {
  std::string name;
  std::vector<std::string> aliases;
  std::string fabric;  // a template in configs/clusters
};

Result<DeviceFile> read_file_of(const std::string& name) {
  TRY(const std::string path, find_config("devices", name));
  TRY(const Json json, Json::load(path));
  std::vector<Problem> problems;
  ObjectReader reader(json, path + ":", problems);
  DeviceFile file;
  file.name = name;
  file.fabric = reader.text_or("fabric", "");
  const Json* aliases = reader.has("aliases") ? reader.array("aliases") : nullptr;
  if (aliases != nullptr) {
    for (const Json& alias : aliases->items()) {
      if (alias.is_string()) {
        file.aliases.push_back(alias.as_string());
      } else {
        reader.note("aliases", "an alias is a string, not " + alias.dump(-1).substr(0, 60));
      }
    }
  }
  if (!problems.empty()) return Error{ErrorCode::kInvalid, problems};
  return file;
}

Result<DeviceFile> device_named(const std::string& gpu) {
  std::vector<std::string> known;
  for (const std::string& name : list_configs("devices")) {
    TRY(DeviceFile file, read_file_of(name));
    const bool named =
        std::find(file.aliases.begin(), file.aliases.end(), gpu) != file.aliases.end();
    if (named || name == gpu) return file;
    known.insert(known.end(), file.aliases.begin(), file.aliases.end());
  }
  if (known.empty()) {  // no configs/ at all: the error of looking one up says so
    TRY(const std::string path, find_config("devices", gpu));
  }
  std::string hint;
  if (const std::string near = nearest(gpu, known); !near.empty()) {
    hint = "did you mean '" + near + "'?";
  } else {
    for (const std::string& word : known) hint += (hint.empty() ? "known: " : ", ") + word;
  }
  return Error::of(ErrorCode::kInvalid, "gpu", "no device is called '" + gpu + "'", hint);
}

// A size of which the template's every tier is a part.
std::int64_t size_with_all_tiers(const Json& fabric) {
  std::int64_t largest = 1;
  const auto grow = [&](const Json& object, const char* key) {
    const Json* value = object.is_object() ? object.find(key) : nullptr;
    if (value != nullptr && value->is_integer()) largest = std::max(largest, value->as_integer());
  };
  grow(fabric, "devices_per_node");
  const Json* tiers = fabric.is_object() ? fabric.find("tiers") : nullptr;
  if (tiers != nullptr && tiers->is_array()) {
    for (const Json& tier : tiers->items()) grow(tier, "domain");
  }
  return 2 * std::min(largest, kLargestDomain);
}

Result<Cluster> default_cluster_of(const DeviceFile& device) {
  if (device.fabric.empty()) {
    return Error::of(ErrorCode::kInvalid, "configs/devices/" + device.name + ".json:/fabric",
                     "is missing: how this device is joined is not known",
                     "name a template in configs/clusters");
  }
  TRY(const std::string path, find_config("clusters", device.fabric));
  TRY(Json fabric, Json::load(path));
  const std::int64_t size = size_with_all_tiers(fabric);
  if (fabric.is_object()) fabric.set("device", device.name);
  return cluster_from_json(fabric, path + ":", size);
}

// Bytes a second of one direction; zero or less: as the tiers are.
struct Bandwidths {
  double inside = 0, between = 0;
};

// Nodes of `node` devices instead of the template's.
void resize(Cluster& cluster, std::int64_t devices, std::int64_t node, Bandwidths printed) {
  std::vector<LinkTier>& tiers = cluster.tiers;
  const std::int64_t template_node = cluster.devices_per_node;
  // The tiers within a node; at least one, which may join several nodes (a rack of NVLink).
  std::size_t inner = 1;
  while (inner < tiers.size() && tiers[inner].domain <= template_node) ++inner;
  if (printed.inside > 0) {
    while (inner > 1 && printed.inside <= tiers[1].bandwidth.value()) {
      tiers.erase(tiers.begin());
      --inner;
    }
    tiers[0].bandwidth = BytesPerSecond(printed.inside);
  }
  for (std::size_t t = 0; t < tiers.size(); ++t) {
    std::int64_t& domain = tiers[t].domain;
    if (domain <= template_node) domain = domain == template_node ? node : std::min(domain, node);
    if (t >= inner && printed.between > 0) tiers[t].bandwidth = BytesPerSecond(printed.between);
  }
  tiers.back().domain = devices;
  cluster.devices = devices;
  cluster.devices_per_node = node;
}

}  // namespace

Result<Cluster> cluster_of(const std::string& gpu, std::int64_t gpus, std::int64_t gpus_per_node,
                           double intra_node_bytes_per_s_both_directions,
                           double inter_node_bits_per_s_per_gpu) {
  TRY(const DeviceFile device, device_named(gpu));
  const Bandwidths printed{intra_node_bytes_per_s_both_directions / 2,
                           inter_node_bits_per_s_per_gpu / 8};
  if (!std::isfinite(printed.inside) || !std::isfinite(printed.between)) {
    return Error::of(ErrorCode::kInvalid, gpu, "a bandwidth is not finite", "0: not printed");
  }
  TRY(Cluster cluster, default_cluster_of(device));
  resize(cluster, gpus, gpus_per_node, printed);
  cluster.name = device.name + "x" + std::to_string(gpus);
  // Read again: this holds the size against every rule of a cluster, and seals it.
  return cluster_from_json(to_json(cluster), gpu + ":", 0);
}

}  // namespace orrery
