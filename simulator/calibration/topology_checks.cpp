// See topology_checks.h.
#include "simulator/calibration/topology_checks.h"

#include <algorithm>
#include <map>

#include "core/quantity.h"
#include "simulator/calibration/text_lines.h"

namespace orrery::simulator {
namespace {

// Below this share of its peak, a link is probably another one.
constexpr double kLeastOfPeak = 0.5;
constexpr double kBeats = 1.02;

bool is_nvlink(const std::string& link) {
  return link.compare(0, 2, "NV") == 0;
}

struct Pairs {
  std::size_t all = 0, nvlink = 0;
  std::string first_other;                // "GPU0 and GPU3 are joined by SYS"
  std::map<std::string, std::size_t> by;  // pairs by link
};

Pairs pairs_of(const NodeTopology& node) {
  Pairs pairs;
  for (std::size_t a = 0; a < node.links.size(); ++a) {
    for (std::size_t b = a + 1; b < node.links.size(); ++b) {
      const std::string& link = node.links[a][b];
      ++pairs.all;
      ++pairs.by[link];
      if (is_nvlink(link)) {
        ++pairs.nvlink;
      } else if (pairs.first_other.empty()) {
        pairs.first_other =
            "GPU" + std::to_string(a) + " and GPU" + std::to_string(b) + " are joined by " + link;
      }
    }
  }
  return pairs;
}

bool says_nvlink(const LinkTier& tier) {
  return tier.name.find("nv") != std::string::npos;
}

// The tier that joins the devices of a node: one of a node's size, or an NVLink domain of several
// nodes. nullptr where there is none.
const LinkTier* node_tier(const Cluster& cluster) {
  for (const LinkTier& tier : cluster.tiers) {
    if (tier.domain <= 1) continue;
    if (tier.domain <= cluster.devices_per_node || says_nvlink(tier)) return &tier;
  }
  return nullptr;
}

std::vector<double> peer_rates(const std::vector<Measurements>& files) {
  std::vector<double> rates;
  for (const Measurements& m : files) {
    for (const Sample& s : m.samples) {
      if (s.op == SampleOp::kCopyToPeer) rates.push_back(s.bytes / s.seconds);
    }
  }
  return rates;
}

std::string rate(double bytes_per_second) {
  return format_rate(BytesPerSecond(bytes_per_second));
}

std::string links_of(const Pairs& pairs) {
  std::string out;
  for (const auto& [link, count] : pairs.by) {
    out += (out.empty() ? "" : ", ") + std::to_string(count) + " " + link;
  }
  return out;
}

void check_node(const Cluster& cluster, const NodeTopology& node, std::vector<Note>& notes) {
  const auto found = static_cast<std::int64_t>(node.links.size());
  const std::string where = node.place + ": ";
  if (found != cluster.devices_per_node) {
    notes.push_back({true, where + std::to_string(found) + " devices in this node, " +
                               std::to_string(cluster.devices_per_node) + " in " + cluster.name});
  }
  const Pairs pairs = pairs_of(node);
  const LinkTier* tier = node_tier(cluster);
  if (pairs.all == 0) return;
  if (tier != nullptr && says_nvlink(*tier) && pairs.nvlink < pairs.all) {
    notes.push_back(
        {true, where + pairs.first_other + ": " + std::to_string(pairs.all - pairs.nvlink) +
                   " of " + std::to_string(pairs.all) + " pairs have no NVLink, but " +
                   cluster.name + " joins all of a node by its tier '" + tier->name + "'"});
    return;
  }
  if (tier != nullptr && !says_nvlink(*tier) && pairs.nvlink == pairs.all) {
    notes.push_back({true, where + "all pairs have NVLink, but the tier of a node of " +
                               cluster.name + " is '" + tier->name + "'"});
    return;
  }
  notes.push_back({false, where + std::to_string(found) + " devices, pairs by link: " +
                              links_of(pairs) + "; " + std::to_string(node.nics) + " NICs"});
}

// The tier that all nodes have and the cluster lacks, from measured copies.
void add_tier(Cluster& cluster, const NodeTopology& node, const std::vector<double>& rates,
              std::vector<Note>& notes) {
  const auto found = static_cast<std::int64_t>(node.links.size());
  const Pairs pairs = pairs_of(node);
  if (node_tier(cluster) != nullptr || found != cluster.devices_per_node || pairs.all == 0 ||
      pairs.nvlink < pairs.all) {
    return;
  }
  const std::string where =
      node.place + ": every pair has NVLink, and " + cluster.name + " has no tier of a node: ";
  if (rates.empty()) {
    notes.push_back({true, where + "copies between devices would say its bandwidth; give "
                                   "nvbandwidth's device_to_device_memcpy_read_ce with it"});
    return;
  }
  LinkTier tier;
  tier.name = "nvlink";
  tier.domain = found;
  tier.bandwidth = BytesPerSecond(median_of(rates));
  tier.latency = cluster.tiers.front().latency;
  notes.push_back({false, where + "it gains 'nvlink' of " + rate(tier.bandwidth.value()) +
                              ", the median of measured copies"});
  cluster.tiers.insert(cluster.tiers.begin(), tier);
}

void check_peak(const Cluster& cluster, const std::vector<double>& rates,
                std::vector<Note>& notes) {
  const LinkTier* tier = node_tier(cluster);
  if (rates.empty() || tier == nullptr) return;
  const double median = median_of(rates), peak = tier->bandwidth.value();
  const double lowest = *std::min_element(rates.begin(), rates.end());
  std::string text = "copies between devices: " + rate(median) + " (lowest " + rate(lowest) +
                     "), the peak of '" + tier->name + "' is " + rate(peak);
  const bool low = lowest<kLeastOfPeak * peak, high = median> kBeats * peak;
  if (low) text += ": less than half of it, so some pair has another link";
  if (high) text += ": more than it, so the peak is not that of this link";
  notes.push_back({low || high, text});
}

}  // namespace

std::vector<Note> check_topology(Cluster& cluster, const std::vector<Measurements>& files) {
  std::vector<Note> notes;
  const std::vector<double> rates = peer_rates(files);
  for (const Measurements& m : files) {
    for (const NodeTopology& node : m.nodes) {
      add_tier(cluster, node, rates, notes);
      check_node(cluster, node, notes);
    }
  }
  check_peak(cluster, rates, notes);
  return notes;
}

}  // namespace orrery::simulator
