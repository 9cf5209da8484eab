// Lowering, one layer: forward, recompute, backward; the embedding and the loss at the ends.
#include <utility>

#include "core/program/lowering.h"

namespace orrery {

BufferId Lowering::embed_forward(std::int32_t m) {
  return call({block_ids_.embed, "embed", Phase::kForward, m, vars_of(m), {embed_unit_}},
              {ids_[static_cast<std::size_t>(m)]}, true)[0];
}

void Lowering::embed_backward(std::int32_t m, BufferId d_x) {
  call_backward({block_ids_.embed, "embed", Phase::kBackward, m, vars_of(m), {embed_unit_}}, {d_x},
                -1, {ids_[static_cast<std::size_t>(m)]}, {}, {});
}

BufferId Lowering::forward(std::int32_t m, std::int64_t layer, BufferId x, bool tape) {
  LayerState& s = state(layer);
  const std::int32_t unit = layer_units_[static_cast<std::size_t>(layer)];
  const VarBase vars = vars_of(m, layer);
  s.x = x;
  const auto attended =
      call({block_ids_.attention, layer_path(layer) + "/attn", Phase::kForward, m, vars, {unit}},
           {x}, tape);
  s.x1 = attended[0];
  s.attention_tape = attended[1];
  if (is_moe(layer)) {
    return moe_forward(m, layer, tape);
  }
  const auto out = call(
      {block_ids_.mlp, layer_path(layer) + "/mlp", Phase::kForward, m, vars, {unit}}, {s.x1}, tape);
  s.mlp_tape = out[1];
  return out[0];
}

void Lowering::recompute(std::int32_t m, std::int64_t layer) {
  LayerState& s = state(layer);
  const std::int32_t unit = layer_units_[static_cast<std::size_t>(layer)];
  const VarBase vars = vars_of(m, layer);
  const auto attended =
      call({block_ids_.attention, layer_path(layer) + "/attn", Phase::kRecompute, m, vars, {unit}},
           {s.x}, true);
  s.x1 = attended[0];
  s.attention_tape = attended[1];
  if (is_moe(layer)) {
    moe_recompute(m, layer);
    return;
  }
  const auto out =
      call({block_ids_.mlp, layer_path(layer) + "/mlp", Phase::kRecompute, m, vars, {unit}}, {s.x1},
           true);
  s.mlp_tape = out[1];
}

BufferId Lowering::backward(std::int32_t m, std::int64_t layer, BufferId d_x2) {
  const LayerState& s = state(layer);
  const std::int32_t unit = layer_units_[static_cast<std::size_t>(layer)];
  const VarBase vars = vars_of(m, layer);
  BufferId d_x1 = -1;
  if (is_moe(layer)) {
    d_x1 = moe_backward(m, layer, d_x2);
  } else {
    d_x1 = call_backward(
        {block_ids_.mlp, layer_path(layer) + "/mlp", Phase::kBackward, m, vars, {unit}}, {d_x2},
        s.mlp_tape, {s.x1}, {}, {})[0];
  }
  return call_backward(
      {block_ids_.attention, layer_path(layer) + "/attn", Phase::kBackward, m, vars, {unit}},
      {d_x1}, s.attention_tape, {s.x}, {s.x1}, {})[0];
}

// Chunked loss: one forward+backward op a chunk, after the global count of labels.
BufferId Lowering::loss(std::int32_t m, BufferId x) {
  std::vector<std::int32_t> units = {head_unit_};
  if (plan_.model.tied_head) units.push_back(embed_unit_);
  const Block& block = role_.blocks[static_cast<std::size_t>(block_ids_.loss)];
  Value whole = block.values[static_cast<std::size_t>(block.inputs[0])];
  whole.rows = SizeExpr::constant(shape_.tokens());
  const BufferId d_x = value_buffer("head/mb." + std::to_string(m), whole, vars_of(m), ".grad");
  const std::int64_t rows = loss_chunk_rows(shape_), chunks = loss_chunks(shape_);
  for (std::int64_t c = 0; c < chunks; ++c) {
    const std::int64_t begin = c * rows;
    const bool tail = begin + rows > shape_.tokens();
    const OpId id = call_loss({tail ? block_ids_.loss_tail : block_ids_.loss, "head/loss",
                               Phase::kForward, m, vars_of(m), units},
                              {x, labels_[static_cast<std::size_t>(m)], label_count_}, {d_x, -1},
                              static_cast<std::int32_t>(c));
    Op& op = role_.ops[static_cast<std::size_t>(id)];
    op.row_begin = begin;
    op.row_end = tail ? shape_.tokens() : begin + rows;
  }
  return d_x;
}

}  // namespace orrery
