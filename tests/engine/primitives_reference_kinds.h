// What the files of the plain-loop references share.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/engine/primitives_reference.h"

namespace orrery::engine {

using Matrices = std::vector<Matrix>;

struct Site {
  const Prim& prim;
  const BlockContext& context;
};

inline std::int64_t whole(double x) {
  return static_cast<std::int64_t>(x);
}

std::vector<double> softmax_row(const Matrix& logits, std::int64_t row);

// Outputs of the kinds that route tokens, and of those that move rows between the ranks of a
// sequence.
Matrices evaluate_routing(const Site& s, const Matrices& in);
Matrices evaluate_sequence(const Site& s, const Matrices& in);

}  // namespace orrery::engine
