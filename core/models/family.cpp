// The table of model families.
#include "core/models/family.h"

#include <algorithm>

#include "core/check.h"
#include "core/models/decoder.h"

namespace orrery {
namespace {

constexpr Family kFamilies[] = {
    {"qwen3", decoder_blocks, decoder_units},
    {"qwen3_moe", decoder_blocks, decoder_units},
    {"dots1", decoder_blocks, decoder_units},
};

}  // namespace

BlockShape block_shape(const Plan& plan) {
  const Layout& layout = plan.layout;
  BlockShape s;
  s.sequences = layout.micro_batch;
  s.valid_tokens = plan.workload.sequence_tokens;
  s.sequence_tokens = (s.valid_tokens + layout.sp - 1) / layout.sp * layout.sp;
  s.global_sequences = plan.workload.global_sequences;
  s.dp = layout.dp;
  s.micro_batches = layout.accumulation * plan.chunks.domino;
  s.sp = layout.sp;
  s.ep = layout.ep;
  s.exchange_parts = plan.chunks.exchange_parts;
  s.gather_dispatch = layout.dispatcher == "all_gather";
  s.domino = plan.chunks.domino;
  s.attention_query = plan.chunks.attention_query;
  s.loss_tokens = plan.chunks.loss_tokens;
  s.compute = plan.workload.compute;
  s.master = plan.workload.master;
  s.balance_scope = plan.workload.balance_scope;
  s.z_loss = plan.workload.z_loss;
  return s;
}

const Family& family_of(const Model& model) {
  const Family* found = std::find_if(std::begin(kFamilies), std::end(kFamilies),
                                     [&](auto& f) { return model.model_type == f.model_type; });
  CHECK(found != std::end(kFamilies), "no family for model_type " + model.model_type);
  return *found;
}

DType gradient_dtype(const Model& model, const BlockShape& shape, const std::string& unit) {
  const bool many_uses = shape.domino > 1 || (unit == "head" && loss_chunks(shape) > 1) ||
                         (unit == "embed" && model.tied_head);
  return many_uses ? shape.master : shape.compute;
}

std::int64_t loss_chunk_rows(const BlockShape& shape) {
  const std::int64_t tokens = shape.tokens();
  return shape.loss_tokens > 0 ? std::min(shape.loss_tokens, tokens) : tokens;
}

std::int64_t loss_chunks(const BlockShape& shape) {
  const std::int64_t rows = loss_chunk_rows(shape);
  return (shape.tokens() + rows - 1) / rows;
}

}  // namespace orrery
