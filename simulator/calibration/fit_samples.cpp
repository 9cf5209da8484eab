// See fit_samples.h.
#include "simulator/calibration/fit_samples.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

#include "core/hash.h"
#include "simulator/calibration/sample_curves.h"
#include "simulator/calibration/text_lines.h"
#include "simulator/calibration/topology_checks.h"
#include "simulator/op_cost.h"

namespace orrery::simulator {
namespace {

constexpr double kPlateau = 1.25;    // times within this of the shortest sizes' do not grow
constexpr double kPlateauBytes = 4;  // while the bytes grow by this much
constexpr double kLeastLatency = 1e-9;
constexpr double kMostLinkFraction = 1000;  // as in cluster files: bursts over a shaped link

using Pointers = std::vector<const Sample*>;

bool is_product(const Sample& s) {
  return s.op == SampleOp::kGemm || s.op == SampleOp::kGrouped || s.op == SampleOp::kAttention;
}

EfficiencyCurve& product_curve(DeviceProfile& device, SampleOp op) {
  if (op == SampleOp::kGemm) return device.gemm;
  return op == SampleOp::kGrouped ? device.grouped : device.attention;
}

bool known_dtype(const std::string& dtype) {
  return dtype.empty() || dtype == "bf16" || dtype == "fp32" || dtype == "fp64";
}

DType dtype_of(const Sample& s) {
  if (s.dtype == "fp64") return DType::kFloat64;
  return s.dtype == "fp32" ? DType::kFloat32 : DType::kBFloat16;
}

Work work_of(const Sample& s) {
  Work work;
  work.kind = s.op == SampleOp::kGemm      ? WorkKind::kGemm
              : s.op == SampleOp::kGrouped ? WorkKind::kGroupedGemm
                                           : WorkKind::kAttention;
  work.dtype = dtype_of(s);
  work.groups = s.groups;
  work.flops = SizeExpr::constant(std::llround(s.flops));
  work.bytes = SizeExpr::constant(std::llround(s.bytes));
  return work;
}

OpKind op_kind(const Sample& s) {
  switch (static_cast<TransferKind>(s.which)) {
    case TransferKind::kGather:
      return OpKind::kAllGather;
    case TransferKind::kReduce:
      return OpKind::kReduceScatter;
    case TransferKind::kExchange:
      break;
  }
  return OpKind::kAllToAll;
}

// Ranks fill their hosts evenly: as many to a node of the cluster.
Group group_of(const Cluster& cluster, const Sample& s) {
  const std::int64_t inside = s.ranks / s.nodes;
  const std::int64_t stride = s.nodes == 1 ? 1 : cluster.devices_per_node / inside;
  Group group;
  group.size = static_cast<std::int32_t>(s.ranks);
  group.stride = static_cast<std::int32_t>(std::max<std::int64_t>(stride, 1));
  return group;
}

WireBytes wire_of(const Sample& s) {
  const std::int64_t bytes = std::llround(s.bytes);
  return {bytes, bytes};
}

class Fitter {
 public:
  Fitter(const Cluster& base, const std::vector<Measurements>& files) : base_(base), now_(base) {
    for (const Measurements& file : files) {
      for (const Sample& s : file.samples) {
        if (known_dtype(s.dtype) || !is_product(s)) {
          samples_.push_back(&s);
          files_[&s] = file.file;
        } else {
          ++foreign_[s.dtype];
        }
      }
      notes_.insert(notes_.end(), file.notes.begin(), file.notes.end());
    }
    std::vector<Note> found = check_topology(now_, files);
    notes_.insert(notes_.end(), found.begin(), found.end());
    // Entries are reported against the tiers as they are now.
    base_.tiers = now_.tiers;
    take_facts(files);
  }

  Status check() const {
    std::vector<Problem> problems;
    for (const Sample* s : samples_) {
      if (s->op != SampleOp::kTransfer) continue;
      const std::string reason = misplaced(*s);
      if (!reason.empty()) problems.push_back({s->source, reason, hint_of(*s)});
      if (problems.size() == 10) break;
    }
    if (problems.empty()) return Ok{};
    return Error{ErrorCode::kInvalid, problems};
  }

  SampleFit fit() {
    fit_launch();
    fit_host_copies();
    fit_passes();
    for (const SampleOp op : {SampleOp::kGemm, SampleOp::kGrouped, SampleOp::kAttention}) {
      fit_products(op);
    }
    for (std::size_t t = 0; t < now_.tiers.size(); ++t) fit_tier(t);
    for (const auto& [dtype, count] : foreign_) {
      notes_.push_back({false, std::to_string(count) + " products of " + dtype +
                                   ": a profile has no peak of it, left out"});
    }
    now_.sha256 = sha256_hex(to_json(now_).dump(-1));
    return {now_, entries(), std::move(notes_)};
  }

