// A block: straight-line code of primitives between two collectives, as data. The engine interprets
// it (engine/torch/interpreter), the simulator prices it, and both read memory from the same
// schedule of allocations and releases: what is simulated is what is run, down to the primitive.
// Values are single-assignment. Backward is derived: the primitives in reverse, each adding the
// gradients of its inputs in program order.
//
// Memory. Every value has its own storage; inputs belong to the caller, who also keeps
// `saved_inputs` and `saved_outputs` until backward. Everything else that backward reads is the
// tape: the values in `saved` and the statistics of memory_of(). Every gradient that backward
// returns has its own storage; gradients that the caller hands in are read, never written.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <vector>

#include "core/program/size.h"

namespace orrery {

enum class DType : std::uint8_t { kFloat32, kBFloat16, kFloat64, kInt64 };
std::int64_t size_of(DType dtype);
const char* name_of(DType dtype);

// The primitives. Shapes: T rows (tokens), R expert rows, H hidden; `w` is a parameter. G rows are
// those of all ranks of an expert group. A sequence over sp ranks: T local rows, W = sp * T rows,
// `parts` = sp; the last four kinds move data only: linear, backward is the transpose, they save
// nothing and, but for what is said, take nothing beside their results.
enum class PrimKind : std::uint8_t {
  kEmbedding,       // (ids[T]; w[V,H]) -> x[T,H]
  kRmsNorm,         // (x[T,n*d]; w[d]) -> y: groups of d columns; saves x, 1/rms
  kLinear,          // (x[T,k]; w[n,k]) -> y[T,n] = x w^T; saves x
  kRope,            // (x[T,heads*d]) -> y: rotate-half by position; saves nothing
  kAttention,       // (q,k,v) -> o: causal inside documents, by query chunk; saves q,k,v,o,lse
  kAdd,             // (a,b) -> a + b; saves nothing
  kSwiGlu,          // (gate,up) -> silu(gate) * up; saves both
  kTopK,            // (logits[T,E] [, bias[1,E]]) -> weights[T,k], prob_sum[S,E], ids[T,k],
                    // counts[S,E]; ids and scores are saved; bias, prob_sum and counts have the
                    // statistics' dtype; see routing below
  kTopKReplay,      // (logits[T,E], ids[T,k]) -> weights[T,k], prob_sum[S,E]: routing is not redone
  kSortByExpert,    // (ids[T,k]) -> order[T*k], expert_counts[E]: stable; no gradient. With parts:
                    // by (part, peer, expert); the counts stay by expert
  kPermute,         // (x[T,H], order[T*k]) -> rows[T*k,H] in expert order; saves order
  kToExpertMajor,   // (rows[R,H]) -> rows[R,H]: from source-major to local-expert-major order
  kToSourceMajor,   // (rows[R,H]) -> rows[R,H]: the inverse
  kGroupedLinear,   // (rows[R,k]; w[El,n,k]) -> [R,n], rows grouped by local expert; saves rows
  kUnpermute,       // (rows[T*k,H], weights[T,k], order[T*k]) -> y[T,H]; saves all three
  kBalanceLoss,     // (prob_sum[S,E], counts[S,E]) -> loss[1]; saves counts
  kCrossEntropy,    // (logits[T,V], labels[T]) -> loss[1] over the global label count; saves logits
  kZLoss,           // (logits[T,E]) -> loss[1] = scalar * sum over valid rows of lse(logits)^2, in
                    // the statistics' dtype; saves logits, lse
  kSelectSort,      // (ids[G,k]) -> order[R,1]: flat slots of the local experts, by expert, stable;
                    // R is BlockContext::expert_rows summed; no gradient
  kSelectRows,      // (x[G,H], order[R,1]) -> rows[R,H] = x[order / k]; saves order
  kSpreadRows,      // (rows[R,H], weights[G,k], order[R,1]) -> y[G,H]: sums of weight * row over a
                    // token's local slots; saves all three
  kPackHeads,       // (q[T,h*d], k[T,kv*d], v[T,kv*d]) -> packed[W,(h + 2 max(kv,sp))/sp * d]:
                    // block p of T rows has peer p's q heads, k heads, v heads; the one head
                    // kv*p/sp, repeated, where sp > kv: its gradient sums in the statistics' dtype
  kUnpackSequence,  // (packed[W,c]) -> q[W,h/sp*d], k[W,max(1,kv/sp)*d], v: rows from (peer,
                    // sequence, position) to (sequence, peer, position)
  kPackSequence,    // (o[W,c]) -> [W,c]: the inverse row order
  kUnpackHeads,     // (x[W,c]) -> y[T,sp*c]: block p of T rows becomes columns [p*c, +c)
};
// Routing. scores s = softmax(logits), or sigmoid; choice = s + bias. With groups > 1 a group's
// score is the sum of its two best choices and only the best top_groups groups are chosen from
// (DeepSeek-V3, arXiv 2412.19437). The k best choices are taken, of equals the lower expert or
// group; weights = s there, divided by their sum where `normalize` (plus 1e-20 for sigmoid), times
// `scalar` (0: one). prob_sum sums p = s, or s / sum(s) for sigmoid. Rows whose position (that of
// the row in its sequence, plus BlockContext::first_position) is valid_tokens or more enter neither
// prob_sum nor counts nor kZLoss, where valid_tokens > 0.
const char* name_of(PrimKind kind);

// One value of a block: rows x cols of a dtype. Integer values carry no gradient.
struct Value {
  std::string name;
  SizeExpr rows;
  std::int64_t cols = 1;
  DType dtype = DType::kFloat32;
  bool needs_grad = true;
  SizeExpr bytes() const { return rows * (cols * size_of(dtype)); }
};

using ValueId = std::int32_t;

struct Prim {
  PrimKind kind;
  std::vector<ValueId> in{};
  std::vector<ValueId> out{};
  std::int32_t param = -1;  // index into Block::params
  // Attributes; which are read depends on the kind.
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0;  // rope, attention (rms_norm: head_dim = d)
  std::int64_t top_k = 0, experts = 0;                 // routing
  std::int64_t sequences = 1;                          // S of kTopK: rows divide evenly over them
  // Rows of one sequence on this rank, T is a multiple (attention; rope on part of a sequence; what
  // asks for valid_tokens). 0: rope takes the documents one after the other.
  std::int64_t sequence_tokens = 0;
  std::int64_t chunk = 0;  // query rows at a time (attention); 0: a whole document
  double scalar = 0;       // eps (norm), theta (rope), coefficient (losses), weight scale (top-k)
  bool normalize = false;  // top-k weights sum to one
  bool sigmoid = false;    // scores of top-k
  std::int64_t groups = 1, top_groups = 1;  // experts in groups (top-k)
  std::int64_t parts = 1;  // exchange parts (sort), ranks of a sequence (the last four kinds)
  std::int64_t peers = 1;  // expert ranks (sort with parts)
  std::int64_t valid_tokens = 0;  // of a whole sequence; 0: all rows count
};

// A parameter a block uses: unit-relative, resolved when the block runs, never saved by a tape.
struct BlockParam {
  std::string name;  // "q_proj", as in Unit::params
  std::vector<std::int64_t> shape;
  DType grad_dtype = DType::kFloat32;  // of the gradient buffer that backward adds to
};

// When each value's memory goes. Built once by core, obeyed by the engine's interpreter.
struct BlockStep {
  std::int32_t prim = 0;
  std::vector<ValueId> release;  // values whose storage goes after this primitive
};

struct Block {
  std::string name;
  std::vector<Value> values;
  std::vector<BlockParam> params;
  std::vector<ValueId> inputs;
  std::vector<ValueId> outputs;
  std::vector<Prim> prims;

