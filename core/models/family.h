// A model family: what a layer and the ends of a model are made of, as blocks of primitives and
// lists of parameters. Adding a family is one .cpp and one row in families().
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/model.h"
#include "core/program/block.h"
#include "core/program/program.h"
#include "core/workload.h"

namespace orrery {

// What decides the shapes of the blocks of one micro-batch on one rank.
struct BlockShape {
  std::int64_t sequences = 1;  // of the micro-batch
  std::int64_t sequence_tokens = 1;
  std::int64_t global_sequences = 1;  // of the step, in the world: scale of the balancing loss
  std::int64_t world = 1;
  std::int64_t accumulation = 1;  // micro-batches a step
  std::int64_t ep = 1;
  std::int64_t attention_query = 0;  // query rows of one attention chunk; 0: all at once
  std::int64_t loss_tokens = 0;      // rows of one loss chunk; 0: all at once
  DType compute = DType::kFloat32;
  DType master = DType::kFloat32;
  BalanceScope balance_scope = BalanceScope::kSequence;
  std::int64_t tokens() const { return sequences * sequence_tokens; }
};

// Shapes: x [T,H]. Blocks that a model does not use stay empty (no primitives).
struct ModelBlocks {
  Block embed;          // ids -> x
  Block attention;      // x -> x1
  Block mlp;            // x1 -> x2 (dense layers)
  Block router;         // x1 -> rows, weights, prob_sum, counts, ids, order, expert_counts
  Block router_replay;  // x1, ids, order -> rows, weights, prob_sum
  Block experts;        // rows -> rows
  Block merge;          // x1, rows, weights, order -> x2
  Block balance;        // prob_sum, counts -> loss
  Block loss;           // x, labels -> loss, on loss_tokens rows
  Block loss_tail;      // the same on the rows that are left, if any
};

struct Family {
  const char* model_type;
  ModelBlocks (*blocks)(const Model&, const BlockShape&);
  // Parameters in storage order. Units: "embed", "layer.N", "layer.N/experts", "head".
  std::vector<Unit> (*units)(const Model&, std::int64_t ep);
};

// CHECKs that the type is known: parse_model has refused others.
const Family& family_of(const Model& model);

// The dtype of a unit's gradient before it is reduced: the compute dtype, except where more than
// one op of a micro-batch adds to it (chunks of the loss, a tied head): then the master dtype.
DType gradient_dtype(const Model& model, const BlockShape& shape, const std::string& unit);

// Rows of one loss chunk, and how many chunks of a micro-batch (the last may be shorter).
std::int64_t loss_chunk_rows(const BlockShape& shape);
std::int64_t loss_chunks(const BlockShape& shape);

}  // namespace orrery
