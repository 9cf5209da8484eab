// What the ops of a candidate cost, by the simulator's own functions, each computed once and kept:
// a search asks for the same blocks, units and routings a million times.
//
// All times are nanoseconds, rounded as the simulator rounds them (op_durations). Loads are those
// that the nominal replay draws (seed 0), and a routed op is priced for the member of its expert
// group that it takes longest on: the others wait for that one at the next exchange.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "core/models/family.h"
#include "core/plan.h"
#include "planner/space.h"

namespace orrery::planner {

// The blocks of one micro-batch on one rank. Zero where the model has none.
struct BlockCosts {
  double load = 0;
  double embed_fwd = 0, embed_bwd = 0;
  double attention_fwd = 0, attention_bwd = 0;
  double mlp_fwd = 0, mlp_bwd = 0;
  double router_fwd = 0, router_bwd = 0, replay_fwd = 0, replay_bwd = 0;
  double merge_fwd = 0, merge_bwd = 0, balance = 0;
  double loss = 0;  // all chunks
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

// One unit under one sharding.
struct UnitCosts {
  bool resident = false;
  bool sharded = false;  // gathers and reduces are collectives on the fsdp lane
  double gather = 0, reduce = 0, replicate = 0, accumulate = 0, update = 0;
  std::int64_t shard_bytes = 0;  // of the step's gradient, and of each moment
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
};

// Unpadded elements of the units of a model; zero where it has none.
struct UnitSizes {
  std::int64_t embed = 0, head = 0, dense_layer = 0, moe_layer = 0, experts = 0;
};

class Costs {
 public:
  Costs(const Model& model, const Cluster& cluster, const Workload& workload);

  // The part of a candidate that its layout fixes; `chunked`: the loss runs in chunks.
  CandidateCosts layout_costs(const Layout& layout, bool chunked);
  // Of that, what depends on neither routing nor blocks: the units, and sums over the world.
  CandidateCosts all_unit_costs(const Layout& layout, bool chunked);
  const BlockCosts& block_costs(const Layout& layout, const Chunks& chunks);
  CandidateCosts candidate(const Layout& layout, const Chunks& chunks);

  const Model& model() const { return model_; }
  const Cluster& cluster() const { return cluster_; }
  const Workload& workload() const { return workload_; }
  bool chunked(const Layout& layout, const Chunks& chunks) const;
  // Of the first n layers.
  std::int64_t moe_layers(std::int64_t n) const { return moe_before_[static_cast<std::size_t>(n)]; }

 private:
  const UnitSizes& unit_sizes(std::int64_t ep);
  const RoutedCosts& routed_costs(const Layout& layout);
  const ExchangeCosts& exchange_costs(const Layout& layout);
  UnitCosts unit_costs(std::int64_t numel, const Sharding& sharding, DType grad_dtype) const;
  double collective(std::int64_t size, std::int64_t stride, OpKind kind, WireBytes wire) const;
  double memory(double bytes) const;
  BlockShape shape_of(const Layout& layout, const Chunks& chunks) const;

  Model model_;
  Cluster cluster_;
  Workload workload_;
  std::vector<std::int64_t> moe_before_;
  std::map<std::int64_t, UnitSizes> sizes_;  // by ep
  std::map<std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t>, BlockCosts> blocks_;
  std::map<std::tuple<std::int64_t, std::int64_t>, RoutedCosts> routed_;
  std::map<std::tuple<std::int64_t, std::int64_t, std::int64_t>, ExchangeCosts> exchanges_;
};

}  // namespace orrery::planner
