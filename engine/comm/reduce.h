// Element-wise sums in rank order: the one definition of a reduction's result. bf16 accumulates in
// fp32 and is rounded once (to nearest, ties to even); fp32, fp64 and int64 in their own type.
#pragma once

#include <cstdint>
#include <vector>

#include "core/program/block.h"

namespace orrery::engine {

// out[i] = ((parts[0][i] + parts[1][i]) + parts[2][i]) + ... for i < count. `out` may be exactly
// one of the parts; any other overlap is not allowed. int64 wraps around.
void sum_in_rank_order(const std::vector<const void*>& parts, void* out, std::int64_t count,
                       DType dtype);

// The nearest bf16 (ties to even); NaN stays NaN.
std::uint16_t bf16_of(float value);
float float_of_bf16(std::uint16_t bits);

}  // namespace orrery::engine
