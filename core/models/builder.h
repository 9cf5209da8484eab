// Small helpers so that a block reads like its formula. A builder makes one block: most values have
// its rows and the compute dtype.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/model.h"
#include "core/models/family.h"
#include "core/program/block.h"

namespace orrery {

inline SizeExpr rows_of(std::int64_t n) {
  return SizeExpr::constant(n);
}

class Builder {
 public:
  // `grad_dtype`: of the gradient buffers of the block's parameters.
  Builder(std::string name, SizeExpr rows, DType dtype, DType grad_dtype)
      : rows_(rows), dtype_(dtype), grad_dtype_(grad_dtype) {
    block.name = std::move(name);
  }

  ValueId input(const char* name, std::int64_t cols) { return input(name, rows_, cols); }
  ValueId input(const char* name, SizeExpr rows, std::int64_t cols) {
    block.inputs.push_back(value(name, rows, cols));
    return block.inputs.back();
  }
  ValueId integer_input(const char* name, SizeExpr rows, std::int64_t cols) {
    block.inputs.push_back(integers(name, rows, cols));
    return block.inputs.back();
  }
  // An input in the statistics' dtype that carries no gradient.
  ValueId statistic_input(const char* name, SizeExpr rows, std::int64_t cols) {
    block.inputs.push_back(statistic(name, rows, cols, false));
    return block.inputs.back();
  }
  ValueId value(const char* name, std::int64_t cols) { return value(name, rows_, cols); }
  ValueId value(const char* name, SizeExpr rows, std::int64_t cols) {
    return block.add(name, rows, cols, dtype_);
  }
  ValueId integers(const char* name, SizeExpr rows, std::int64_t cols) {
    return block.add(name, rows, cols, DType::kInt64, false);
  }
  ValueId statistic(const char* name, SizeExpr rows, std::int64_t cols, bool needs_grad) {
    return block.add(name, rows, cols, stat_dtype(dtype_), needs_grad);
  }
  // The reference is good until the next primitive.
  Prim& prim(PrimKind kind, std::vector<ValueId> in, std::vector<ValueId> out) {
    Prim p{.kind = kind};
    p.in = std::move(in);
    p.out = std::move(out);
    block.prims.push_back(std::move(p));
    return block.prims.back();
  }
  // RMS norm of groups of `group` columns.
  ValueId norm(const char* out, ValueId x, const char* weight, std::int64_t cols,
               std::int64_t group, double eps) {
    const ValueId y = value(out, cols);
    const std::int32_t w = block.param(weight, {group}, grad_dtype_);
    Prim& p = prim(PrimKind::kRmsNorm, {x}, {y});
    p.param = w;
    p.head_dim = group;
    p.scalar = eps;
    return y;
  }
  ValueId linear(const char* out, ValueId x, const char* weight, std::int64_t n, std::int64_t k) {
    const ValueId y = value(out, n);
    const std::int32_t w = block.param(weight, {n, k}, grad_dtype_);
    prim(PrimKind::kLinear, {x}, {y}).param = w;
    return y;
  }
  ValueId grouped(const char* out, ValueId x, const char* weight, std::int64_t experts,
                  std::int64_t n, std::int64_t k) {
    const ValueId y = value(out, n);
    const std::int32_t w = block.param(weight, {experts, n, k}, grad_dtype_);
    Prim& p = prim(PrimKind::kGroupedLinear, {x}, {y});
    p.param = w;
    p.experts = experts;
    return y;
  }
  ValueId swiglu(ValueId gate, ValueId up, std::int64_t cols) {
    const ValueId a = value("activated", cols);
    prim(PrimKind::kSwiGlu, {gate, up}, {a});
    return a;
  }
  ValueId add(const char* out, ValueId a, ValueId b, std::int64_t cols) {
    const ValueId y = value(out, cols);
    prim(PrimKind::kAdd, {a, b}, {y});
    return y;
  }
  Block finish(std::vector<ValueId> outputs) {
    block.outputs = std::move(outputs);
    block.finish();
    return std::move(block);
  }

  Block block;

 private:
  SizeExpr rows_;
  DType dtype_, grad_dtype_;
};

}  // namespace orrery
