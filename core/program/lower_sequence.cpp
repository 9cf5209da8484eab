// Lowering, attention of a sequence that several ranks share (Ulysses): each rank projects its own
// rows, an all-to-all gives it whole sequences of some heads, attention runs, and an all-to-all
// brings the rows back.
#include "core/program/lowering.h"

namespace orrery {

BufferId Lowering::all_to_all(std::int32_t j, std::int64_t layer, Phase phase, const char* name,
                              BufferId rows) {
  Op o =
      op(OpKind::kAllToAll, phase, Lane::kSp, layer_path(layer) + "/attn/" + name, micro_batch(j));
  o.group = kGroupIds.sp;
  return move_rows(std::move(o), rows, at(rows).rows, "/rows");
}

void Lowering::qkv_forward(std::int32_t j, std::int64_t layer, Phase phase, bool tape) {
  LayerState& s = state(j, layer);
  const auto out = call(layer_call(block_ids_.qkv, j, layer, "/attn/qkv", phase), {s.x}, tape);
  s.qkv_tape = out[1];
  s.packed = all_to_all(j, layer, phase, "to_heads", out[0]);
}

void Lowering::core_forward(std::int32_t j, std::int64_t layer, Phase phase, bool tape) {
  LayerState& s = state(j, layer);
  const auto out =
      call(layer_call(block_ids_.core, j, layer, "/attn/core", phase, false), {s.packed}, tape);
  s.core_out = out[0];
  s.core_tape = out[1];
  s.attended = all_to_all(j, layer, phase, "to_rows", out[0]);
}

void Lowering::out_forward(std::int32_t j, std::int64_t layer, Phase phase, bool tape) {
  LayerState& s = state(j, layer);
  const auto out =
      call(layer_call(block_ids_.out, j, layer, "/attn/out", phase), {s.x, s.attended}, tape);
  s.x1 = out[0];
  s.out_tape = out[1];
}

void Lowering::out_backward(std::int32_t j, std::int64_t layer) {
  const LayerState& s = state(j, layer);
  BackwardState& g = gradients(j);
  const auto d = call_backward(layer_call(block_ids_.out, j, layer, "/attn/out", Phase::kBackward),
                               {g.d_x1}, s.out_tape, {s.x, s.attended}, {s.x1}, {});
  g.d_residual = d[0];
  g.d_core = all_to_all(j, layer, Phase::kBackward, "to_rows", d[1]);
}

void Lowering::core_backward(std::int32_t j, std::int64_t layer) {
  const LayerState& s = state(j, layer);
  BackwardState& g = gradients(j);
  const auto d =
      call_backward(layer_call(block_ids_.core, j, layer, "/attn/core", Phase::kBackward, false),
                    {g.d_core}, s.core_tape, {s.packed}, {s.core_out}, {});
  g.d_core = all_to_all(j, layer, Phase::kBackward, "to_heads", d[0]);
}

void Lowering::qkv_backward(std::int32_t j, std::int64_t layer) {
  const LayerState& s = state(j, layer);
  BackwardState& g = gradients(j);
  // x feeds the projections and the residual of `out`: the second gradient seeds the first. The
  // packed heads were sent away, not kept.
  g.d_x2 = call_backward(layer_call(block_ids_.qkv, j, layer, "/attn/qkv", Phase::kBackward),
                         {g.d_core}, s.qkv_tape, {s.x}, {-1}, {g.d_residual})[0];
}

}  // namespace orrery
