// The state of one lowering, shared by the lower_*.cpp files. Not for other folders.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "core/models/family.h"
#include "core/plan.h"
#include "core/program/program.h"

namespace orrery {

// Indexes into Role::blocks.
struct BlockIds {
  std::int32_t embed = -1, attention = -1, qkv = -1, core = -1, out = -1, mlp = -1;
  std::int32_t router = -1, router_replay = -1, select = -1, select_replay = -1;
  std::int32_t experts = -1, spread = -1, shared = -1, merge = -1;
  std::int32_t balance = -1, loss = -1, loss_tail = -1;
};

// One part of an expert exchange.
struct PartState {
  BufferId expert_in = -1, expert_out = -1, tape = -1;
};

// What one layer's backward (or recompute) needs of its forward in one micro-batch. -1: absent.
struct LayerState {
  BufferId x = -1, x1 = -1, x2 = -1;
  BufferId swapped = -1;  // x on the host
  BufferId attention_tape = -1, mlp_tape = -1;
  BufferId qkv_tape = -1, packed = -1, core_tape = -1, core_out = -1, attended = -1, out_tape = -1;
  BufferId rows = -1, weights = -1, prob_sum = -1, counts = -1, ids = -1, order = -1;
  BufferId normed = -1, z_loss = -1;
  BufferId expert_counts = -1, received = -1;
  BufferId normed_all = -1, weights_all = -1, ids_all = -1, local_order = -1, spread_out = -1;
  BufferId shared_out = -1, merge_rows = -1;
  BufferId router_tape = -1, select_tape = -1, spread_tape = -1, shared_tape = -1, merge_tape = -1;
  BufferId d_prob_sum = -1;
  std::int32_t router_block = -1, select_block = -1;
  std::vector<PartState> parts;
};

// Gradients on their way through one layer's backward in one micro-batch.
struct BackwardState {
  BufferId d_x2 = -1, d_x1 = -1, d_shared = -1, d_weights = -1, d_combined = -1;
  BufferId d_rows = -1, d_weights_all = -1;
  std::vector<BufferId> d_out, d_in;  // of each part's experts
  BufferId d_core = -1;               // on its way through attention
  BufferId d_residual = -1;
};

class Lowering {
 public:
  explicit Lowering(const Plan& plan);
  Program run();

 private:
  // lower.cpp: the step as a whole.
  void make_groups();
  void make_blocks();
  void make_units();
  void add_unit(Unit unit);
  void make_records();
  void make_segments();
  void data();
  void pass(std::int32_t first);
  void finish();

  // lower_layer.cpp: one layer forward, again, and backward, for all micro-batches of the pass.
  void forward(std::int64_t layer);
  void recompute(std::int64_t layer);
  void backward(std::int64_t layer);
  bool merges_early(std::int64_t layer) const;
  void attention(std::int64_t layer, Phase phase, bool tape);
  void attention_of(std::int32_t j, std::int64_t layer, Phase phase, bool tape);
  void attention_backward_of(std::int32_t j, std::int64_t layer);
  BufferId close(std::int32_t j);
  void embed_forward();
  void embed_backward();
  void loss();

  // lower_sequence.cpp: attention of sequences that several ranks share.
  void qkv_forward(std::int32_t j, std::int64_t layer, Phase phase, bool tape);
  void core_forward(std::int32_t j, std::int64_t layer, Phase phase, bool tape);
  void out_forward(std::int32_t j, std::int64_t layer, Phase phase, bool tape);
  void out_backward(std::int32_t j, std::int64_t layer);
  void core_backward(std::int32_t j, std::int64_t layer);
  void qkv_backward(std::int32_t j, std::int64_t layer);
  BufferId all_to_all(std::int32_t j, std::int64_t layer, Phase phase, const char* name,
                      BufferId rows);

