// Lowering, the inputs of recomputed layers on the host: copied away while the layers after them
// run, brought back some layers ahead of their backward.
#include <algorithm>

#include "core/program/lowering.h"

namespace orrery {

OpId Lowering::copy(OpKind kind, Phase phase, std::string path, std::int32_t m, BufferId from,
                    BufferId to, std::int32_t chunk) {
  const Lane lane = kind == OpKind::kCopyToHost ? Lane::kD2h : Lane::kH2d;
  Op o = op(kind, phase, lane, std::move(path), m);
  o.chunk = chunk;
  o.in = {from};
  const bool persistent = at(to).cls == BufferClass::kOptimizer;
  (persistent ? o.updates : o.out) = {to};
  return add(std::move(o));
}

void Lowering::swap_out(std::int32_t j, std::int64_t layer) {
  if (!swapped(layer)) return;
  LayerState& s = state(j, layer);
  const std::int32_t m = micro_batch(j);
  const std::string path = layer_path(layer) + "/swap";
  const Buffer& x = at(s.x);
  s.swapped = buffer(path + "/mb." + std::to_string(m) + "/host", x.cls, x.rows, x.cols, x.dtype,
                     x.vars, MemorySpace::kHost);
  copies_.push_back(
      {copy(OpKind::kCopyToHost, Phase::kForward, path, m, s.x, s.swapped), segment_});
}

// Of the layers from `layer` on, those that have not come back yet.
void Lowering::swap_in(std::int64_t layer) {
  for (; next_swap_in_ >= std::max<std::int64_t>(layer, 0); --next_swap_in_) {
    for (std::int32_t j = 0; j < domino_; ++j) {
      LayerState& s = state(j, next_swap_in_);
      const std::int32_t m = micro_batch(j);
      const std::string path = layer_path(next_swap_in_) + "/swap";
      const Buffer host = at(s.swapped);
      s.x = buffer(path + "/mb." + std::to_string(m) + "/device", host.cls, host.rows, host.cols,
                   host.dtype, host.vars);
      copy(OpKind::kCopyToDevice, Phase::kBackward, path, m, s.swapped, s.x);
    }
  }
}

}  // namespace orrery
