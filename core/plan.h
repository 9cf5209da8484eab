// Plan: the layout, the chunk sizes, the memory policy; and what was predicted for it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/cluster.h"
#include "core/json.h"
#include "core/model.h"
#include "core/packing.h"
#include "core/result.h"
#include "core/workload.h"

namespace orrery {

// The world is factorised three times over the same ranks (design, "World"):
//   data: dp x cp x sp x tp; dense parameters: replicate_d x fsdp_d x tp;
//   expert parameters: replicate_e x fsdp_e x ep x etp.
struct Layout {
  std::int64_t dp = 1, cp = 1, sp = 1, tp = 1, pp = 1;
  std::int64_t replicate_d = 1, fsdp_d = 1;
  std::int64_t replicate_e = 1, fsdp_e = 1, ep = 1, etp = 1;
  std::int64_t micro_batch = 1;  // sequences
  std::int64_t accumulation =
      1;  // passes through the layers a step, of `domino` micro-batches each
  // Which axis is innermost (neighbouring ranks): "fsdp" or "replicate"; "ep" or "fsdp".
  std::string dense_inner = "fsdp";
  std::string expert_inner = "ep";
  // How rows reach the experts of other ranks: "all_to_all" (each row to the experts it chose) or
  // "all_gather" (every token to every rank of the expert group, partial sums back).
  std::string dispatcher = "all_to_all";
  std::int64_t world() const { return dp * cp * sp * tp * pp; }
  bool operator==(const Layout&) const = default;
};

struct Chunks {
  std::int64_t loss_tokens = 0;      // rows of one loss chunk; 0: all at once
  std::int64_t attention_query = 0;  // query rows of one attention chunk; 0: all at once
  std::int64_t prefetch_depth = 1;   // buckets gathered ahead
  std::int64_t gather_layers = 1;    // layers gathered and reduced together (a bucket)
  std::int64_t domino = 1;           // micro-batches that one pass through the layers interleaves
  std::int64_t exchange_parts = 1;   // parts of an expert exchange: the local experts in groups
  bool operator==(const Chunks&) const = default;
};

struct MemoryPolicy {
  std::int64_t recompute_layers = 0;     // the first n layers are recomputed whole in backward
  std::int64_t recompute_attention = 0;  // of the first n layers, attention
  std::int64_t recompute_ffn = 0;        // the MLP, or the MoE with its exchanges
  std::int64_t recompute_experts = 0;    // the experts' products alone: their rows are kept
  std::int64_t swap_layers = 0;    // inputs of the first n layers go to the host until backward
  std::int64_t swap_distance = 1;  // layers that they are brought back ahead of use
  std::int64_t keep_layers = 0;    // parameters of the last n layers stay gathered until backward
  bool host_optimizer = false;     // the optimizer's moments live on the host
  bool operator==(const MemoryPolicy&) const = default;
};

struct MemoryRow {
  std::string cls;
  Bytes bytes;
};

struct Prediction {
  Seconds step, p10, p90;
  Bytes peak;
  double tokens_per_s = 0;
  double mfu = 0;
  std::vector<MemoryRow> memory;  // bytes of each class at the moment of the peak
  DocumentCost document_cost;     // of one row's documents; zero where it was not asked for
};

struct RunnerUp {
  Layout layout;
  Chunks chunks;
  MemoryPolicy policy;
  Prediction predicted;
  std::string lost_by;
  bool tie = false;  // not told apart from the fastest (planner/plans/decide.h)
};

// A plan that fits from `memory` of a device on, and is the fastest found for `searched` of it.
struct FrontierPoint {
  Bytes memory, searched;
  Layout layout;
  Chunks chunks;
  MemoryPolicy policy;
  Prediction predicted;
};

struct Rejection {
  std::string rule;
  std::int64_t count = 0;
};

// Of the listed space: best_s is the best of it, and no plan of it is faster. `refined`: replays of
// mechanisms beyond it, tried around its best plans; predicted.step may be below best_s by them.
struct Proof {
  std::int64_t legal = 0, bounded = 0, replayed = 0, refined = 0;
  double best_s = 0, bound_remaining_s = 0, seconds = 0;
};

// What the plan would need without one of its mechanisms, for a job that does not fit plainly.
struct FitReason {
  std::string mechanism;  // "sp", "recompute", ...; the first: all that go beyond a plain plan
  Bytes without_peak;  // of the fastest plan that fits without it, or of the least that was found
  bool fits_without = false;
};

// By what the plan was taken of those that the model cannot tell apart (planner/plans/decide.h).
struct Decision {
  std::string risk;  // "expected" or "p90"; empty: nothing was decided, the plan is the fastest
  double asked_fit = 0, fit = 0;  // probability that it fits: asked for, and found
  Bytes held_back;                // of a device's memory, so that it does
  double fastest_s = 0;           // by the same clock
  bool operator==(const Decision&) const = default;
};

struct Plan {
  // The nouns are embedded, so that a plan can be simulated and trained with nothing else.
  Model model;
  Cluster cluster;
  Workload workload;
  Layout layout;
  Chunks chunks;
  MemoryPolicy policy;
  Prediction predicted;
  std::vector<RunnerUp> runners_up;
  std::vector<Rejection> rejected;
  Proof proof;
  std::vector<FitReason> fits_because;  // empty where it fits plainly
  Decision decision;
  std::vector<FrontierPoint> frontier;  // of time against memory; empty where it was not asked for
  std::string sha256;                   // plan_sha256(): set by the planner and by parse_plan
};

// Every rule that the layout breaks, by name and with the numbers; empty when legal. The rules:
// engine_family, positive, engine_axes, world_size, world_factors, expert_world_factors,
// ep_without_experts, experts_divide, batch_divides, heads_divide, order_names, dispatcher,
// chunk_ranges, exchange_parts, recompute_range, swap_range, keep_range.
struct Violation {
  std::string rule;
  std::string reason;
};
std::vector<Violation> violations(const Model& model, const Cluster& cluster,
                                  const Workload& workload, const Layout& layout,
                                  const Chunks& chunks, const MemoryPolicy& policy);

// Of layout, chunks, policy and the hashes of the nouns: what decides the program.
std::string plan_sha256(const Plan& plan);

// The plan with a step of at most `passes` passes: the others repeat them. Its hash is not renewed.
Plan shortened(Plan plan, std::int64_t passes);

// plan.json (design, section 9), with the nouns embedded. parse_plan reads it back to the same
// bytes; it reports every problem: unknown keys, nouns that do not hash to what "inputs" says, and
// every rule that the layout breaks.
Json to_json(const Plan& plan);
Json to_json(const Layout& layout);
Json to_json(const Chunks& chunks);
Json to_json(const MemoryPolicy& policy);
Json to_json(const Prediction& prediction);
Result<Plan> parse_plan(const std::string& text, const std::string& place);
Result<Plan> load_plan(const std::string& path);
// One line for people: "fsdp 32 x replicate 8 | ep 8 | micro-batch 1 x 4 | recompute 94 | ..."
std::string describe(const Layout& layout, const Chunks& chunks, const MemoryPolicy& policy);

}  // namespace orrery
