// Building a block and deriving its forward schedules: which values live until when.
#include "core/program/block.h"

#include <algorithm>
#include <utility>

#include "core/check.h"
#include "core/program/block_check.h"

namespace orrery {
namespace {

bool contains(const std::vector<ValueId>& list, ValueId id) {
  return std::find(list.begin(), list.end(), id) != list.end();
}

// Index of the last primitive that touches each value; -1 for an untouched input.
std::vector<std::int32_t> last_uses(const Block& block) {
  std::vector<std::int32_t> last(block.values.size(), -1);
  for (std::size_t i = 0; i < block.prims.size(); ++i) {
    for (ValueId v : block.prims[i].in) last[static_cast<std::size_t>(v)] = static_cast<int>(i);
    for (ValueId v : block.prims[i].out) last[static_cast<std::size_t>(v)] = static_cast<int>(i);
  }
  return last;
}

// One step a primitive; a value goes after its last use unless it is in `kept`.
std::vector<BlockStep> schedule(const Block& block, const std::vector<bool>& kept) {
  const std::vector<std::int32_t> last = last_uses(block);
  std::vector<BlockStep> steps(block.prims.size());
  for (std::size_t i = 0; i < steps.size(); ++i) steps[i].prim = static_cast<std::int32_t>(i);
  for (std::size_t v = 0; v < last.size(); ++v) {
    if (kept[v] || last[v] < 0) continue;
    steps[static_cast<std::size_t>(last[v])].release.push_back(static_cast<ValueId>(v));
  }
  return steps;
}

}  // namespace

std::int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return 4;
    case DType::kBFloat16:
      return 2;
    case DType::kFloat64:
    case DType::kInt64:
      return 8;
  }
  CHECK(false, "unknown dtype");
}

const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return "fp32";
    case DType::kBFloat16:
      return "bf16";
    case DType::kFloat64:
      return "fp64";
    case DType::kInt64:
      return "int64";
  }
  CHECK(false, "unknown dtype");
}

DType stat_dtype(DType compute) {
  return compute == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
}

bool has_grad(const Value& value) {
  return value.needs_grad && value.dtype != DType::kInt64;
}

ValueId Block::add(std::string value_name, SizeExpr rows, std::int64_t cols, DType dtype,
                   bool needs_grad) {
  values.push_back({std::move(value_name), rows, cols, dtype, needs_grad});
  return static_cast<ValueId>(values.size()) - 1;
}

std::int32_t Block::param(std::string param_name, std::vector<std::int64_t> shape,
                          DType grad_dtype) {
  params.push_back({std::move(param_name), std::move(shape), grad_dtype});
  return static_cast<std::int32_t>(params.size()) - 1;
}

void Block::finish() {
  check_block(*this);
  saved.clear();
  saved_inputs.clear();
  saved_outputs.clear();
  std::vector<bool> borrowed(values.size());  // the caller's: inputs and outputs
  std::vector<bool> read(values.size());      // by backward
  for (ValueId v : inputs) borrowed[static_cast<std::size_t>(v)] = true;
  for (ValueId v : outputs) borrowed[static_cast<std::size_t>(v)] = true;
  for (const Prim& prim : prims) {
    for (ValueId v : saved_by(prim)) read[static_cast<std::size_t>(v)] = true;
  }
  std::vector<bool> kept = borrowed;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!read[i]) continue;
    const auto v = static_cast<ValueId>(i);
    kept[i] = true;
    if (contains(inputs, v)) {
      saved_inputs.push_back(v);
    } else if (contains(outputs, v)) {
      saved_outputs.push_back(v);
    } else {
      saved.push_back(v);
    }
  }
  forward_only = schedule(*this, borrowed);
  forward_tape = schedule(*this, kept);
}

bool depends_on_routing(const Block& block) {
  for (const Prim& prim : block.prims) {
    if (prim.kind == PrimKind::kGroupedLinear) return true;
  }
  for (const Value& value : block.values) {
    if (!value.rows.is_constant() && value.rows.scope == VarScope::kRoute) return true;
  }
  return false;
}

}  // namespace orrery
