// The probe: op classes over shapes, collectives over sizes, and how both disturb each other.
#include "engine/torch/probe.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <functional>
#include <map>
#include <vector>

#include "core/cluster.h"
#include "core/hash.h"
#include "core/program/work.h"
#include "engine/comm/communicator.h"
#include "engine/cores.h"
#include "engine/torch/executor.h"
#include "engine/torch/metered_allocator.h"
#include "engine/torch/probe_blocks.h"
#include "engine/torch/probe_mutual.h"
// Last: it restores CHECK, which a header of libtorch redefines.
#include <ATen/Parallel.h>
#include "engine/torch/compat.h"

namespace orrery::engine {
namespace {

constexpr double kBudget = 0.12;  // seconds a shape

struct Totals {
  double flops = 0, bytes = 0, kernels = 0, items = 0;
};

Totals totals_of(const Block& block, std::int64_t pairs) {
  Totals t;
  const std::vector<std::int64_t> values = {pairs};
  const VarBase vars{-1, 0};
  for (const auto& work : {forward_work(block), backward_work(block)}) {
    for (const Work& w : work) {
      t.flops += static_cast<double>(w.flops.eval(values, vars));
      t.bytes += static_cast<double>(w.bytes.eval(values, vars));
      t.kernels += w.kernels;
      t.items += 1;
    }
  }
  return t;
}

class Probe {
 public:
  // `share` is what this rank has of the cores of its node.
  Probe(Communicator& communicator, const CoreShare& share)
      : communicator_(communicator),
        lane_(communicator.channel(Lane::kFsdp, 0)),
        share_(share),
        active_(share.first) {
    computing_ = mean(active_ ? 1 : 0) * communicator.world();
    cores_ = std::llround(mean(share.cores) * communicator.world());
  }

  Cluster run() {
    measure_launch();
    measure_products();
    measure_attention();
    measure_memory();
    measure_links();
    measure_disturbance();
    return describe();
  }

 private:
  // A figure of the whole machine: the mean over ranks.
  double mean(double value) {
    const auto sum = lane_.all_reduce(&value, 1, DType::kFloat64);
    if (!sum.ok()) mpi_abort(sum.error());
    return value / communicator_.world();
  }
  // The mean over the ranks that compute. More than there are cores would take turns: then the
  // clock shares the cores between them (core/clock), and the profile has a core's own speed.
  double mean_active(double value) {
    return mean(active_ ? value : 0) * communicator_.world() / computing_;
  }
  // A rank that fails ends all of them: the others wait for it.
  void together() {
    const Status met = lane_.rendezvous(++meetings_);
    if (!met.ok()) mpi_abort(met.error());
  }

  // Seconds of forward and backward together beyond the launch of their kernels.
  double seconds_of(const Block& block, const Totals& totals) {
    const BlockTime time = timed(block);
    spread_ = std::max(spread_, std::min(1.0, mean_active(time.spread)));
    const double all = mean_active(time.forward_s + time.backward_s);
    return std::max(0.2 * all, all - totals.kernels * launch_);
  }

  BlockTime timed(const Block& block) {
    BlockTime time;
    if (active_) {
      time = time_block(block, kBudget, [this] { together(); });
    } else {
      together();
    }
    together();  // waits asleep: a blocking collective would disturb ranks that still measure
    return time;
  }

  void measure_launch() {
    const Block block = pass_block(PassKind::kNorm, 1, 32);
    const Totals totals = totals_of(block, 0);
    const BlockTime time = timed(block);
    launch_ = mean_active(time.forward_s + time.backward_s) / totals.kernels;
  }

