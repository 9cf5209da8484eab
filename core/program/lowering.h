// The state of one lowering, shared by the lower_*.cpp files. Not for other folders.
#pragma once

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
  std::int32_t embed = -1, attention = -1, mlp = -1, router = -1, router_replay = -1;
  std::int32_t experts = -1, merge = -1, balance = -1, loss = -1, loss_tail = -1;
};

// What one layer's backward (or recompute) needs of its forward in one micro-batch. -1: absent.
struct LayerState {
  BufferId x = -1, x1 = -1;
  BufferId attention_tape = -1, mlp_tape = -1;
  BufferId rows = -1, weights = -1, prob_sum = -1, counts = -1, ids = -1, order = -1;
  BufferId expert_counts = -1, received = -1;
  BufferId expert_in = -1, expert_out = -1, merge_rows = -1;
  BufferId router_tape = -1, experts_tape = -1, merge_tape = -1;
  BufferId d_prob_sum = -1;
  std::int32_t router_block = -1;
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
  void make_records();
  void data();
  void micro_batch(std::int32_t m);
  void finish();

  // lower_layer.cpp: one layer forward, again, and backward.
  BufferId forward(std::int32_t m, std::int64_t layer, BufferId x, bool tape);
  void recompute(std::int32_t m, std::int64_t layer);
  BufferId backward(std::int32_t m, std::int64_t layer, BufferId d_x2);
  BufferId embed_forward(std::int32_t m);
  void embed_backward(std::int32_t m, BufferId d_x);
  BufferId loss(std::int32_t m, BufferId x);

  // lower_moe.cpp: the mixture-of-experts part of a layer.
  BufferId moe_forward(std::int32_t m, std::int64_t layer, bool tape);
  void moe_experts(std::int32_t m, std::int64_t layer, Phase phase, bool tape);
  void balance(std::int32_t m, std::int64_t layer);
  void moe_recompute(std::int32_t m, std::int64_t layer);
  BufferId moe_backward(std::int32_t m, std::int64_t layer, BufferId d_x2);

  // lower_units.cpp: gathering, reducing and updating parameters.
  void gather(std::int32_t unit, Phase phase, std::int32_t m);
  void begin_segment();
  void end_segment();
  BufferId gradient_of(std::int32_t unit, std::int32_t m);
  void reduce(std::int32_t unit, std::int32_t m);
  void accumulate(std::int32_t unit, std::int32_t m, BufferId reduced);
  void flush_accumulates();
  void optimizer();

  // Building blocks of ops.
  struct BlockCall {
    std::int32_t block;
    std::string path;
    Phase phase;
    std::int32_t m;
    VarBase vars;
    std::vector<std::int32_t> units;
    BufferId received = -1;
  };
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
                  VarBase vars = {});
  BufferId value_buffer(const std::string& path, const Value& value, VarBase vars,
                        const char* suffix = "");
  BufferId exchange(std::int32_t m, std::int64_t layer, Phase phase, const char* name,
                    Direction direction, BufferId rows);
  OpId add(Op op);
  Op op(OpKind kind, Phase phase, Lane lane, std::string path, std::int32_t m) const;

  VarBase vars_of(std::int32_t m, std::int64_t layer = -1) const;
  bool is_moe(std::int64_t layer) const;
  bool recomputed(std::int64_t layer) const;
  std::string layer_path(std::int64_t layer) const { return "layer." + std::to_string(layer); }
  LayerState& state(std::int64_t layer) { return layers_[static_cast<std::size_t>(layer)]; }

  const Plan& plan_;
  Program program_;
  Role role_;
  BlockShape shape_;
  ModelBlocks blocks_;
  BlockIds block_ids_;
  std::int32_t embed_unit_ = -1, head_unit_ = -1;
  std::vector<std::int32_t> layer_units_, expert_units_;
  std::vector<std::int32_t> route_bases_, batch_bases_;  // [m * layers + layer], [m]
  std::vector<BufferId> ids_, labels_;                   // one a micro-batch
  BufferId label_count_ = -1, metrics_ = -1;
  std::vector<LayerState> layers_;

  // Units that each segment of a micro-batch's compute needs, in order; see segments in lower.cpp.
  std::vector<std::vector<std::int32_t>> segments_;
  std::size_t segment_ = 0;                    // the one being lowered
  std::map<std::int32_t, BufferId> gathered_;  // unit -> parameters at hand
  std::map<std::tuple<std::int32_t, Phase, std::int32_t>, std::int32_t> gathers_;  // how many
  std::map<std::int32_t, BufferId> gradients_;  // unit -> this micro-batch's gradient buffer
  std::map<std::int32_t, BufferId> step_gradients_;
  struct Pending {
    std::int32_t unit, m;
    BufferId reduced;
    std::size_t segment;
  };
  std::vector<Pending> pending_;
  OpId last_compute_ = -1;
};

// Bytes a block keeps for its backward, beside its inputs and outputs.
SizeExpr tape_bytes(const Block& block);

// The last passes over a role: dependencies from operands, then lifetimes from dependencies.
void assign_dependencies(Role& role);
void assign_lifetimes(Role& role);

// For each op, how many ops of each lane are known to have ended when it starts (its own lane's
// predecessors included): happens-before by lane order and dependencies.
std::vector<std::vector<std::int32_t>> lane_clocks(const Role& role);

}  // namespace orrery
