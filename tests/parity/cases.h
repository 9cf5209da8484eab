// Small models, parameters and batches for parity tests.
#pragma once

#include <cstdint>

#include "core/model.h"
#include "tests/parity/reference.h"

namespace orrery::reference {

// Two layers of odd proportions: 4 heads over 2 kv heads of 4 columns (so heads * head_dim differs
// from hidden = 10). With experts: 4, top 2, and layer 0 dense if `first_dense`.
Model tiny_dense();
Model tiny_moe(bool first_dense = false);
// A dense layer, then 8 experts in 4 groups behind a sigmoid router: top 3 of the best 2 groups,
// and shared experts.
Model tiny_dots();
// Biases of its routers, some of them large enough to make choices negative.
Parameters random_biases(const Model& model, std::uint64_t seed);

// Normal weights of deviation `scale`; those of norms are 1 + scale times normal.
Parameters random_parameters(const Model& model, std::uint64_t seed, double scale = 0.4);

// Random ids and labels, one label in five ignored, every sequence cut into one to three documents.
Batch random_batch(const Model& model, std::int64_t sequences, std::int64_t tokens,
                   std::uint64_t seed);

}  // namespace orrery::reference
