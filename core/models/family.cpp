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
