// A job: what is trained, on what, and how, over all axes that can be simulated. The engine's plans
// are a part of this space; published runs are described by it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/cluster.h"
#include "core/model.h"
#include "core/plan.h"
#include "core/stack.h"

namespace orrery {

// What the products run in; weights, gradients and optimizer states are those of the stack.
enum class Precision : std::uint8_t { kFp32, kTf32, kFp16, kBf16, kFp8 };
const char* name_of(Precision precision);

// What is split over the ranks that hold other sequences (ZeRO's stages, Rajbhandari 2020):
// nothing, the optimizer's states, gradients too, parameters too (FSDP).
enum class Sharding : std::uint8_t { kNone, kOptimizer, kGradients, kParameters };
const char* name_of(Sharding sharding);

// Orders of simulator/stages/pipeline.h. kOverlapped: interleaved, one micro-batch's forward beside
// another's backward, so that exchanges of experts hide behind the other's compute.
enum class PipelineSchedule : std::uint8_t {
  kGpipe,
  kOneForwardOneBackward,
  kInterleaved,
  kZeroBubble,
  kOverlapped
};
inline constexpr int kNumSchedules = 5;
const char* name_of(PipelineSchedule schedule);

// How the ranks of a context group see each other's keys: in a ring, by exchanging heads, by
// gathering all.
enum class ContextExchange : std::uint8_t { kRing, kAllToAll, kAllGather };
const char* name_of(ContextExchange exchange);

// How rows reach experts: each to its experts' ranks, once to each node of them (DeepEP), or all
// tokens to all.
enum class Dispatcher : std::uint8_t { kAllToAll, kDeduplicated, kAllGather };
const char* name_of(Dispatcher dispatcher);

// Parts of a layer that backward may run again instead of keeping what they made.
enum class Module : std::uint8_t {
  kNorm,
  kProjections,  // of queries, keys, values
  kLatentUp,     // of latent attention: the projections out of the latent rows
  kCoreAttention,
  kOutput,  // attention's output projection
  kMlp,
  kRouter,
  kDispatch,  // rows to experts and back
  kExperts,
  kExpertActivation,
  kSharedExperts,
  kEnds,  // embedding and head
};
inline constexpr int kNumModules = 12;
const char* name_of(Module module);

struct Recompute {
  bool full = false;             // every layer of `full_layers`, from its input
  std::int64_t full_layers = 0;  // of each stage; 0: all
  std::vector<bool> modules = std::vector<bool>(kNumModules, false);  // where not full
  // Where neither: what passes make and what every second product makes; outputs of attention, of
  // sums over ranks and of the other products are kept (selective checkpointing of torchtitan).
  bool ops = false;
  bool again(Module m) const { return modules[static_cast<std::size_t>(m)]; }
  bool operator==(const Recompute&) const = default;
};

struct Job {
  Model model;
  Cluster cluster;
  Stack stack;
  // dp x cp x tp x pp ranks (sp of Ulysses beside cp). Of the data axis (dp x cp), fsdp_d share
  // what `sharding` splits and replicate_d hold the same.
  Layout layout;
  std::int64_t virtual_stages = 1;  // of each rank, with kInterleaved and kOverlapped
  PipelineSchedule schedule = PipelineSchedule::kOneForwardOneBackward;
  // Layers of each virtual stage, from the embedding to the head; the first and the last may have
  // none. Empty: dealt out evenly, what is left over to the stages in the middle.
  std::vector<std::int64_t> stage_layers;
  std::int64_t stages() const { return layout.pp * virtual_stages; }
  bool sequence_parallel = false;  // norms and sums between products are split over tp too
  Sharding sharding = Sharding::kOptimizer;
  bool keeps_gathered = false;  // kParameters: parameters stay gathered until backward
  ContextExchange context = ContextExchange::kRing;
  Dispatcher dispatcher = Dispatcher::kAllToAll;
  Precision precision = Precision::kBf16;
  Recompute recompute;
  bool trains_adapters = false;  // low-rank adapters alone: no gradients of the weights
  double expert_load_cv = 0;     // coefficient of variation of the load of the experts
  std::int64_t sequence_tokens = 0;
  // Tokens of the documents that are packed into each sequence, in order: attention stays inside
  // them. Empty: one.
  std::vector<std::int64_t> documents;
  std::int64_t global_sequences = 0;  // a step
  std::int64_t micro_batches() const { return global_sequences / (layout.dp * layout.micro_batch); }
};

// Every rule that the job breaks; empty where it can be simulated. The rules: positive, world,
// batch, heads_divide, layers_divide, stage_layers, schedule, experts_divide, context, documents,
// sharding.
std::vector<Violation> violations(const Job& job);

// Layers of each virtual stage where they are dealt out evenly: what is left over goes to stages in
// the middle, then to the first, the last stage last.
std::vector<std::int64_t> even_layers(std::int64_t layers, std::int64_t stages);

// As many documents of about `mean` tokens, all alike, as fill a sequence.
std::vector<std::int64_t> equal_documents(std::int64_t sequence_tokens, double mean);

}  // namespace orrery