  void measure_products() {
    const std::vector<std::array<std::int64_t, 3>> shapes = {
        {16, 64, 64},     {64, 64, 64},    {128, 128, 128},   {256, 256, 256},
        {1024, 256, 256}, {512, 512, 512}, {1024, 1024, 1024}};
    for (const auto& [m, n, k] : shapes) {
      const Block block = linear_block(m, n, k, DType::kFloat32);
      const Totals totals = totals_of(block, 0);
      const double rate = totals.flops / seconds_of(block, totals);
      rates_["gemm"][totals.flops / totals.items] = rate;
      peak_fp32_ = std::max(peak_fp32_, rate);
    }
    const auto peak = [&](DType dtype) {
      const Block block = linear_block(512, 512, 512, dtype);
      const Totals totals = totals_of(block, 0);
      return totals.flops / seconds_of(block, totals);
    };
    peak_bf16_ = peak(DType::kBFloat16);
    peak_fp64_ = peak(DType::kFloat64);
    for (const std::int64_t rows : {2, 8, 32, 128, 512}) {
      const std::int64_t experts = 8;
      const Block block = grouped_block(experts, rows, 256, 256);
      const Totals totals = totals_of(block, 0);
      rates_["grouped"][totals.flops / totals.items / static_cast<double>(experts)] =
          totals.flops / seconds_of(block, totals);
    }
  }

  void measure_attention() {
    for (const std::int64_t tokens : {32, 128, 256, 512}) {
      const std::int64_t sequences = 2;
      const Block block = attention_probe_block(sequences, tokens, 8, 2, 32);
      const Totals totals = totals_of(block, sequences * tokens * (tokens + 1) / 2);
      rates_["attention"][totals.flops / totals.items] = totals.flops / seconds_of(block, totals);
    }
  }

  void measure_memory() {
    for (const PassKind kind :
         {PassKind::kStream, PassKind::kNorm, PassKind::kRope, PassKind::kActivation}) {
      for (const std::int64_t rows : {16, 128, 1024, 4096}) {
        const Block block = pass_block(kind, rows, 256);
        const Totals totals = totals_of(block, 0);
        const double rate = totals.bytes / seconds_of(block, totals);
        rates_[name_of(kind)][totals.bytes / totals.items] = rate;
        bandwidth_ = std::max(bandwidth_, rate);
      }
    }
  }

  // Seconds of one all-gather of `bytes` a rank, meeting included, as the engine issues it.
  double all_gather_seconds(std::int64_t bytes, double budget_s) {
    const std::int32_t world = communicator_.world();
    std::vector<char> send(static_cast<std::size_t>(bytes));
    std::vector<char> receive(static_cast<std::size_t>(bytes * world));
    std::vector<double> times;
    together();
    // Ranks must agree on the number of rounds: by size, not by time.
    const int rounds =
        static_cast<int>(std::clamp(budget_s / (20e-6 + 4e-10 * double(bytes)), 8.0, 200.0));
    for (int i = 0; i < rounds; ++i) {
      const std::int64_t t0 = now_ns();
      together();
      CHECK(lane_.all_gather(send.data(), receive.data(), bytes).ok(), "probe: all-gather");
      times.push_back(static_cast<double>(now_ns() - t0) * 1e-9);
    }
    std::sort(times.begin(), times.end());
    return mean(times[times.size() / 2]);
  }

  void measure_links() {
    const std::int32_t world = communicator_.world();
    if (world == 1) return;
    const double small = all_gather_seconds(1024, 0.3);
    constexpr std::int64_t kLarge = 1 << 20;
    const double large = all_gather_seconds(kLarge, 0.5);
    latency_ = small / std::ceil(std::log2(static_cast<double>(world)));
    link_bandwidth_ =
        static_cast<double>(kLarge) * (world - 1) / std::max(large - small, 0.1 * large);
  }

  void measure_disturbance() {
    if (communicator_.world() == 1) return;
    constexpr std::int64_t kBytes = 256 << 10;
    const double transfer_s = all_gather_seconds(kBytes, 0.2);
    core_s_a_byte_ = core_seconds_a_byte(lane_, kBytes, transfer_s, share_.cores);
  }

  EfficiencyCurve curve(const std::string& name, double peak) const {
    EfficiencyCurve c;
    for (const auto& [size, rate] : rates_.at(name)) {
      c.size.push_back(size);
      c.fraction.push_back(std::clamp(rate / peak, 1e-4, 1.0));
    }
    return c;
  }

