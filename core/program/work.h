// What an op asks of a device, as data the cost functions see: shapes, dtypes and bytes only.
#pragma once

#include <cstdint>
#include <vector>

#include "core/program/block.h"

namespace orrery {

enum class WorkKind : std::uint8_t { kGemm, kGroupedGemm, kAttention, kMemory };

struct Work {
  WorkKind kind = WorkKind::kMemory;
  DType dtype = DType::kFloat32;
  // GEMM: out[m,n] = a[m,k] b[k,n]; grouped: m rows in all, split over `groups` experts.
  SizeExpr m;
  std::int64_t n = 0, k = 0;
  std::int64_t groups = 1;
  SizeExpr flops;  // multiply-adds count two
  SizeExpr bytes;  // read and written
  std::int32_t kernels = 1;
};

std::vector<Work> forward_work(const Block& block);
std::vector<Work> backward_work(const Block& block);

}  // namespace orrery
