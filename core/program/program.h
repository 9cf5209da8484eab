// The program: one training step for each role, as ordered ops on lanes with dependencies, buffers
// and bytes. Lowered once from a plan (lower.h); the simulator replays it, the engine runs it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/program/block.h"
#include "core/program/size.h"

namespace orrery {

enum class Phase : std::uint8_t { kData, kForward, kRecompute, kBackward, kOptimizer };
const char* name_of(Phase phase);

enum class Lane : std::uint8_t { kCompute, kFsdp, kEp, kSp, kD2h, kH2d };
inline constexpr int kNumLanes = 6;
const char* name_of(Lane lane);
// Lanes whose ops are collectives; the last two copy between memory spaces.
inline constexpr Lane kNetworkLanes[] = {Lane::kFsdp, Lane::kEp, Lane::kSp};

enum class MemorySpace : std::uint8_t { kDevice, kHost };
const char* name_of(MemorySpace space);

enum class OpKind : std::uint8_t {
  kLoadBatch,          // the step's rows of tokens, from the data source (host)
  kCountTokens,        // all-reduce of the label count over the world; host synchronisation
  kForward,            // a block, without a tape
  kForwardTape,        // a block, keeping what backward reads
  kBackward,           // a block's backward
  kForwardBackward,    // a loss block: both, its loss added to the step's metrics
  kAllGather,          // a unit's shards -> its parameters in compute dtype
  kUnshard,            // the same for a group of one: a cast, no communication
  kReduceScatter,      // a unit's gradients -> the shard's, summed over the group
  kAllReduce,          // a buffer, summed over the group, in place
  kExchangeCounts,     // rows per expert, all-to-all; host synchronisation
  kAllToAllV,          // rows between expert ranks; counts from the binding
  kAllToAll,           // equal parts of a buffer between the ranks of a sequence
  kAllGatherRows,      // rows of every rank of the expert group
  kReduceScatterRows,  // sums of partial rows over the expert group, each rank its own
  kCopyToHost,         // a device buffer -> a host buffer
  kCopyToDevice,       // and back
  kAddLoads,           // a router's counts added to the step's loads of its layer
  kUpdateBias,         // router biases of all layers, from the loads of the world
  kJoin,               // waits for the copies before it, so that their buffers may go
  kAccumulate,         // a micro-batch's reduced gradients added to the step's
  kGradNorm,       // sum of squares of this rank's part, each parameter counted once in the world
  kReduceMetrics,  // all-reduce of norm, losses and counts over the world; host synchronisation
  kOptimizerStep,  // clip and AdamW on a unit's shard
};
const char* name_of(OpKind kind);

enum class BufferClass : std::uint8_t {
  kParameterShard,
  kGatheredParameter,
  kGradient,
  kOptimizer,
  kActivation,
  kSaved,
  kCommunication,
  kWorkspace,
};
inline constexpr int kNumBufferClasses = 8;
const char* name_of(BufferClass cls);

// The step's sums, in this order: loss, balance loss, router z loss, squared gradient norm, and one
// where the metrics of all ranks have come together.
inline constexpr int kNumMetrics = 5;

using BufferId = std::int32_t;
using OpId = std::int32_t;

// Memory in issue order: `bytes` live from the issue of `taken_by` to the end of `freed_by`, whose
// lane is always compute, so that the live set never depends on the speed of another lane.
// Copies of the moments on their way are kCommunication.
struct Buffer {
  std::string name;
  BufferClass cls = BufferClass::kActivation;
  MemorySpace space = MemorySpace::kDevice;
  SizeExpr bytes;
  VarBase vars;
  OpId taken_by = -1;  // -1: lives before the step
  OpId freed_by = -1;  // -1: lives after it
  // What the engine must allocate: rows x cols of dtype, or the tape of a block (kSaved).
  SizeExpr rows;
  std::int64_t cols = 0;
  DType dtype = DType::kFloat32;
};

enum class Direction : std::uint8_t { kDispatch, kCombine };

struct Op {
  std::uint64_t key = 0;  // hash of path, phase, micro-batch and chunk
  OpKind kind = OpKind::kForward;
  Phase phase = Phase::kForward;
  Lane lane = Lane::kCompute;
  std::string path;  // "layer.12/moe/dispatch"
  std::int32_t micro_batch = 0;
  std::int32_t chunk = 0;   // of the loss, or the part of an exchange
  std::int32_t parts = 1;   // of the exchange that `chunk` is one of
  std::int32_t layer = -1;  // whose parameters a block uses, in a unit of several layers
  std::int32_t block = -1;  // index into Role::blocks
  std::int32_t unit = -1;   // index into Role::units: gathered, reduced or updated
  std::int32_t group = -1;  // index into Program::groups
  Direction direction = Direction::kDispatch;  // kAllToAllV: whose counts, sent or received
  bool host_sync = false;
  VarBase vars;
  std::int64_t row_begin = 0, row_end = 0;  // kForwardBackward: the chunk's rows
  // Earlier ops of the role that must have ended. Lowering may begin it with what operands do not
  // show (a copy that must be over before its source goes).
  std::vector<OpId> deps;
  // Operands, in the order that the kind expects (see below); -1 where one is absent. A buffer is
  // taken by the first op that lists it in `out`, `updates` or `metrics`.
  std::vector<BufferId> in;
  std::vector<BufferId> out;
  std::vector<std::int32_t> units;  // whose parameters the block uses
  std::vector<BufferId> params;     // per entry of `units`: gathered parameters (or the shard)
  std::vector<BufferId> updates;    // per entry of `units`: the gradient buffer added to
  BufferId metrics = -1;            // the step's sums: read and added to
  std::vector<BufferId> frees;      // freed when this op has ended; only on the compute lane
};
// Operand order:
//   kLoadBatch        out: ids, labels of each micro-batch
//   kCountTokens      in: labels of each micro-batch; out: label count
//   kForward(Tape)    in: block inputs, then [received counts] where the block routes rows;
//                     out: block outputs, then the tape (kSaved) where there is one. With metrics:
//                     the output that is a loss is added to them
//   kBackward         in: gradient of each block output; tape; saved_inputs; saved_outputs; seed of
//                     each block input; then [received counts]; out: gradient of each block input
//   kForwardBackward  in: block inputs, then [label count]; out: gradient of each block input.
//                     Rows [row_begin, row_end) of inputs and gradients where row_end > 0
//   kAllGather, kUnshard  in: shard; out: gathered parameters
//   kReduceScatter    in: unit gradients; out: reduced shard
//   kAllReduce        updates: the buffer
//   kExchangeCounts   in: rows per expert (own); out: received counts [ep, local experts]
//   kAllToAllV        in: rows, received counts; out: rows. Of several parts, kDispatch reads and
//                     kCombine writes the slice of its part, in order
//   kAllToAll         in: rows, peer-major; out: rows, peer-major
//   kAllGatherRows, kReduceScatterRows  in: rows; out: rows
//   kCopyToHost, kCopyToDevice  in: source; out: target, or updates: a persistent target
//   kAddLoads         in: counts; updates: loads [MoE layers, E]; row_begin: the layer's row
//   kUpdateBias       in: loads; updates: the biases [1,E] of the MoE layers; metrics (predicate)
//   kJoin             nothing; its deps are all it is for
//   kAccumulate       in: reduced shard (or unit gradients); updates: the step's gradient shard
//   kGradNorm         in: gradient shards; metrics
//   kReduceMetrics    metrics
//   kOptimizerStep    in: gradient shard, shard, moments; metrics

// A parameter of a unit: contiguous in the unit's flat storage, in order.
struct Param {
  std::string name;                 // "layers.3.q_proj", unique in the model
  std::string short_name;           // "q_proj", as blocks call it
  std::int32_t layer = -1;          // -1: of no layer
  std::vector<std::int64_t> shape;  // this rank's: experts come as [local_experts, n, k]
  bool is_norm = false;             // initialised to one; no weight decay
  bool is_expert = false;
  std::int64_t numel() const;
};

// What is gathered and reduced together: flat, padded to a multiple of the shard group.
struct Unit {
  std::string name;  // "embed", "layer.3", "layer.3/experts", "head"
  std::vector<Param> params;
  std::int32_t shard_group = -1;      // index into Program::groups
  std::int32_t replicate_group = -1;  // ranks that hold the same shard
  bool is_expert = false;
  bool resident = false;   // never gathered: the shard is the parameter
  std::int64_t numel = 0;  // unpadded
  std::int64_t shard_numel = 0;
  DType grad_dtype = DType::kFloat32;  // of the unsharded gradient and its reduce-scatter
  // Persistent buffers; the moments may be on the host.
  BufferId shard = -1, moment1 = -1, moment2 = -1;
};

// A partition of the world into groups of `size` ranks at distance `stride`.
struct Group {
  std::string name;  // "world", "fsdp_d", "replicate_d", "ep", "fsdp_e", "replicate_e", "sp"
  std::int32_t size = 1;
  std::int32_t stride = 1;
  std::int32_t index_of(std::int32_t rank) const { return (rank / stride) % size; }
  std::int32_t first_of(std::int32_t rank) const { return rank - index_of(rank) * stride; }
};

// Where each axis' group stands in Program::groups, in every lowered program.
struct GroupIds {
  std::int32_t world = 0, fsdp_d = 1, replicate_d = 2, ep = 3, fsdp_e = 4, replicate_e = 5;
  std::int32_t sp = 6;
};
inline constexpr GroupIds kGroupIds;

// Ranks that do the same.
struct Role {
  std::string name;
  std::vector<std::int32_t> ranks;
  std::vector<Block> blocks;
  std::vector<Unit> units;
  std::vector<Buffer> buffers;
  std::vector<Op> ops;  // in issue order
  RouteVars route;
  std::int32_t num_vars = 0;
  std::vector<std::string> var_names;  // one a record: "route/layer.3/mb.0" at its start, else ""
};

// Numbers of the step that the executor needs beside the ops.
struct StepConstants {
  std::int32_t micro_batches = 1;    // of one rank
  std::int64_t sequences = 1;        // a micro-batch, on one rank (or its group of sp ranks)
  std::int64_t sequence_tokens = 1;  // padded to a multiple of sp
  std::int64_t valid_tokens = 1;     // of a sequence, without that padding
  std::int64_t sp = 1;
  std::int64_t global_sequences = 1;  // a step, in the world
  DType compute = DType::kFloat32;
  DType master = DType::kFloat32;
  bool balance_over_world = false;  // expert counts are summed over the world before they weigh
  bool balance_over_sp = false;     // the same over the ranks of a sequence
  double bias_speed = 0;            // of the router biases, a step
};

struct Program {
  std::int32_t world = 1;
  std::vector<Group> groups;
  std::vector<Role> roles;
  StepConstants step;
  std::string plan_hash;

