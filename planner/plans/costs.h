// What the ops of a candidate cost, by the simulator's own functions, each computed once and kept:
// a search asks for the same blocks, units and routings a million times.
//
// All times are nanoseconds, rounded as the simulator rounds them (op_durations). Loads are those
// that the nominal replay draws (seed 0), and a routed op is priced for the member of its expert
// group that it takes longest on: the others wait for that one at the next exchange. Where
// exchanges hide, nobody waits: RankCosts has what each member does.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "core/models/family.h"
#include "core/plan.h"
#include "planner/plans/space.h"
#include "simulator/binding.h"

namespace orrery::planner {

// The blocks of one micro-batch on one rank. Zero where the model or the layout has none.
struct BlockCosts {
  double load = 0;  // of the whole step
  double embed_fwd = 0, embed_bwd = 0;
  double attention_fwd = 0, attention_bwd = 0;
  // Of a sequence that several ranks share, with the all-to-alls before and after the core.
  double qkv_fwd = 0, qkv_bwd = 0, core_fwd = 0, core_bwd = 0, out_fwd = 0, out_bwd = 0;
  double to_heads = 0, to_rows = 0;
  double mlp_fwd = 0, mlp_bwd = 0;
  double router_fwd = 0, router_bwd = 0, replay_fwd = 0, replay_bwd = 0;
  double loads = 0;  // the sum that moves router biases
  double shared_fwd = 0, shared_bwd = 0;
  double merge_fwd = 0, merge_bwd = 0, balance = 0;
  double loss = 0;  // all chunks

  // Compute of a layer's attention, and its all-to-alls.
  double attend_fwd() const { return attention_fwd + qkv_fwd + core_fwd + out_fwd; }
  double attend_bwd() const { return attention_bwd + qkv_bwd + core_bwd + out_bwd; }
  double attend_exchange() const { return to_heads + to_rows; }
};

// Indexed by micro-batch x layers + layer; zero for dense layers.
struct RoutedCosts {
  std::vector<double> experts_fwd, experts_bwd;
  std::vector<std::int64_t> most, least;  // rows that a rank sends to the fullest, emptiest peer
  double sum_fwd = 0, sum_bwd = 0;
  std::vector<double> fwd_before;  // [n]: experts_fwd of layers below n, all micro-batches
};

struct ExchangeCosts {
  std::vector<double> exchange;  // like RoutedCosts
  double counts = 0;             // of one layer, rows per expert
  double balance_counts = 0;     // of one layer, where the balancing loss spans the world
  double sum = 0;
  std::vector<double> sum_before;
};

// Routed compute of the replayed members of an expert group, each on its own; exchanges in parts,
// or gathers of all tokens.
struct RankCosts {
  struct Member {
    double all = 0;                    // forward and backward of the step
    std::vector<double> again_before;  // [n]: experts run again in layers below n
  };
  std::vector<Member> members;
  double gather_fwd = 0, gather_again = 0, gather_bwd = 0;  // of one layer, by all_gather
};

// One unit under one sharding.
struct UnitCosts {
  bool resident = false;
  bool sharded = false;  // gathers and reduces are collectives on the fsdp lane
  double gather = 0, reduce = 0, replicate = 0, accumulate = 0, update = 0;
  double copy = 0;               // of one moment to the host or back
  std::int64_t shard_bytes = 0;  // of the step's gradient, and of each moment
};

// Sums over the units of a step, units of several layers joined to buckets.
struct UnitSums {
  double compute = 0;  // of a pass: unsharding of a unit each time it is gathered, accumulation
  double fsdp = 0;     // of a pass: gathers and reductions
  double replicate = 0, norm = 0, update = 0, copy = 0;  // of the step
};

struct Sharding {
  std::int64_t shards = 1, shard_stride = 1, replicas = 1, replica_stride = 1;
  auto operator<=>(const Sharding&) const = default;
};

// Everything that a bound of one candidate reads. Pointers into Costs.
struct CandidateCosts {
  const BlockCosts* block = nullptr;
  const RoutedCosts* routed = nullptr;
  const ExchangeCosts* exchange = nullptr;
  UnitCosts embed, head, dense_layer, moe_layer, experts;
  double label_count = 0, norm = 0, metrics = 0;
  double world_loads = 0, bias = 0;  // of router biases, once a step
};

// Unpadded elements of the units of a model; zero where it has none.
struct UnitSizes {
  std::int64_t embed = 0, head = 0, dense_layer = 0, moe_layer = 0, experts = 0;
};

class Costs {
 public:
  Costs(const Model& model, const Cluster& cluster, const Workload& workload);

  // The units of a candidate, and sums over the world: what its layout fixes, under the chunks that
  // matter to it (domino, and whether the loss runs in chunks).
  CandidateCosts all_unit_costs(const Layout& layout, const Chunks& chunks);
  void add_routing(const Layout& layout, const Chunks& chunks, CandidateCosts& costs);
  const BlockCosts& block_costs(const Layout& layout, const Chunks& chunks);
  CandidateCosts candidate(const Layout& layout, const Chunks& chunks);
  // For plans whose exchanges hide, whose layers share buckets or stay gathered.
  const RankCosts& rank_costs(const Layout& layout, const Chunks& chunks);
  const UnitSums& unit_sums(const Layout& layout, const Choice& choice);

  const Model& model() const { return model_; }
  const Cluster& cluster() const { return cluster_; }
  const Workload& workload() const { return workload_; }
  bool chunked(const Layout& layout, const Chunks& chunks) const;
  BlockShape shape_of(const Layout& layout, const Chunks& chunks) const;
  // Of the first n layers.
  std::int64_t moe_layers(std::int64_t n) const { return moe_before_[static_cast<std::size_t>(n)]; }

 private:
  using Key = std::vector<std::int64_t>;
  const UnitSizes& unit_sizes(std::int64_t ep);
  const RoutedCosts& routed_costs(const Layout& layout, const Chunks& chunks);
  const ExchangeCosts& exchange_costs(const Layout& layout, const Chunks& chunks);
  void price_turns(const Layout& layout, const ModelBlocks& blocks, BlockCosts& costs) const;
  const simulator::Loads& loads(const Layout& layout, const Chunks& chunks);
  RankCosts price_ranks(const Layout& layout, const Chunks& chunks);
  void price_gathers(const Layout& layout, const BlockShape& shape, RankCosts& out) const;
  UnitSums sum_units(const Layout& layout, const Choice& choice);
  UnitCosts unit_costs(std::int64_t numel, const Sharding& sharding, DType grad_dtype) const;
  double collective(std::int64_t size, std::int64_t stride, OpKind kind, WireBytes wire) const;
  double memory(double bytes, PassKind pass = PassKind::kStream) const;

  Model model_;
  Cluster cluster_;
  Workload workload_;
  mutable Plan shaped_;  // the nouns, and the layout and chunks whose shapes were asked for last
  std::vector<std::int64_t> moe_before_;
  std::map<std::int64_t, UnitSizes> sizes_;  // by ep
  std::map<std::array<std::int64_t, 9>, BlockCosts> blocks_;
  std::map<Key, simulator::Loads> loads_;
  std::map<Key, RoutedCosts> routed_;
  std::map<Key, ExchangeCosts> exchanges_;
  std::map<Key, RankCosts> ranks_;
  std::map<Key, UnitSums> sums_;
};

// Dense and expert parameters of a layout, as lowering makes their groups.
Sharding dense_sharding(const Layout& layout);
Sharding expert_sharding(const Layout& layout);

}  // namespace orrery::planner
