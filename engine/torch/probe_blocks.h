// Small blocks that stand for one class of ops each, and the time one takes. For the probe alone.
#pragma once

#include <cstdint>
#include <functional>

#include "core/program/block.h"
#include "core/program/work.h"
#include "core/result.h"  // before any header of libtorch: CHECK

namespace orrery::engine {

// Blocks of one kind of work each.
Block linear_block(std::int64_t m, std::int64_t n, std::int64_t k, DType dtype);
Block grouped_block(std::int64_t experts, std::int64_t rows, std::int64_t n, std::int64_t k);
Block attention_probe_block(std::int64_t sequences, std::int64_t tokens, std::int64_t heads,
                            std::int64_t kv_heads, std::int64_t head_dim);
// One pass over memory of the kind: norm, rope, activation or stream (a sum).
Block pass_block(PassKind kind, std::int64_t rows, std::int64_t cols);

// Medians over the window: what one core does that nothing takes away.
struct BlockTime {
  double forward_s = 0, backward_s = 0;
  double spread = 0;  // of the two halves of the window: |a - b| / mean
};

// Runs the block forward and backward again and again for about `budget_s`; `ready` is called
// before, to start together with other ranks.
BlockTime time_block(const Block& block, double budget_s, const std::function<void()>& ready);

// The same for as long as `more` says so. Returns how often it ran.
std::int64_t repeat_block(const Block& block, const std::function<bool()>& more);

}  // namespace orrery::engine