  const Role& role_of(std::int32_t rank) const;
  const Group& ep_group() const { return groups[static_cast<std::size_t>(kGroupIds.ep)]; }
  const Group& sp_group() const { return groups[static_cast<std::size_t>(kGroupIds.sp)]; }
  std::uint64_t hash() const;  // of everything that is executed
};

// A lane whose ops are collectives.
constexpr bool is_network(Lane lane) {
  return lane == Lane::kFsdp || lane == Lane::kEp || lane == Lane::kSp;
}

std::uint64_t op_key(std::string_view path, Phase phase, std::int32_t micro_batch,
                     std::int32_t chunk);

// Bytes a rank hands to the wire in a collective, its own part excluded.
struct WireBytes {
  std::int64_t sent = 0;
  std::int64_t received = 0;
};
bool is_collective(OpKind kind);
WireBytes wire_bytes(const Program& program, const Role& role, const Op& op, std::int32_t rank,
                     const std::vector<std::int64_t>& binding);

// The block inputs whose gradient a kBackward op adds to, from its operands.
std::vector<ValueId> seeded_inputs(const Block& block, const Op& op);
// True for a loss that a block computes: the root of its own gradient.
bool is_loss_output(const Block& block, ValueId v);
// The block outputs, losses aside, that a kBackward op has no gradient of.
std::vector<ValueId> absent_outputs(const Block& block, const Op& op);

// Elements of a gradient that are converted at a time where its sum has another dtype.
inline constexpr std::int64_t kSumSlice = 16 * 1024;

// Of each parameter of a backward's block, the gradient buffer that this op takes and its bytes;
// empty where it takes none.
std::vector<TakenBuffer> taken_gradients(const Role& role, const Op& op);

// Bytes an op adds beyond its buffers at its worst moment (a block's temporaries). Negative where a
// backward drops more of its tape than it needs for temporaries by then, or takes a buffer after
// that moment: an op's buffers count from its beginning.
std::int64_t workspace_bytes(const Role& role, const Op& op,
                             const std::vector<std::int64_t>& binding);

}  // namespace orrery