  // Derived by finish(); see block.cpp.
  std::vector<ValueId> saved;          // values kept for backward that are neither input nor output
  std::vector<ValueId> saved_inputs;   // inputs that backward reads: the caller keeps them
  std::vector<ValueId> saved_outputs;  // outputs that backward reads: the caller keeps them too
  std::vector<BlockStep> forward_only;  // forward without a tape
  std::vector<BlockStep> forward_tape;  // forward that keeps `saved` for backward
  std::vector<BlockStep> backward;      // primitives in reverse

  ValueId add(std::string value_name, SizeExpr rows, std::int64_t cols, DType dtype,
              bool needs_grad = true);
  std::int32_t param(std::string param_name, std::vector<std::int64_t> shape,
                     DType grad_dtype = DType::kFloat32);
  // CHECKs the block (single assignment, operands, shapes, dtypes) and derives the schedules.
  void finish();
};

// How a gradient just computed joins what its value already has.
enum class GradJoinMode : std::uint8_t {
  kTake,        // the first: it becomes the value's gradient
  kIntoFresh,   // fresh += old; old is dropped
  kIntoOld,     // old += fresh: fresh is storage of another
  kOutOfPlace,  // old and fresh are both storage of others: a new tensor
};

struct GradJoin {
  std::int32_t operand = 0;  // index into Prim::in
  GradJoinMode mode = GradJoinMode::kTake;
};

struct BackwardStep {
  std::int32_t prim = 0;
  bool skip = false;             // no gradient reaches this primitive
  bool reuse_saved = false;      // the gradient of operand 0 is written over the saved value itself
  std::vector<GradJoin> joins;   // in operand order; operands without one get no gradient
  std::vector<ValueId> release;  // saved values whose last reader this was
  std::vector<ValueId> release_grad;  // gradients that go after the joins
};

// Backward as data: obeyed by the interpreter, replayed by backward_bytes.
struct BackwardPlan {
  std::vector<BackwardStep> steps;
  // Afterwards, in this order: inputs whose gradient shares storage and is copied, and inputs that
  // no gradient reached, which get zeros.
  std::vector<ValueId> copies;
  std::vector<ValueId> zeros;
};
// `seeded`: inputs whose gradient is already begun elsewhere (read, not written: the sum is new
// storage). `absent`: outputs with no gradient, which count as zero. A loss (kBalanceLoss,
// kCrossEntropy, kZLoss) is always an output and a root: its gradient is one unless the caller
// gives it, also where it is listed as absent.
BackwardPlan plan_backward(const Block& block, const std::vector<ValueId>& seeded = {},
                           const std::vector<ValueId>& absent = {});
// True for values that backward gives a gradient: real dtype and needs_grad.
bool has_grad(const Value& value);

// True when what a block costs depends on how rows were routed, in number or by expert.
bool depends_on_routing(const Block& block);

// What a primitive keeps and needs beside its operands, in bytes.
struct PrimMemory {
  SizeExpr saved_extra;  // statistics kept for backward: 1/rms, log-sum-exp
  SizeExpr forward_temp;
  SizeExpr backward_temp;
};
PrimMemory memory_of(const Block& block, const Prim& prim);
// Columns of the statistic [rows of operand 0, columns] that a primitive keeps; 0: none.
std::int64_t statistic_cols(const Block& block, const Prim& prim);
// Which operands a primitive keeps for backward.
std::vector<ValueId> saved_by(const Prim& prim);
// True when the gradient of an input is the gradient of the output itself (no new storage).
bool gradient_is_alias(PrimKind kind);
// True when backward may write the gradient of operand 0 over its saved value.
bool gradient_overwrites_saved(PrimKind kind);
// True for the kinds whose output is a loss.
bool is_loss(PrimKind kind);
// The dtype of statistics and accumulations: fp64 for fp64, else fp32.
DType stat_dtype(DType compute);
// Element-wise work in the statistics' dtype goes by slices of rows, so that temporaries are
// bounded: about 2^21 elements of `cols` columns, and no more than `rows` where that is constant.
std::int64_t slice_rows(const SizeExpr& rows, std::int64_t cols);
// Rows of a weight gradient [n,k] computed at a time where the buffer has another dtype.
std::int64_t weight_slice_rows(std::int64_t n, std::int64_t k);
// Query rows of an attention chunk.
std::int64_t chunk_rows(const Prim& prim);

// Bytes of running a block under a binding. `peak` counts everything the run adds at its worst
// moment over what lived before it (outputs and saved included).
struct BlockBytes {
  std::int64_t outputs = 0;
  std::int64_t saved = 0;  // saved values and statistics; inputs not counted
  std::int64_t peak = 0;
};
BlockBytes forward_bytes(const Block& block, bool tape, const std::vector<std::int64_t>& values,
                         VarBase base);
// A buffer that a backward adds a parameter's gradient to and that nothing has taken before.
struct TakenBuffer {
  std::int32_t id = -1;  // parameters with one id share a buffer
  std::int64_t bytes = 0;
  auto operator<=>(const TakenBuffer&) const = default;
};
// Outputs are the gradients of the inputs that carry one; `saved` falls to zero. `peak` is over
// what lived before, the tape included: it may be less than `outputs`, as the tape shrinks
// meanwhile. `seeded` and `absent` as in plan_backward. `taken`: one a parameter of the block, or
// none at all; the first primitive that uses such a buffer takes it, and `peak` counts it.
BlockBytes backward_bytes(const Block& block, const std::vector<std::int64_t>& values, VarBase base,
                          const std::vector<ValueId>& seeded = {},
                          const std::vector<ValueId>& absent = {},
                          const std::vector<TakenBuffer>& taken = {});

}  // namespace orrery