 private:
  std::string misplaced(const Sample& s) const {
    const std::int64_t inside = s.ranks / s.nodes;
    if (inside > now_.devices_per_node) {
      return std::to_string(inside) + " ranks on a host, but " + now_.name + " has " +
             std::to_string(now_.devices_per_node) + " devices a node";
    }
    if (s.nodes > 1 && now_.devices <= now_.devices_per_node) {
      return "measured over " + std::to_string(s.nodes) + " hosts, but " + now_.name +
             " is one node: it has no tier for them";
    }
    if (s.nodes > 1 && now_.devices_per_node % inside != 0) {
      return std::to_string(inside) + " ranks a host do not divide the " +
             std::to_string(now_.devices_per_node) + " devices of a node";
    }
    return "";
  }

  std::string hint_of(const Sample& s) const {
    const bool small = s.nodes > 1 && now_.devices <= now_.devices_per_node;
    return small ? "begin from a --cluster of several nodes, such as <template>x" +
                       std::to_string(s.nodes * now_.devices_per_node)
                 : "begin from the --cluster that this was measured on";
  }

  Pointers of(SampleOp op, std::int32_t which = 0) const {
    Pointers out;
    for (const Sample* s : samples_) {
      if (s->op == op && s->which == which) out.push_back(s);
    }
    return out;
  }

  void note(const std::string& what, std::size_t count, const std::string& why) {
    if (count == 0) return;
    notes_.push_back({false, what + ": " + std::to_string(count) + " of its samples " + why});
  }

  void take_facts(const std::vector<Measurements>& files) {
    for (const Measurements& file : files) {
      for (const auto& [name, value] : file.facts) {
        double* slot = name == "compute_slowdown" ? &now_.compute_slowdown
                       : name == "link_slowdown"  ? &now_.link_slowdown
                                                  : nullptr;
        if (slot != nullptr) *slot = std::clamp(value, 1.0, 100.0);
      }
    }
  }

  void fit_launch() {
    std::vector<double> seconds;
    for (const Sample* s : of(SampleOp::kLaunch)) seconds.push_back(s->seconds);
    if (!seconds.empty()) now_.device.launch = Seconds(std::min(median_of(seconds), 1.0));
  }

  // The slower direction, of the largest copies: one figure stands for both.
  void fit_host_copies() {
    double slowest = 0;
    for (const SampleOp op : {SampleOp::kCopyToHost, SampleOp::kCopyToDevice}) {
      const Pointers copies = of(op);
      double most = 0;
      for (const Sample* s : copies) most = std::max(most, s->bytes);
      std::vector<double> rates;
      for (const Sample* s : copies) {
        const double moving = s->seconds - now_.device.launch.value();
        if (2 * s->bytes >= most && moving > 0) rates.push_back(s->bytes / moving);
      }
      if (rates.empty()) continue;
      const double rate = median_of(rates);
      slowest = slowest > 0 ? std::min(slowest, rate) : rate;
    }
    if (slowest > 0) now_.device.host_bandwidth = BytesPerSecond(slowest);
  }

  void fit_passes() {
    for (std::int32_t k = 0; k < kNumPassKinds; ++k) {
      CurveBuilder curve(kSameSize);
      for (const Sample* s : of(SampleOp::kPass, k)) {
        const double moving = s->seconds - now_.device.launch.value();
        if (moving < kLeastPart * s->seconds) {
          ++curve.bound_by_launch;
        } else {
          const double ideal = s->bytes / now_.device.memory_bandwidth.value();
          curve.add(s->bytes, ideal / moving, ideal / s->seconds);
        }
      }
      const std::string name =
          std::string("device/efficiency/") + name_of(static_cast<PassKind>(k));
      settle(curve, name, "device/memory_bandwidth", now_.device.pass(static_cast<PassKind>(k)),
             now_.device.passes[static_cast<std::size_t>(k)]);
    }
  }

