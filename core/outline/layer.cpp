// Layers and ends of a model as outlines.
#include <algorithm>

#include "core/outline/builder.h"

namespace orrery::outline {
namespace {

// Bytes a logit: from the loss to its backward, and beyond them at the fullest point, where the
// 16 bit gradient (of the product behind: transient_of) is not there yet.
struct LossBytes {
  double saves = 0, worst = 0;
};

LossBytes loss_bytes(const Job& job) {
  const double each = job.stack.fp32_loss ? 4 : width(job), half = width(job);
  switch (job.stack.loss) {
    case LossKernel::kTorch:
      // Log-probabilities; their gradient and that of the logits' copy. Split over ranks (PyTorch's
      // loss_parallel), the exponentials of the log-probabilities beside them.
      return {each, (job.layout.tp > 1 ? 3 : 2) * each - half};
    case LossKernel::kInPlace:
      return {each, 0};
    case LossKernel::kFused:
      return {half, 0};
    case LossKernel::kChunked:
      return {0, 3 * each};
  }
  return {};
}

}  // namespace

void norm(const Job& job, Builder& b, const char* name, Parameters& p) {
  b.in(Module::kNorm);
  const auto hidden = static_cast<double>(job.model.hidden);
  const double elements = residual_rows(job) * hidden;
  // Op by op, an RMS norm also keeps its input in fp32.
  const bool copies = job.model.norm == NormKind::kRms && !job.stack.fused_passes;
  b.pass(name, PassKind::kNorm, elements, elements, elements * (copies ? 3 : 1));
  const double weights = job.model.norm_bias ? 2 * hidden : hidden;
  p.dense += weights;
  p.replicated += weights;
}

Piece layer(const Job& job, std::int64_t layer, bool again) {
  Builder b(job);
  Piece piece;
  attention(job, layer, b, piece.parameters);
  if (job.model.moe_layer[static_cast<std::size_t>(layer)]) {
    experts(job, b, piece.parameters);
  } else {
    dense_mlp(job, b, piece.parameters);
  }
  piece.outline = std::move(b.outline);
  const double input = residual_rows(job) * static_cast<double>(job.model.hidden) * width(job);
  finish(job, piece.outline, again, input);
  return piece;
}

Piece embedding(const Job& job) {
  Builder b(job);
  Piece piece;
  b.in(Module::kEnds);
  const Model& m = job.model;
  const double elements = rows_of(job) * static_cast<double>(m.hidden);
  b.pass("embed", PassKind::kRows, elements, elements);
  leave(job, b, "sum_rows");
  const double table = static_cast<double>(m.vocab) / static_cast<double>(job.layout.tp);
  piece.parameters.dense = table * static_cast<double>(m.hidden);
  if (m.positions == Positions::kLearned) {
    const auto positions = static_cast<double>(m.max_positions * m.hidden);
    piece.parameters.dense += positions;
    piece.parameters.replicated += positions;
  }
  if (m.embedding_norm) norm(job, b, "embedding_norm", piece.parameters);
  piece.outline = std::move(b.outline);
  finish(job, piece.outline, false, 0);
  return piece;
}

Piece further_token(const Job& job) {
  Builder b(job);
  Piece piece;
  const auto hidden = static_cast<double>(job.model.hidden), rows = rows_of(job);
  const auto tp = static_cast<double>(job.layout.tp);
  b.in(Module::kEnds);
  b.pass("embed", PassKind::kRows, rows * hidden, rows * hidden);
  for (const char* half : {"token_norm", "row_norm"}) {
    norm(job, b, half, piece.parameters);
    enter(job, b, "gather_half");
  }
  b.in(Module::kEnds);
  b.product("join", rows, hidden / tp, 2 * hidden);
  b.input_parts = 1;
  if (job.layout.tp > 1) {
    Task& t =
        b.collective("gather_columns", CollectiveKind::kAllGather, Axis::kTensor, rows * hidden);
    t.bytes *= gathered_share(job, t);
  }
  piece.parameters.dense += 2 * hidden * hidden / tp;
  piece.outline = std::move(b.outline);
  finish(job, piece.outline, false, 0);
  return piece;
}

Piece head(const Job& job) {
  Builder b(job);
  Piece piece;
  const Model& m = job.model;
  norm(job, b, "final_norm", piece.parameters);
  enter(job, b, "gather_rows");
  b.in(Module::kEnds);
  const double rows = rows_of(job);
  const double columns = static_cast<double>(m.vocab) / static_cast<double>(job.layout.tp);
  b.product("logits", rows, columns, static_cast<double>(m.hidden), true, false);
  // The largest, the exponentials, their sum, the loss: and the logits' copy in fp32.
  Task& loss = b.pass("loss", PassKind::kLoss, 0, 0);
  const double each = job.stack.fp32_loss ? 6 + 4 * 4 : 3 * width(job);
  loss.bytes = rows * columns * each;
  loss.kernels = 8;
  const LossBytes bytes = loss_bytes(job);
  loss.saves = rows * columns * bytes.saves;
  if (job.layout.tp > 1) {
    Task& sums = b.collective("loss_sums", CollectiveKind::kAllReduce, Axis::kTensor, 0);
    sums.bytes = 3 * 4 * rows;
  }
  b.input_parts = 1;
  piece.parameters.dense += columns * static_cast<double>(m.hidden);
  piece.outline = std::move(b.outline);
  finish(job, piece.outline, false, 0);
  const double again = piece.outline.worst;
  piece.outline.worst += rows * columns * bytes.worst;
  if (job.stack.loss == LossKernel::kChunked) {
    constexpr double kChunkRows = 1024;  // as is usual: gradients of the hidden rows are kept
    piece.outline.transient = std::min(rows, kChunkRows) * columns * bytes.worst +
                              2 * rows * static_cast<double>(m.hidden) * width(job);
    piece.outline.worst = again;
  }
  return piece;
}

}  // namespace orrery::outline
