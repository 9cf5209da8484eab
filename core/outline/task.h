// An outline: what one rank does with one micro-batch in one layer, as tasks in order. It has no
// buffers and no bodies, so it can describe layouts that the engine does not execute; where the
// engine does, its program has the same products and the same bytes on every link
// (tests/outline/program_test.cpp).
#pragma once

#include <cstdint>
#include <vector>

#include "core/job.h"
#include "core/program/work.h"

namespace orrery::outline {

enum class TaskKind : std::uint8_t { kProduct, kGrouped, kAttention, kPass, kCollective };

enum class CollectiveKind : std::uint8_t {
  kAllGather,
  kReduceScatter,
  kAllReduce,
  kAllToAll,
  kRing
};

// Whose ranks take part.
enum class Axis : std::uint8_t {
  kTensor,
  kContext,
  kExpert,
  kExpertTensor,
  kStage,
  kData,
  kExpertData,
  kSequence  // Ulysses' ranks, inside a context rank
};
inline constexpr int kNumAxes = 8;

struct Task {
  TaskKind kind = TaskKind::kPass;
  Module module = Module::kNorm;
  const char* name = "";
  // Products: out[m,n] = a[m,k] b[k,n], `groups` of them with m rows in all. Attention: m queries,
  // n heads, k columns of a head.
  double m = 0, n = 0, k = 0, groups = 1;
  double flops = 0;  // multiply-adds count two
  double bytes = 0;  // read and written; of a collective: of the whole buffer (what an all-gather
                     // leaves, a reduce-scatter takes; sent by a rank of an all-to-all)
  std::int64_t aligned = 128;  // of a product: bytes at which rows of its operands begin, <= 128
  PassKind pass = PassKind::kStream;
  std::int32_t kernels = 1;
  bool low_precision = false;  // in fp8 where the job is
  CollectiveKind collective = CollectiveKind::kAllReduce;
  Axis axis = Axis::kTensor;
  bool beside = false;  // a collective that runs beside the products next to it
  bool backward_only = false;
  bool backward = false;    // of attention: prices differ
  double parts = 1;         // of attention: kernels, one after the other, that share its keys
  double longest = 1;       // of attention: keys of the query that sees most, over the mean
  bool of_weights = false;  // in backward, a weight's gradient: no layer below waits for it
  double saves = 0;         // bytes kept for backward
  double gathered = 0;      // bytes of its input that backward gathers again
};

// A layer's (or an end's) tasks. Backward does not hold what is run again: `again` does, the parts
// of forward that Recompute names, in order.
struct Outline {
  std::vector<Task> forward, backward, again;
  double saves = 0;      // bytes of one micro-batch from its forward to its backward
  double worst = 0;      // bytes beyond it while the layer's own backward runs: what is run again
  double transient = 0;  // and the largest gradients that one of its products has and makes
};

// Parameters of a layer or an end on one rank of the tensor (and expert) axes.
struct Parameters {
  double dense = 0, expert = 0;
  // Of `dense`, those that every tensor rank has whole (norms, routers, latent projections).
  double replicated = 0;
  double expert_replicated = 0;  // of `expert`, those of every rank of the expert tensor axis
};

struct Piece {
  Outline outline;
  Parameters parameters;
};

// `layer` of the model, on the ranks of a stage that has it; `again`: backward runs it again whole.
Piece layer(const Job& job, std::int64_t layer, bool again);
Piece embedding(const Job& job);
// What stands before the layer that predicts a further token (DeepSeek-V3, arXiv 2412.19437): norms
// of the rows and of the next tokens' embeddings, and the product that joins both to one row.
Piece further_token(const Job& job);
// Final norm, product with the vocabulary, loss.
Piece head(const Job& job);

// Tokens of one micro-batch on one rank of the context axis: rows of its products.
double rows_of(const Job& job);

}  // namespace orrery::outline
