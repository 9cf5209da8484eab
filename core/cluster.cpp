// Cluster files: reading templates (one size for any number of devices) and complete clusters.
#include "core/cluster.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <system_error>

#include "core/configs.h"
#include "core/hash.h"
#include "core/quantity.h"

namespace orrery {
namespace {

constexpr std::int64_t kMaxDevices = 1 << 20;
constexpr double kMaxBytes = 9007199254740992.0;  // 2^53: exact as a double
constexpr double kMostBurst = 1000;  // what a shaped link lets through at once may be that fast
constexpr double kDefaultHostBandwidth = 25e9;
constexpr double kMostPower = 1e6;  // watts of one device
constexpr double kMostOversubscription = 1000;

// Points [[size, fraction], ...]: sizes grow, fractions are in (0, most].
EfficiencyCurve read_curve(ObjectReader& reader, const char* key, double most = 1) {
  EfficiencyCurve curve;
  const Json* points = reader.array(key);
  if (points == nullptr) return curve;
  if (points->items().empty()) reader.note(key, "has no point");
  for (const Json& point : points->items()) {
    const bool pair = point.is_array() && point.items().size() == 2 &&
                      point.items()[0].is_number() && point.items()[1].is_number();
    if (!pair) {
      reader.note(key, "a point is [size, fraction of peak], not " + point.dump(-1).substr(0, 60));
      return curve;
    }
    const double size = point.items()[0].as_double();
    const double fraction = point.items()[1].as_double();
    if (size <= 0 || (!curve.size.empty() && size <= curve.size.back())) {
      reader.note(key, "sizes must be positive and grow from point to point");
    }
    if (fraction <= 0 || fraction > most) {
      reader.note(key, "a fraction is not in (0, " + std::to_string(std::llround(most)) + "]");
    }
    curve.size.push_back(size);
    curve.fraction.push_back(fraction);
  }
  return curve;
}

double positive(ObjectReader& reader, const char* key, const char* dimension, double max) {
  const double value = reader.quantity(key, dimension);
  if (reader.has(key) && !(value > 0 && value <= max)) {
    reader.note(key, "must be more than zero and at most " + exact_quantity(max, dimension));
  }
  return value;
}

Bytes bytes_of(double value) {
  return Bytes(std::llround(std::min(value, kMaxBytes)));
}

// Where the key is there.
EfficiencyCurve read_curve_or_none(ObjectReader& reader, const char* key, double most = 1) {
  return reader.has(key) ? read_curve(reader, key, most) : EfficiencyCurve{};
}

// What only some files say. Written by write_facts in the same order.
void read_facts(ObjectReader& reader, DeviceProfile& device) {
  const auto peak = [&](const char* key, FlopsPerSecond fallback) {
    return reader.has(key) ? FlopsPerSecond(positive(reader, key, "flop/s", 1e20)) : fallback;
  };
  device.peak_fp16 = peak("peak_fp16", device.peak_bf16);
  device.peak_tf32 = peak("peak_tf32", FlopsPerSecond(0));
  device.peak_fp8 = peak("peak_fp8", FlopsPerSecond(0));
  device.processors = reader.integer_or("processors", 0, kMaxDevices, 0);
  if (reader.has("l2_bytes")) {
    device.l2_bytes = bytes_of(positive(reader, "l2_bytes", "bytes", kMaxBytes));
  }
  device.power_w = reader.number_or("power_w", 0, kMostPower, 0);
  // Of the file, not of the profile: core/hardware.cpp reads them.
  device.family = reader.text_or("family", "");
  for (const char* about : {"aliases", "fabric", "source"}) reader.ignore(about);
}

DeviceProfile read_device(const Json& json, const std::string& place,
                          std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  DeviceProfile device;
  device.name = reader.text("name");
  device.peak_bf16 = FlopsPerSecond(positive(reader, "peak_bf16", "flop/s", 1e20));
  device.peak_fp32 = FlopsPerSecond(positive(reader, "peak_fp32", "flop/s", 1e20));
  device.peak_fp64 = FlopsPerSecond(positive(reader, "peak_fp64", "flop/s", 1e20));
  device.memory_bandwidth = BytesPerSecond(positive(reader, "memory_bandwidth", "bytes/s", 1e18));
  device.memory = bytes_of(positive(reader, "memory", "bytes", kMaxBytes));
  device.reserved = bytes_of(reader.quantity("reserved", "bytes"));
  if (device.memory <= device.reserved && reader.has("memory") && reader.has("reserved")) {
    reader.note("reserved", "leaves nothing of the memory");
  }
  device.launch = Seconds(reader.quantity("launch", "s"));
  if (device.launch.value() > 1) reader.note("launch", "is more than a second");
  // Where a file does not say: a shared PCIe link, or a copy in the same memory if that is slower.
  const double link = std::min(kDefaultHostBandwidth, device.memory_bandwidth.value() / 2);
  device.host_bandwidth = BytesPerSecond(
      reader.has("host_bandwidth") ? positive(reader, "host_bandwidth", "bytes/s", 1e18) : link);
  if (const Json* curves = reader.child("efficiency")) {
    ObjectReader inner(*curves, place + "/efficiency", problems);
    device.gemm = read_curve(inner, "gemm");
    device.grouped = read_curve(inner, "grouped");
    device.attention = read_curve(inner, "attention");
    device.memory_eff = read_curve(inner, "memory");
    for (std::size_t k = 0; k < kNumPassKinds; ++k) {
      device.passes[k] = read_curve_or_none(inner, name_of(static_cast<PassKind>(k)));
    }
    inner.finish();
  }
  read_facts(reader, device);
  reader.finish();
  return device;
}

// "device" is an inline object or the name of a file in configs/devices.
DeviceProfile read_device_of(ObjectReader& reader, const Json& json,
                             std::vector<Problem>& problems) {
  if (!reader.has("device")) {
    reader.note("device", "is missing", "an object, or the name of a file in configs/devices");
    return {};
  }
  const Json& value = *json.find("device");
  if (!value.is_string()) return read_device(value, reader.place() + "/device", problems);
  const Result<std::string> path = find_config("devices", value.as_string());
  if (!path.ok()) {
    for (const Problem& p : path.error().problems) reader.note("device", p.message, p.hint);
    return {};
  }
  const Result<Json> file = Json::load(path.value());
  if (!file.ok()) {
    const std::vector<Problem>& found = file.error().problems;
    problems.insert(problems.end(), found.begin(), found.end());
    return {};
  }
  return read_device(file.value(), path.value() + ":", problems);
}

LinkTier read_tier(ObjectReader& one, std::vector<Problem>& problems) {
  LinkTier tier;
  tier.name = one.text("name");
  tier.bandwidth = BytesPerSecond(positive(one, "bandwidth", "bytes/s", 1e18));
  tier.latency = Seconds(one.quantity("latency", "s"));
  if (tier.latency.value() > 1) one.note("latency", "is more than a second");
  tier.cpu = one.number_or("cpu", 0, 1, 0);
  tier.spread = one.number_or("spread", 0, 1, 0);
  tier.shared_by = one.integer_or("shared_by", 0, kMaxDevices, 0);
  tier.in_network_reduction = one.boolean_or("in_network_reduction", false);
  tier.oversubscription = one.number_or("oversubscription", 1, kMostOversubscription, 1);
  tier.mesh = one.boolean_or("mesh", false);
  const Json* curves = one.has("efficiency") ? one.child("efficiency") : nullptr;
  if (curves != nullptr) {
    ObjectReader inner(*curves, one.place() + "/efficiency", problems);
    for (std::size_t k = 0; k < kNumTransferKinds; ++k) {
      tier.efficiency[k] =
          read_curve_or_none(inner, name_of(static_cast<TransferKind>(k)), kMostBurst);
    }
    inner.finish();
  }
  return tier;
}

// To a part of the domain. In a mesh a device keeps its links to those that are left.
void cut(LinkTier& tier, std::int64_t devices) {
  const double whole = tier.share_of(tier.domain);
  tier.bandwidth = tier.bandwidth * (tier.share_of(devices) / whole);
  tier.domain = devices;
}

// Domains grow and divide each other; the last one may be left out: it spans the cluster.
void read_tiers(ObjectReader& reader, Cluster& cluster, std::vector<Problem>& problems) {
  const Json* tiers = reader.array("tiers");
  if (tiers == nullptr) return;
  if (tiers->items().empty()) reader.note("tiers", "has no tier");
  std::int64_t inner_domain = 1;
  for (std::size_t i = 0; i < tiers->items().size(); ++i) {
    const bool last = i + 1 == tiers->items().size();
    ObjectReader one(tiers->items()[i], reader.place() + "/tiers/" + std::to_string(i), problems);
    LinkTier tier = read_tier(one, problems);
    tier.domain = last ? one.integer_or("domain", 1, kMaxDevices, cluster.devices)
                       : one.integer("domain", 1, kMaxDevices);
    if (tier.domain > cluster.devices) cut(tier, cluster.devices);
    if (tier.domain % inner_domain != 0) {
      one.note("domain", std::to_string(tier.domain) + " is no multiple of the inner tier's " +
                             std::to_string(inner_domain));
    }
    inner_domain = std::max<std::int64_t>(tier.domain, 1);
    one.ignore("source");
    one.finish();
    // A small cluster may lie inside an inner domain: the tiers outside are not part of it.
    const bool covered = !cluster.tiers.empty() && cluster.tiers.back().domain >= cluster.devices;
    if (!covered) cluster.tiers.push_back(std::move(tier));
  }
  if (!cluster.tiers.empty() && cluster.tiers.back().domain != cluster.devices) {
    reader.note("tiers",
                "the last tier's domain does not span the cluster's " +
                    std::to_string(cluster.devices) + " devices",
                "leave its \"domain\" out");
  }
}

void read_size(ObjectReader& reader, Cluster& cluster, std::int64_t asked) {
  const std::int64_t node = reader.integer("devices_per_node", 1, kMaxDevices);
  const std::int64_t fixed = reader.integer_or("devices", 1, kMaxDevices, 0);
  cluster.devices = asked > 0 ? asked : fixed;
  cluster.devices_per_node = node;
  if (asked > 0 && fixed > 0 && asked != fixed) {
    reader.note(
        "devices",
        "this cluster has " + std::to_string(fixed) + " devices, not " + std::to_string(asked),
        "ask for it by its name alone");
  } else if (cluster.devices == 0) {
    cluster.devices = node;
    if (!reader.has("devices")) {
      const std::string name = cluster.name.empty() ? "NAME" : cluster.name;
      reader.note(
          "devices", "the number of devices is not known",
          "ask for <template>x<devices>, for example " + name + "x" + std::to_string(node * 4));
    }
  } else if (cluster.devices > node && cluster.devices % node != 0) {
    const std::int64_t below = cluster.devices / node * node;
    reader.note(
        "devices_per_node",
        std::to_string(cluster.devices) + " devices are no whole number of nodes of " +
            std::to_string(node),
        "the nearest sizes are " + std::to_string(below) + " and " + std::to_string(below + node));
  }
  cluster.devices_per_node = std::min(node, cluster.devices);
}

// "h800x256" -> h800 and 256. False where the text does not end in x<digits>.
bool split_name(const std::string& name, std::string& base, std::int64_t& devices) {
  const std::size_t x = name.rfind('x');
  if (x == std::string::npos || x == 0 || x + 1 == name.size()) return false;
  const char* end = name.data() + name.size();
  const auto [used, ec] = std::from_chars(name.data() + x + 1, end, devices);
  if (used != end || (ec != std::errc() && ec != std::errc::result_out_of_range)) return false;
  if (ec != std::errc()) devices = kMaxDevices + 1;
  base = name.substr(0, x);
  return true;
}

Json curve_json(const EfficiencyCurve& curve) {
  Json points = Json::array();
  for (std::size_t i = 0; i < curve.size.size(); ++i) {
    points.push(Json::array().push(curve.size[i]).push(curve.fraction[i]));
  }
  return points;
}

std::string bytes_text(Bytes bytes) {
  return exact_quantity(static_cast<double>(bytes.value()), "bytes");
}

Json link_json(const LinkTier& tier) {
  Json json = Json::object();
  json.set("name", tier.name)
      .set("domain", tier.domain)
      .set("bandwidth", exact_quantity(tier.bandwidth.value(), "bytes/s"))
      .set("latency", exact_quantity(tier.latency.value(), "s"));
  if (tier.cpu > 0) json.set("cpu", tier.cpu);
  if (tier.spread > 0) json.set("spread", tier.spread);
  if (tier.shared_by > 0) json.set("shared_by", tier.shared_by);
  if (tier.in_network_reduction) json.set("in_network_reduction", true);
  if (tier.oversubscription != 1) json.set("oversubscription", tier.oversubscription);
  if (tier.mesh) json.set("mesh", true);
  Json curves = Json::object();
  bool any = false;
  for (std::size_t k = 0; k < kNumTransferKinds; ++k) {
    if (tier.efficiency[k].empty()) continue;
    curves.set(name_of(static_cast<TransferKind>(k)), curve_json(tier.efficiency[k]));
    any = true;
  }
  if (any) json.set("efficiency", std::move(curves));
  return json;
}

// Only what is set, so that a profile without these facts keeps its hash.
void write_facts(const DeviceProfile& device, Json& json) {
  const auto peak = [&](const char* key, FlopsPerSecond rate) {
    if (rate.value() > 0) json.set(key, exact_quantity(rate.value(), "flop/s"));
  };
  if (device.peak_fp16 != device.peak_bf16) peak("peak_fp16", device.peak_fp16);
  peak("peak_tf32", device.peak_tf32);
  peak("peak_fp8", device.peak_fp8);
  if (device.processors > 0) json.set("processors", device.processors);
  if (device.l2_bytes.value() > 0) json.set("l2_bytes", bytes_text(device.l2_bytes));
  if (device.power_w > 0) json.set("power_w", device.power_w);
  if (!device.family.empty()) json.set("family", device.family);
}

Json device_json(const DeviceProfile& device) {
  Json curves = Json::object();
  curves.set("gemm", curve_json(device.gemm))
      .set("grouped", curve_json(device.grouped))
      .set("attention", curve_json(device.attention))
      .set("memory", curve_json(device.memory_eff));
  for (std::size_t k = 0; k < kNumPassKinds; ++k) {
    if (device.passes[k].empty()) continue;
    curves.set(name_of(static_cast<PassKind>(k)), curve_json(device.passes[k]));
  }
  Json json = Json::object();
  json.set("name", device.name)
      .set("peak_bf16", exact_quantity(device.peak_bf16.value(), "flop/s"))
      .set("peak_fp32", exact_quantity(device.peak_fp32.value(), "flop/s"))
      .set("peak_fp64", exact_quantity(device.peak_fp64.value(), "flop/s"))
      .set("memory_bandwidth", exact_quantity(device.memory_bandwidth.value(), "bytes/s"))
      .set("memory", bytes_text(device.memory))
      .set("reserved", bytes_text(device.reserved))
      .set("launch", exact_quantity(device.launch.value(), "s"))
      .set("host_bandwidth", exact_quantity(device.host_bandwidth.value(), "bytes/s"))
      .set("efficiency", std::move(curves));
  write_facts(device, json);
  return json;
}

}  // namespace

const char* name_of(TransferKind kind) {
  constexpr const char* kNames[] = {"gather", "reduce", "exchange"};
  return kNames[static_cast<std::size_t>(kind)];
}

const char* name_of(CollectiveAlgorithm algorithm) {
  return algorithm == CollectiveAlgorithm::kPairs ? "pairs" : "tiers";
}

double LinkTier::share_of(std::int64_t members) const {
  if (!mesh || domain < 2) return 1 / oversubscription;
  const auto links = static_cast<double>(std::clamp<std::int64_t>(members - 1, 1, domain - 1));
  return links / static_cast<double>(domain - 1) / oversubscription;
}

EfficiencyCurve::Place EfficiencyCurve::place(double x) const {
  CHECK(!size.empty() && size.size() == fraction.size(), "an efficiency curve without points");
  if (!(x > size.front())) return {0, 0};
  if (x >= size.back()) return {size.size() - 1, 0};
  const auto above = std::upper_bound(size.begin(), size.end(), x);
  const auto i = static_cast<std::size_t>(above - size.begin());
  return {i - 1, std::log(x / size[i - 1]) / std::log(size[i] / size[i - 1])};
}

double EfficiencyCurve::at(double x) const {
  const auto [i, t] = place(x);
  return t == 0 ? fraction[i] : fraction[i] + t * (fraction[i + 1] - fraction[i]);
}

FlopsPerSecond DeviceProfile::peak(DType dtype) const {
  switch (dtype) {
    case DType::kBFloat16:
      return peak_bf16;
    case DType::kFloat64:
      return peak_fp64;
    case DType::kFloat32:
    case DType::kInt64:
      break;
  }
  return peak_fp32;
}

Result<Cluster> cluster_from_json(const Json& json, const std::string& place,
                                  std::int64_t devices) {
  std::vector<Problem> problems;
  ObjectReader reader(json, place, problems);
  if (!problems.empty()) return Error{ErrorCode::kInvalid, problems};
  if (devices < 0 || devices > kMaxDevices) {
    return Error::of(ErrorCode::kInvalid, place, "the number of devices is out of range",
                     "at most " + std::to_string(kMaxDevices));
  }
  Cluster cluster;
  cluster.name = reader.text_or("name", config_stem(place));
  read_size(reader, cluster, devices);
  if (!reader.has("devices")) cluster.name += "x" + std::to_string(cluster.devices);
  cluster.device = read_device_of(reader, json, problems);
  read_tiers(reader, cluster, problems);
  cluster.compute_slowdown = reader.number_or("compute_slowdown", 1, 100, 1);
  cluster.link_slowdown = reader.number_or("link_slowdown", 1, 100, 1);
  cluster.spread = reader.number_or("spread", 0, 1, 0);
  cluster.uncertainty = reader.number_or("uncertainty", 0, 1, 0.25);
  cluster.host_memory = bytes_of(reader.quantity_or("host_memory", "bytes", 0));
  cluster.cores_per_node = reader.integer_or("cores_per_node", 0, kMaxDevices, 0);
  cluster.nodes_per_machine = reader.integer_or("nodes_per_machine", 1, kMaxDevices, 1);
  if (reader.has("collectives") && reader.choice("collectives", {"tiers", "pairs"}) == "pairs") {
    cluster.collectives = CollectiveAlgorithm::kPairs;
  }
  for (const char* about : {"source", "calibration"}) reader.ignore(about);
  reader.finish();
  if (!problems.empty()) return Error{ErrorCode::kInvalid, problems};
  cluster.sha256 = sha256_hex(to_json(cluster).dump(-1));
  return cluster;
}

Result<Cluster> parse_cluster(const std::string& text, const std::string& place,
                              std::int64_t devices) {
  TRY(const Json json, Json::parse(text, place));
  return cluster_from_json(json, place + ":", devices);
}

Result<Cluster> load_cluster(const std::string& name) {
  std::error_code ec;
  std::string path = name;
  std::int64_t devices = 0;
  Result<std::string> config = find_config("clusters", name);
  if (config.ok()) {
    path = config.value();
  } else if (looks_like_path(name)) {
    if (!std::filesystem::exists(name, ec)) {
      return Error::of(ErrorCode::kInvalid, name, "no such file",
                       "`orrery doctor --probe -o FILE` writes one of this machine");
    }
  } else {
    std::string base;
    if (!split_name(name, base, devices)) return config.error();
    TRY(path, find_config("clusters", base));
    if (devices < 1 || devices > kMaxDevices) {
      return Error::of(ErrorCode::kInvalid, name, "the number of devices is out of range",
                       "1 to " + std::to_string(kMaxDevices));
    }
  }
  TRY(const std::string text, read_file(path));
  return parse_cluster(text, path, devices);
}

Json to_json(const Cluster& cluster) {
  Json tiers = Json::array();
  for (const LinkTier& tier : cluster.tiers) tiers.push(link_json(tier));
  Json json = Json::object();
  json.set("name", cluster.name)
      .set("devices", cluster.devices)
      .set("devices_per_node", cluster.devices_per_node)
      .set("host_memory", bytes_text(cluster.host_memory))
      .set("cores_per_node", cluster.cores_per_node)
      .set("device", device_json(cluster.device))
      .set("tiers", std::move(tiers))
      .set("compute_slowdown", cluster.compute_slowdown)
      .set("link_slowdown", cluster.link_slowdown)
      .set("uncertainty", cluster.uncertainty);
  if (cluster.spread > 0) json.set("spread", cluster.spread);
  if (cluster.nodes_per_machine > 1) json.set("nodes_per_machine", cluster.nodes_per_machine);
  if (cluster.collectives != CollectiveAlgorithm::kTiers) {
    json.set("collectives", name_of(cluster.collectives));
  }
  return json;
}

}  // namespace orrery
