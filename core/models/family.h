// A model family: what a layer and the ends of a model are made of, as blocks of primitives and
// lists of parameters. Adding a family is one .cpp and one row in families().
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/model.h"
#include "core/plan.h"
#include "core/program/block.h"
#include "core/program/program.h"
#include "core/workload.h"

namespace orrery {

// What decides the shapes of the blocks of one micro-batch on one rank.
struct BlockShape {
  std::int64_t sequences = 1;         // of the micro-batch
  std::int64_t sequence_tokens = 1;   // padded to a multiple of sp
  std::int64_t valid_tokens = 1;      // of a sequence, without that padding
  std::int64_t global_sequences = 1;  // of the step, in the world: scale of the balancing loss
  std::int64_t dp = 1;                // ranks that hold other sequences
  std::int64_t micro_batches = 1;     // a step
  std::int64_t sp = 1;                // ranks that share a sequence
  std::int64_t ep = 1;
  std::int64_t exchange_parts = 1;   // of the local experts
  bool gather_dispatch = false;      // rows come by all-gather, not by all-to-all-v
  std::int64_t domino = 1;           // micro-batches that add to one gradient
  std::int64_t attention_query = 0;  // query rows of one attention chunk; 0: all at once
  std::int64_t loss_tokens = 0;      // rows of one loss chunk; 0: all at once
  DType compute = DType::kFloat32;
  DType master = DType::kFloat32;
  BalanceScope balance_scope = BalanceScope::kSequence;
  double z_loss = 0;                                                          // coefficient
  std::int64_t tokens() const { return sequences * (sequence_tokens / sp); }  // of this rank
};

// Shapes: T = shape.tokens() rows of this rank, W = sp * T rows of whole sequences, R rows that
// came to this rank's experts (or to one part of them), G = ep * T rows of the expert group, H
// hidden, k picks a token, q = heads * head_dim. Blocks that a plan does not use stay empty.
//
// Attention is `attention` where sp = 1, else qkv -> all-to-all -> core -> all-to-all -> out.
// The MoE is router -> exchange -> experts -> exchange -> merge (all_to_all), or router ->
// all-gather
// -> select -> experts -> spread -> reduce-scatter -> merge (all_gather). What a router returns
// beside its first outputs, in this order and only where used: normed [T,H] (shared experts, or
// all_gather), z_loss [1].
struct ModelBlocks {
  Block embed;      // ids [T,1] -> x [T,H]
  Block attention;  // x -> x1
  Block qkv;        // x -> packed [sp*T, (q + 2 kv)/sp * head_dim], peer-major; kv heads >= sp
  Block core;       // packed, rows by (peer, sequence, position) -> attended, in the same order
  Block out;        // x, attended [sp*T, q/sp], peer (head block) major -> x1
  Block mlp;        // x1 -> x2 (dense layers)
  // all_to_all: x1[, bias [1,E]] -> rows [T*k,H], weights, prob_sum, counts, ids, order [T*k,1],
  //   expert_counts [E,1] [, normed] [, z_loss]
  // all_gather: x1[, bias] -> weights, prob_sum, counts, ids, expert_counts, normed [, z_loss]
  Block router;
  // all_to_all: x1, ids, order -> rows, weights, prob_sum [, normed] [, z_loss]
  // all_gather: x1, ids -> weights, prob_sum, normed [, z_loss]
  Block router_replay;
  Block select;         // normed [G,H], ids [G,k] -> rows [R,H], order [R,1]: of local experts
  Block select_replay;  // normed [G,H], order [R,1] -> rows
  Block experts;        // rows -> rows, of one exchange part
  Block spread;         // rows [R,H], weights [G,k], order [R,1] -> partial sums [G,H]
  Block shared;         // normed -> y [T,H] (shared experts)
  // all_to_all: x1, rows [T*k,H], weights, order [, shared y] -> x2
  // all_gather: x1, y [T,H] [, shared y] -> x2
  Block merge;
  Block balance;    // prob_sum, counts -> loss
  Block loss;       // x, labels -> loss, on loss_tokens rows
  Block loss_tail;  // the same on the rows that are left, if any
};

struct Family {
  const char* model_type;
  ModelBlocks (*blocks)(const Model&, const BlockShape&);
  // Parameters in storage order. Units: "embed", "layer.N", "layer.N/experts", "head".
  std::vector<Unit> (*units)(const Model&, std::int64_t ep);
};

// The shapes that a plan's ranks compute on.
BlockShape block_shape(const Plan& plan);

// CHECKs that the type is known: parse_model has refused others.
const Family& family_of(const Model& model);

// The dtype of a unit's gradient before it is reduced: the compute dtype, except where more than
// one op adds to it (chunks of the loss, a tied head, interleaved micro-batches): then the
// master's.
DType gradient_dtype(const Model& model, const BlockShape& shape, const std::string& unit);

// Rows of one loss chunk, and how many chunks of a micro-batch (the last may be shorter).
std::int64_t loss_chunk_rows(const BlockShape& shape);
std::int64_t loss_chunks(const BlockShape& shape);

}  // namespace orrery