  // lower_moe.cpp: the mixture of experts. `begin` routes and posts the dispatch, `end` runs the
  // experts and posts the combine.
  void moe_begin(std::int32_t j, std::int64_t layer, Phase phase, bool tape);
  void moe_end(std::int32_t j, std::int64_t layer, Phase phase, bool tape);
  void merge(std::int32_t j, std::int64_t layer, bool tape);
  void route(std::int32_t j, std::int64_t layer, bool tape);
  void replay(std::int32_t j, std::int64_t layer);
  void count(std::int32_t j, std::int64_t layer);
  void dispatch(std::int32_t j, std::int64_t layer, Phase phase);
  void experts(std::int32_t j, std::int64_t layer, Phase phase, bool tape, std::int32_t part);
  void combine(std::int32_t j, std::int64_t layer, Phase phase, std::int32_t part);
  void shared(std::int32_t j, std::int64_t layer, Phase phase, bool tape);
  void balance(std::int32_t j, std::int64_t layer);
  bool balances_late() const;
  BufferId exchange(std::int32_t j, std::int64_t layer, Phase phase, const char* name,
                    Direction direction, BufferId rows, std::int32_t part, BufferId out);

  // lower_gather.cpp: the dispatcher that gathers all tokens of the expert group.
  BufferId gather_rows(std::int32_t j, std::int64_t layer, Phase phase, const char* name,
                       BufferId rows);
  BufferId scatter_rows(std::int32_t j, std::int64_t layer, Phase phase, const char* name,
                        BufferId rows);
  void gather_dispatch(std::int32_t j, std::int64_t layer, Phase phase);
  void select(std::int32_t j, std::int64_t layer, Phase phase, bool tape);
  void spread(std::int32_t j, std::int64_t layer, Phase phase, bool tape);
  void spread_backward(std::int32_t j, std::int64_t layer);
  void select_backward(std::int32_t j, std::int64_t layer);

  // lower_moe_backward.cpp
  void merge_backward(std::int32_t j, std::int64_t layer);
  void experts_backward(std::int32_t j, std::int64_t layer, std::int32_t part);
  void router_backward(std::int32_t j, std::int64_t layer);
  BufferId shared_backward(std::int32_t j, std::int64_t layer, BufferId d_normed);

  // lower_units.cpp: gathering, reducing and updating parameters.
  void gather(std::int32_t unit, Phase phase, std::int32_t m);
  void begin_segment();
  void end_segment();
  BufferId gradient_of(std::int32_t unit);
  void reduce(std::int32_t unit);
  void reduce_layer(std::int64_t layer);
  void reduce_experts(std::int64_t layer);
  void accumulate(std::int32_t unit, std::int32_t m, BufferId reduced);
  void flush_accumulates();

  // lower_optimizer.cpp
  void optimizer();
  void update_bias();
  void optimizer_step(std::int32_t unit, BufferId moment1, BufferId moment2);
  void host_optimizer();

  // lower_swap.cpp: layer inputs to the host and back.
  void swap_out(std::int32_t j, std::int64_t layer);
  void swap_in(std::int64_t layer);
  OpId copy(OpKind kind, Phase phase, std::string path, std::int32_t m, BufferId from, BufferId to,
            std::int32_t chunk = 0);

  // lower_ops.cpp: building blocks of ops.
  struct BlockCall {
    std::int32_t block;
    std::string path;
    Phase phase;
    std::int32_t m;
    VarBase vars;
    std::vector<std::int32_t> units;
    std::int32_t layer = -1;
    BufferId received = -1;
    std::int32_t part = 0, parts = 1;
    bool adds_loss = false;  // forward: an output is a loss, added to the metrics
  };
  BlockCall layer_call(std::int32_t block, std::int32_t j, std::int64_t layer, const char* name,
                       Phase phase, bool has_parameters = true) const;
  // Adds a forward op. Returns the outputs, then the tape (-1 where the block keeps nothing).
  std::vector<BufferId> call(const BlockCall& c, const std::vector<BufferId>& in, bool tape);
  // Adds a backward op. `grads`: of each block output (-1: none). Returns the inputs' gradients.
  std::vector<BufferId> call_backward(const BlockCall& c, const std::vector<BufferId>& grads,
                                      BufferId tape, const std::vector<BufferId>& inputs,
                                      const std::vector<BufferId>& outputs,
                                      const std::vector<BufferId>& seeds);
  // Adds a loss block: forward and backward in one op, its loss into the metrics.
  OpId call_loss(const BlockCall& c, const std::vector<BufferId>& in,
                 const std::vector<BufferId>& out, std::int32_t chunk);
  void use_units(Op& op, bool gradients);
  BufferId buffer(std::string name, BufferClass cls, SizeExpr rows, std::int64_t cols, DType dtype,
                  VarBase vars = {}, MemorySpace space = MemorySpace::kDevice);
  BufferId value_buffer(const std::string& path, const Value& value, VarBase vars,
                        const char* suffix = "");
  OpId add(Op op);
  // Adds a collective that moves rows: its output has `rows` rows like those of `from`.
  BufferId move_rows(Op op, BufferId from, SizeExpr rows, const char* suffix);
  Op op(OpKind kind, Phase phase, Lane lane, std::string path, std::int32_t m) const;

