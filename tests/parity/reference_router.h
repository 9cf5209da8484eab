// The router of the reference, one token at a time.
//
// Scores s: softmax of the logits z, or sigmoid of each. The choice is by s + bias: with G groups
// of experts, only the `top_groups` whose two best choices have the largest sums; there the k best.
// Ties go to the lower index. Weights: routed_scale * s_j / (sum of the chosen s + tiny), or
// routed_scale * s_j; tiny = 1e-20 for sigmoid, else 0.
#pragma once

#include <cstdint>
#include <vector>

#include "core/model.h"
#include "tests/parity/reference_math.h"

namespace orrery::reference {

struct Route {
  Vector scores;                      // [E]
  Vector probs;                       // [E]: s, or s / sum(s) for sigmoid: they sum to one
  Vector softmax;                     // [E]: of the logits, for the derivative of log_sum
  double log_sum = 0;                 // log(sum_e exp(z_e))
  std::vector<std::int64_t> experts;  // [k], best choice first
  Vector weights;                     // [k]
};

Route route_token(const Model& model, Values logits, Values bias);

// The gradient of the logits from those of weights, probs and log_sum.
Vector route_token_backward(const Model& model, const Route& route, Values dweights, Values dprobs,
                            double dlog_sum);

}  // namespace orrery::reference