  Cluster describe() const {
    Cluster cluster;
    const std::int32_t world = communicator_.world();
    cluster.name = "local-cpu-measured";
    cluster.devices = cluster.devices_per_node = world;
    cluster.cores_per_node = cores_;
    DeviceProfile& d = cluster.device;
    d.name = "cpu, " + std::to_string(world) + " ranks on " + std::to_string(cores_) + " cores";
    d.peak_fp32 = FlopsPerSecond(peak_fp32_);
    d.peak_bf16 = FlopsPerSecond(peak_bf16_);
    d.peak_fp64 = FlopsPerSecond(peak_fp64_);
    d.memory_bandwidth = BytesPerSecond(bandwidth_);
    // The host is the device here: a copy reads and writes each byte in the same memory.
    d.host_bandwidth = BytesPerSecond(bandwidth_ / 2);
    const std::int64_t total = sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    d.memory = Bytes(total / world);
    d.reserved = Bytes(total / world / 8);
    d.launch = Seconds(launch_);
    d.gemm = curve("gemm", peak_fp32_);
    d.grouped = curve("grouped", peak_fp32_);
    d.attention = curve("attention", peak_fp32_);
    d.memory_eff = curve(name_of(PassKind::kStream), bandwidth_);
    for (const PassKind kind :
         {PassKind::kStream, PassKind::kNorm, PassKind::kRope, PassKind::kActivation}) {
      d.passes[static_cast<std::size_t>(kind)] = curve(name_of(kind), bandwidth_);
    }
    cluster.tiers = {{"shm", world, BytesPerSecond(link_bandwidth_), Seconds(latency_)}};
    cluster.tiers[0].cpu = std::min(1.0, core_s_a_byte_ * link_bandwidth_);
    cluster.collectives = CollectiveAlgorithm::kPairs;
    cluster.uncertainty = std::clamp(spread_, 0.1, 1.0);
    return cluster;
  }

  Communicator& communicator_;
  Channel& lane_;
  const CoreShare share_;
  const bool active_;     // whether it measures compute: one rank a core does
  double computing_ = 1;  // ranks that do
  std::int64_t cores_ = 1;
  std::uint64_t meetings_ = 0;
  std::map<std::string, std::map<double, double>> rates_;  // by class and size
  double launch_ = 0, peak_fp32_ = 0, peak_bf16_ = 0, peak_fp64_ = 0, bandwidth_ = 0;
  double latency_ = 1e-6, link_bandwidth_ = 1e9, core_s_a_byte_ = 0;
  double spread_ = 0;  // of repeated forwards: what no prediction can be nearer than
};

Status write_file(const std::string& path, const std::string& text) {
  const std::string temporary = path + ".tmp-" + std::to_string(getpid());
  std::ofstream out(temporary, std::ios::trunc);
  out << text << "\n";
  out.close();
  if (!out || std::rename(temporary.c_str(), path.c_str()) != 0) {
    std::remove(temporary.c_str());
    return Error::of(ErrorCode::kIo, path, "cannot be written");
  }
  return Ok{};
}

}  // namespace

Status probe_machine(const std::string& out) {
  const auto started = mpi_world();
  if (!started.ok()) mpi_abort(started.error());
  const MpiWorld world = started.value();
  const CoreShare share = hold_to_cores(local_rank());
  at::set_num_threads(1);
  install_metered_allocator();  // as in a run: its cost belongs to the figures
  Status written = Ok{};
  {
    auto communicator = make_mpi({{"world", world.size, 1}}, {{Lane::kFsdp, 0}}, world.size);
    if (!communicator.ok()) mpi_abort(communicator.error());
    Probe probe(*communicator.value(), share);
    const auto cluster = guarded("probe", [&]() -> Result<Cluster> { return probe.run(); });
    if (!cluster.ok()) mpi_abort(cluster.error());
    if (world.rank == 0) written = write_file(out, to_json(cluster.value()).dump());
  }
  mpi_finish();
  return written;
}

}  // namespace orrery::engine
