// Lowering, one layer for the micro-batches of a pass: forward, recompute, backward; the embedding
// and the loss at the ends.
//
// With several micro-batches (Domino-EP), one's exchanges run while another computes. Forward: for
// each micro-batch what is left of the layer before (merge), attention, routing and the dispatch;
// then for each the experts and the combine. The dispatch of one hides behind the attention of the
// next, its combine behind the next one's experts or the next layer's attention. Backward mirrors
// it: combine gradients, experts, dispatch gradients, then router and attention of each; and the
// combine gradients of one in the layer below hide behind the attention of the next.
#include <utility>

#include "core/program/lowering.h"

namespace orrery {

void Lowering::embed_forward() {
  for (std::int32_t j = 0; j < domino_; ++j) {
    const std::int32_t m = micro_batch(j);
    x_[static_cast<std::size_t>(j)] =
        call({block_ids_.embed, "embed", Phase::kForward, m, vars_of(m), {embed_unit_}},
             {ids_[static_cast<std::size_t>(m)]}, true)[0];
  }
}

void Lowering::embed_backward() {
  for (std::int32_t j = 0; j < domino_; ++j) {
    const std::int32_t m = micro_batch(j);
    call_backward({block_ids_.embed, "embed", Phase::kBackward, m, vars_of(m), {embed_unit_}},
                  {gradients(j).d_x2}, -1, {ids_[static_cast<std::size_t>(m)]}, {}, {});
  }
}

// The output of the layer before, whose merge may still be to come.
BufferId Lowering::close(std::int32_t j) {
  const auto i = static_cast<std::size_t>(j);
  const std::int64_t layer = std::exchange(open_[i], -1);
  if (layer >= 0) {
    const bool tape = !again_ffn(layer);
    if (is_moe(layer)) merge(j, layer, tape);
    x_[i] = state(j, layer).x2;
  }
  return x_[i];
}

void Lowering::attention_of(std::int32_t j, std::int64_t layer, Phase phase, bool tape) {
  LayerState& s = state(j, layer);
  const auto out = call(layer_call(block_ids_.attention, j, layer, "/attn", phase), {s.x}, tape);
  s.x1 = out[0];
  s.attention_tape = out[1];
}

void Lowering::attention_backward_of(std::int32_t j, std::int64_t layer) {
  const LayerState& s = state(j, layer);
  BackwardState& g = gradients(j);
  g.d_x2 = call_backward(layer_call(block_ids_.attention, j, layer, "/attn", Phase::kBackward),
                         {g.d_x1}, s.attention_tape, {s.x}, {s.x1}, {})[0];
}

void Lowering::forward(std::int64_t layer) {
  const bool tape = !again_attention(layer), ffn_tape = !again_ffn(layer);
  const auto feed_forward = [&](std::int32_t j) {
    swap_out(j, layer);
    if (is_moe(layer)) {
      moe_begin(j, layer, Phase::kForward, ffn_tape);
      return;
    }
    LayerState& s = state(j, layer);
    const auto out =
        call(layer_call(block_ids_.mlp, j, layer, "/mlp", Phase::kForward), {s.x1}, ffn_tape);
    s.x2 = out[0];
    s.mlp_tape = out[1];
  };
  for (std::int32_t j = 0; j < domino_; ++j) {
    state(j, layer).x = close(j);
    if (shape_.sp > 1) {
      qkv_forward(j, layer, Phase::kForward, tape);
    } else {
      attention_of(j, layer, Phase::kForward, tape);
      feed_forward(j);
    }
  }
  // Of shared sequences, one's all-to-all runs while another computes.
  for (std::int32_t j = 0; shape_.sp > 1 && j < domino_; ++j) {
    core_forward(j, layer, Phase::kForward, tape);
  }
  for (std::int32_t j = 0; shape_.sp > 1 && j < domino_; ++j) {
    out_forward(j, layer, Phase::kForward, tape);
    feed_forward(j);
  }
  for (std::int32_t j = 0; j < domino_; ++j) {
    if (is_moe(layer)) moe_end(j, layer, Phase::kForward, ffn_tape && !again_experts(layer));
    open_[static_cast<std::size_t>(j)] = layer;
  }
  // Only where another micro-batch can hide the last combine is the merge put off.
  if (domino_ == 1) close(0);
}

void Lowering::recompute(std::int64_t layer) {
  if (again_attention(layer)) {
    for (std::int32_t j = 0; j < domino_; ++j) {
      if (shape_.sp > 1) {
        qkv_forward(j, layer, Phase::kRecompute, true);
        continue;
      }
      attention_of(j, layer, Phase::kRecompute, true);
      if (again_ffn(layer) && is_moe(layer)) moe_begin(j, layer, Phase::kRecompute, true);
    }
    for (std::int32_t j = 0; shape_.sp > 1 && j < domino_; ++j) {
      core_forward(j, layer, Phase::kRecompute, true);
    }
    for (std::int32_t j = 0; shape_.sp > 1 && j < domino_; ++j) {
      out_forward(j, layer, Phase::kRecompute, true);
    }
  }
  if (!again_ffn(layer)) return;
  const bool begun = again_attention(layer) && shape_.sp == 1;
  for (std::int32_t j = 0; j < domino_; ++j) {
    LayerState& s = state(j, layer);
    if (is_moe(layer)) {
      if (!begun) moe_begin(j, layer, Phase::kRecompute, true);
    } else {
      s.mlp_tape =
          call(layer_call(block_ids_.mlp, j, layer, "/mlp", Phase::kRecompute), {s.x1}, true)[1];
    }
  }
  for (std::int32_t j = 0; is_moe(layer) && j < domino_; ++j) {
    moe_end(j, layer, Phase::kRecompute, true);
  }
}

void Lowering::backward(std::int64_t layer) {
  for (std::int32_t j = 0; j < domino_; ++j) {
    BackwardState& g = gradients(j);
    if (is_moe(layer)) {
      if (!merges_early(layer)) merge_backward(j, layer);
    } else {
      const LayerState& s = state(j, layer);
      g.d_x1 = call_backward(layer_call(block_ids_.mlp, j, layer, "/mlp", Phase::kBackward),
                             {g.d_x2}, s.mlp_tape, {s.x1}, {}, {})[0];
    }
  }
  if (is_moe(layer)) {
    for (std::int32_t j = 0; j < domino_; ++j) {
      for (std::int32_t p = 0; p < parts_; ++p) experts_backward(j, layer, p);
    }
  }
  const auto last_of_layer = [&](std::int32_t j) {
    if (j + 1 == domino_) reduce_layer(layer);
    if (merges_early(layer - 1)) merge_backward(j, layer - 1);
  };
  for (std::int32_t j = 0; j < domino_; ++j) {
    if (is_moe(layer)) router_backward(j, layer);
    if (shape_.sp > 1) {
      out_backward(j, layer);
    } else {
      attention_backward_of(j, layer);
      last_of_layer(j);
    }
  }
  for (std::int32_t j = 0; shape_.sp > 1 && j < domino_; ++j) core_backward(j, layer);
  for (std::int32_t j = 0; shape_.sp > 1 && j < domino_; ++j) {
    qkv_backward(j, layer);
    last_of_layer(j);
  }
}

// Whether the backward of a layer's merge follows, in each micro-batch, that of the layer above: it
// needs no parameters, and its exchange another micro-batch to hide behind. What is recomputed is
// not there yet.
bool Lowering::merges_early(std::int64_t layer) const {
  return domino_ > 1 && layer >= 0 && is_moe(layer) && !again_attention(layer) && !again_ffn(layer);
}

// Chunked loss: one forward+backward op a chunk, after the global count of labels.
void Lowering::loss() {
  std::vector<std::int32_t> units = {head_unit_};
  if (plan_.model.tied_head) units.push_back(embed_unit_);
  const Block& first = block(block_ids_.loss);
  Value whole = first.values[static_cast<std::size_t>(first.inputs[0])];
  whole.rows = SizeExpr::constant(shape_.tokens());
  const std::int64_t rows = loss_chunk_rows(shape_), chunks = loss_chunks(shape_);
  for (std::int32_t j = 0; j < domino_; ++j) {
    const std::int32_t m = micro_batch(j);
    const BufferId x = close(j);
    const BufferId d_x = value_buffer("head/mb." + std::to_string(m), whole, vars_of(m), ".grad");
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
    gradients(j).d_x2 = d_x;
    if (merges_early(plan_.model.layers - 1)) merge_backward(j, plan_.model.layers - 1);
  }
}

}  // namespace orrery
