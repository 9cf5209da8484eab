// Small models, clusters, workloads and plans made in code, and random legal plans from a seed:
// what the tests of lowering, verifier, clock, simulator and planner run on.
#pragma once

#include <cstdint>
#include <string>

#include "core/plan.h"

namespace orrery {

// A deterministic source of choices (splitmix64): the same on every platform and library.
class Draw {
 public:
  explicit Draw(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next();
  // Uniform in [low, high].
  std::int64_t between(std::int64_t low, std::int64_t high);
  bool coin() { return between(0, 1) == 1; }
  // A divisor of n, each equally likely.
  std::int64_t divisor_of(std::int64_t n);

 private:
  std::uint64_t state_;
};

// Qwen3 dense: `layers` layers of hidden 8, 4 query and 2 key heads, vocabulary 32.
Model small_dense_model(std::int64_t layers = 2, bool tied_head = false);
// Qwen3 MoE: the same with `experts` experts, top 2, in every layer.
Model small_moe_model(std::int64_t layers = 2, std::int64_t experts = 4);
// `devices` devices in nodes of at most 8, two link tiers, round numbers.
Cluster small_cluster(std::int64_t devices);
// Rows of 8 tokens in documents of 5 and 3.
Workload small_workload(std::int64_t global_sequences, DType compute = DType::kFloat32);

// Recomputes the hashes of the nouns and of the plan after a change; CHECKs that the plan is legal.
void seal(Plan& plan);

// Sealed. FSDP over the world; experts by ep x fsdp_e = world; one sequence a micro-batch.
Plan small_dense_plan(std::int64_t world = 2, std::int64_t accumulation = 2);
Plan small_moe_plan(std::int64_t world = 2, std::int64_t ep = 2, std::int64_t accumulation = 2);

// A legal plan drawn from the whole space that lowering takes: dense and MoE (some layers dense),
// tied or not, every factorisation and rank order of 1..16 ranks, micro-batch x accumulation, loss
// and attention chunks, prefetch depth, recompute, fp32, bf16 and fp64, both balance scopes.
Plan random_plan(std::uint64_t seed);
// The same, and every mechanism of the layout drawn together with the others: shared sequences,
// interleaved micro-batches, exchange parts, both dispatchers, buckets, kept layers, recompute by
// class, swap, moments on the host, router z loss. `largest_world`: at most 16.
Plan random_mechanism_plan(std::uint64_t seed, std::int64_t largest_world = 16);

}  // namespace orrery