  // A curve holds for one peak: that of bf16 where it was measured.
  void fit_products(SampleOp op) {
    Pointers products = of(op);
    const bool bf16 = std::any_of(products.begin(), products.end(),
                                  [](const Sample* s) { return dtype_of(*s) == DType::kBFloat16; });
    CurveBuilder curve(kSameShape);
    std::size_t by_memory = 0, others = 0;
    for (const Sample* s : products) {
      if (bf16 && dtype_of(*s) != DType::kBFloat16) {
        ++others;
        continue;
      }
      const double busy = s->seconds - now_.device.launch.value();
      const double memory =
          s->bytes > 0 ? memory_time(now_.device, PassKind::kStream, s->bytes, 0).value() : 0;
      if (busy < kLeastPart * s->seconds) {
        ++curve.bound_by_launch;
      } else if (memory >= kMostInside * busy) {
        ++by_memory;
      } else {
        const double size = s->flops / static_cast<double>(s->groups);
        const double ideal = s->flops / now_.device.peak(dtype_of(*s)).value();
        curve.add(size, ideal / busy, ideal / s->seconds);
      }
    }
    const std::string name = std::string("device/efficiency/") + name_of(op);
    note(name, by_memory, "take what their bytes take: left out");
    note(name, others, "are of another dtype than bf16: left out");
    settle(curve, name, bf16 ? "device/peak_bf16" : "device/peak_fp32",
           product_curve(now_.device, op), product_curve(now_.device, op));
  }

  // Fractions of a device are at most 1. Where a launch runs beside the kernel before it, taking it
  // off can pass that; only a rate that was plainly measured is worth a warning.
  void settle(CurveBuilder& curve, const std::string& name, const std::string& peak,
              const EfficiencyCurve& base, EfficiencyCurve& target) {
    note(name, curve.bound_by_launch, "are hardly longer than a launch: left out");
    if (curve.empty()) return;
    if (curve.best_rate > kBeatsPeak) {
      notes_.push_back({true, name + ": a measurement beats " + peak + " by " +
                                  percent_text(curve.best_rate - 1) +
                                  "; held at 1: is this the device?"});
    }
    target = curve.curve(base, 1);
  }

  void fit_tier(std::size_t t) {
    Pointers crossing;
    for (const Sample* s : samples_) {
      if (s->op != SampleOp::kTransfer) continue;
      const FarthestTier far = farthest_tier(now_, group_of(now_, *s), op_kind(*s), wire_of(*s));
      if (static_cast<std::size_t>(far.tier) == t) crossing.push_back(s);
    }
    if (crossing.empty()) return;
    fit_latency(t, crossing);
    for (std::int32_t k = 0; k < kNumTransferKinds; ++k) fit_transfers(t, k, crossing);
  }

  void fit_latency(std::size_t t, const Pointers& crossing) {
    std::map<std::tuple<std::int32_t, std::int64_t, std::int64_t, std::int64_t>, Pointers> series;
    for (const Sample* s : crossing) series[{s->which, s->ranks, s->nodes, s->passes}].push_back(s);
    std::vector<double> found;
    for (const auto& [key, samples] : series) {
      const double plateau = plateau_of(samples);
      if (plateau <= 0) continue;
      const double steps = std::ceil(std::log2(static_cast<double>(std::get<1>(key))));
      found.push_back((plateau - now_.device.launch.value()) / steps);
    }
    LinkTier& tier = now_.tiers[t];
    if (found.empty()) {
      notes_.push_back({false, "tiers/" + std::to_string(t) + "/latency (" + tier.name +
                                   "): no sizes so small that time does not grow; left as it was"});
      return;
    }
    tier.latency = Seconds(std::clamp(median_of(found), kLeastLatency, 1.0));
    for (std::size_t inner = 0; inner < t; ++inner) {
      if (now_.tiers[inner].latency <= tier.latency) continue;
      notes_.push_back({true, "tiers/" + std::to_string(t) + "/latency (" + tier.name +
                                  ") is below that of '" + now_.tiers[inner].name +
                                  "' inside it, which counts for both"});
    }
  }

  // Median time of the smallest sizes, 0 where time grows with them from the start.
  static double plateau_of(const Pointers& samples) {
    std::map<double, std::vector<double>> by_bytes;
    for (const Sample* s : samples) by_bytes[s->bytes].push_back(s->seconds);
    const double first = median_of(by_bytes.begin()->second);
    double last_bytes = 0;
    std::vector<double> times;
    for (const auto& [bytes, seconds] : by_bytes) {
      const double median = median_of(seconds);
      if (median > kPlateau * first) break;
      last_bytes = bytes;
      times.push_back(median);
    }
    return last_bytes >= kPlateauBytes * by_bytes.begin()->first ? median_of(times) : 0;
  }

