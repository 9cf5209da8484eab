// One transformer layer of the reference: attention block, dense or mixture-of-experts block, and
// their derivatives.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/parity/reference.h"
#include "tests/parity/reference_math.h"
#include "tests/parity/reference_router.h"

namespace orrery::reference {

// How the rows of the batch hang together: positions and documents for attention, groups for the
// balancing loss.
struct Rows {
  std::vector<std::int64_t> positions;  // a row
  Attention attention;                  // its documents are ranges of rows
  std::vector<std::int64_t> group;      // a row: index into group_tokens
  std::vector<std::int64_t> group_tokens;
  double balance_coefficient = 0;  // 0: no balancing loss
  double z_loss = 0;
  const Parameters* biases = nullptr;
};

// Parameters "layers.N.*", and their gradients.
struct LayerWeights {
  const Model& model;
  const Parameters& parameters;
  std::int64_t index = 0;

  std::string name(const std::string& leaf) const {
    return "layers." + std::to_string(index) + "." + leaf;
  }
  const Vector& operator()(const std::string& leaf) const { return parameters.at(name(leaf)); }
};

// What the backward needs of the forward.
struct LayerState {
  Vector x;                   // input
  Vector n1;                  // rms_norm(x)
  Vector q_linear, k_linear;  // before their norms
  Vector q_normed, k_normed;  // before rope
  Vector q, k, v;
  Vector attended;  // before o_proj
  Vector x1;        // x + attention block
  Vector n2;        // rms_norm(x1)
  // Of a mixture of experts:
  std::vector<Route> routes;  // [N]
  Vector picks;               // [groups,E]
  double balance_loss = 0, z_loss = 0;
  Vector y;  // the layer's result
};

LayerState layer_forward(const LayerWeights& w, const Rows& rows, const Vector& x);

// Returns the gradient of x; adds the layer's gradients, the balancing loss's included, to `grads`.
Vector layer_backward(const LayerWeights& w, const Rows& rows, const LayerState& s,
                      const Vector& dy, Parameters& grads);

}  // namespace orrery::reference