  const Block& block(std::int32_t id) const { return role_.blocks[static_cast<std::size_t>(id)]; }
  const Buffer& at(BufferId b) const { return role_.buffers[static_cast<std::size_t>(b)]; }
  VarBase vars_of(std::int32_t m, std::int64_t layer = -1, std::int32_t part = 0) const;
  bool is_moe(std::int64_t layer) const;
  bool again_attention(std::int64_t layer) const;  // recomputed in backward
  bool again_ffn(std::int64_t layer) const;
  bool again_experts(std::int64_t layer) const;
  bool swapped(std::int64_t layer) const { return layer < plan_.policy.swap_layers; }
  bool gathers() const { return shape_.gather_dispatch; }
  std::string layer_path(std::int64_t layer) const { return "layer." + std::to_string(layer); }
  std::int32_t micro_batch(std::int32_t j) const { return first_ + j; }
  LayerState& state(std::int32_t j, std::int64_t layer) {
    return layers_[static_cast<std::size_t>(layer * domino_ + j)];
  }
  BackwardState& gradients(std::int32_t j) { return backward_[static_cast<std::size_t>(j)]; }

  const Plan& plan_;
  Program program_;
  Role role_;
  BlockShape shape_;
  ModelBlocks blocks_;
  BlockIds block_ids_;
  std::int32_t domino_ = 1;  // micro-batches of a pass
  std::int32_t parts_ = 1;   // of an exchange
  std::int32_t embed_unit_ = -1, head_unit_ = -1;
  std::vector<std::int32_t> layer_units_, expert_units_;  // by layer; -1: none
  std::vector<std::int64_t> unit_layer_;                  // by unit: its first layer, or -1
  std::vector<bool> kept_units_;                          // by unit: not resharded after forward
  std::vector<std::int32_t> route_bases_, batch_bases_;   // [m * layers + layer], [m]
  std::vector<BufferId> ids_, labels_;                    // one a micro-batch
  BufferId label_count_ = -1, metrics_ = -1, loads_ = -1;
  std::vector<BufferId> biases_;  // by layer; -1: none

  // The pass being lowered.
  std::int32_t first_ = 0;  // its first micro-batch
  std::vector<LayerState> layers_;
  std::vector<BackwardState> backward_;
  std::vector<BufferId> x_;         // by micro-batch of the pass: output of the last layer
  std::vector<std::int64_t> open_;  // the layer whose merge is still to come, or -1

  // Units that each segment of a pass needs, in order; see segments in lower.cpp.
  std::vector<std::vector<std::int32_t>> segments_;
  std::size_t segment_ = 0;                    // the one being lowered
  std::map<std::int32_t, BufferId> gathered_;  // unit -> parameters at hand
  std::map<std::tuple<std::int32_t, Phase, std::int32_t>, std::int32_t> gathers_;  // how many
  std::map<std::int32_t, BufferId> gradients_;  // unit -> this pass's gradient buffer
  std::map<std::int32_t, BufferId> step_gradients_;
  struct Pending {
    std::int32_t unit, m;
    BufferId reduced;
    std::size_t segment;
  };
  std::vector<Pending> pending_;
  // Copies out whose source may go once a compute op waits for them: at the segment after the next.
  struct Copy {
    OpId op;
    std::size_t segment;
  };
  std::vector<Copy> copies_;
  std::vector<OpId> due_;  // copies that the next compute op waits for
  std::int64_t next_swap_in_ = -1;
};

// Bytes a block keeps for its backward, beside its inputs and outputs.
SizeExpr tape_bytes(const Block& block);

// The last passes over a role: dependencies from operands, then lifetimes from dependencies.
void assign_dependencies(Role& role);
void assign_lifetimes(Role& role);

// For each op, how many ops of each lane are known to have ended when it starts (its own lane's
// predecessors included): happens-before by lane order and dependencies.
using LaneClock = std::array<std::int32_t, kNumLanes>;
std::vector<LaneClock> lane_clocks(const Role& role);

}  // namespace orrery