  void fit_transfers(std::size_t t, std::int32_t which, const Pointers& crossing) {
    LinkTier& tier = now_.tiers[t];
    CurveBuilder curve(kSameSize);
    std::size_t by_inner = 0, twice = 0;
    const bool once = std::any_of(crossing.begin(), crossing.end(), [&](const Sample* s) {
      return s->which == which && s->passes == 1;
    });
    for (const Sample* s : crossing) {
      if (s->which != which) continue;
      if (once && s->passes > 1) {
        ++twice;
        continue;
      }
      const Group group = group_of(now_, *s);
      const double fixed = collective_time(now_, group, op_kind(*s), {0, 0}).value();
      const double moving = s->seconds - fixed - now_.device.launch.value();
      const FarthestTier far = farthest_tier(now_, group, op_kind(*s), wire_of(*s));
      if (moving < kLeastPart * s->seconds) {
        ++curve.bound_by_launch;
      } else if (far.inside_s >= kMostInside * moving) {
        ++by_inner;
      } else {
        const double ideal = far.ideal_s;
        curve.add(far.bytes, ideal / moving, ideal / s->seconds);
      }
    }
    const std::string name = "tiers/" + std::to_string(t) + "/efficiency/" +
                             orrery::name_of(static_cast<TransferKind>(which)) + " (" + tier.name +
                             ")";
    note(name, twice, "are all-reduces, left out beside reduce-scatters");
    note(name, by_inner, "take what the tiers inside take, and say nothing of this one: left out");
    if (curve.empty()) return;
    if (curve.best_rate > kBeatsPeak) {
      notes_.push_back({true, name + ": a measurement beats the tier's bandwidth by " +
                                  percent_text(curve.best_rate - 1) + "; kept: is this the link?"});
    }
    // With several devices a host, a tier inside that is slower than stated would be blamed here.
    const bool inside = std::any_of(crossing.begin(), crossing.end(), [&](const Sample* s) {
      return s->which == which && s->ranks > s->nodes;
    });
    if (t > 0 && inside && measured_.count({t - 1, which}) == 0) {
      notes_.push_back({true, name + ": the tiers inside were not measured with it and are taken "
                                     "as they are; add the same test on one host"});
    }
    measured_.insert({t, which});
    EfficiencyCurve& target = tier.efficiency[static_cast<std::size_t>(which)];
    target = curve.curve(target, kMostLinkFraction);
  }

  std::vector<SampleEntry> entries() const {
    std::map<Entry, SampleEntry> rows;
    std::map<Entry, std::set<std::string>> sources;
    Terms terms;
    for (const Sample* s : samples_) {
      if (s->op == SampleOp::kCopyToPeer) continue;
      terms.clear();
      const double after = sample_time(now_, *s, &terms);
      const double before = sample_time(base_, *s);
      if (after <= 0) continue;
      for (const auto& [entry, part] : terms.seconds()) {
        if (part <= 0) continue;
        SampleEntry& row = rows[entry];
        const double share = part / after;
        row.entry = entry;
        row.valid_from_s = row.samples == 0 ? s->seconds : std::min(row.valid_from_s, s->seconds);
        row.valid_to_s = std::max(row.valid_to_s, s->seconds);
        ++row.samples;
        row.measured_s += share * s->seconds;
        row.before_s += share * before;
        row.after_s += part;
        sources[entry].insert(files_.at(s));
      }
    }
    std::vector<SampleEntry> out;
    for (auto& [entry, row] : rows) {
      row.sources.assign(sources[entry].begin(), sources[entry].end());
      out.push_back(std::move(row));
    }
    return out;
  }

  Cluster base_, now_;
  Pointers samples_;
  std::map<const Sample*, std::string> files_;
  std::set<std::pair<std::size_t, std::int32_t>> measured_;  // curves of links
  std::map<std::string, std::size_t> foreign_;               // products of dtypes without a peak
  std::vector<Note> notes_;
};

}  // namespace

double sample_time(const Cluster& cluster, const Sample& s, Terms* terms) {
  const Entry launch{EntryKind::kLaunch, 0, 0, 0};
  switch (s.op) {
    case SampleOp::kGemm:
    case SampleOp::kGrouped:
    case SampleOp::kAttention:
      return work_time(cluster.device, {work_of(s)}, {}, {}, terms).value();
    case SampleOp::kPass:
      return memory_time(cluster.device, static_cast<PassKind>(s.which), s.bytes, 1, terms).value();
    case SampleOp::kCopyToHost:
    case SampleOp::kCopyToDevice:
      return copy_time(cluster.device, s.bytes, terms).value();
    case SampleOp::kTransfer:
      if (terms != nullptr) terms->add(launch, cluster.device.launch.value());
      return cluster.device.launch.value() +
             collective_time(cluster, group_of(cluster, s), op_kind(s), wire_of(s), terms).value();
    case SampleOp::kLaunch:
      if (terms != nullptr) terms->add(launch, cluster.device.launch.value());
      return cluster.device.launch.value();
    case SampleOp::kCopyToPeer:
      break;
  }
  return 0;
}

Result<SampleFit> fit_samples(const Cluster& base, const std::vector<Measurements>& files) {
  Fitter fitter(base, files);
  TRY_OK(fitter.check());
  return fitter.fit();
}

}  // namespace orrery::simulator
