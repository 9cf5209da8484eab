// What an op asks of a device, as data the cost functions see: shapes, dtypes and bytes only.
#pragma once

#include <cstdint>
#include <vector>

#include "core/program/block.h"

namespace orrery {

enum class WorkKind : std::uint8_t { kGemm, kGroupedGemm, kAttention, kMemory };

// Kinds of passes over memory, each with a speed of its own: on a CPU an exponential costs more
// than the bytes it reads.
enum class PassKind : std::uint8_t {
  kStream,      // copies, sums, casts
  kNorm,        // RMS norm
  kRope,        // rotary embedding
  kActivation,  // SwiGLU
  kRows,        // rows gathered or scattered by index, blocks of rows turned around
  kRouting,     // scores, top-k, sorting
  kLoss,        // cross entropy, z loss, balance loss
  kOptimizer,   // AdamW
};
inline constexpr int kNumPassKinds = 8;
const char* name_of(PassKind kind);  // "stream", "norm", ...

struct Work {
  WorkKind kind = WorkKind::kMemory;
  PassKind pass = PassKind::kStream;  // of kMemory
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
