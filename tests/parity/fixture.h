// Figures of Hugging Face transformers (fixtures/make_dots1.py writes them): small dots1 models,
// what they were given and what came out, in fp64 with 14 digits.
#pragma once

#include <string>
#include <vector>

#include "core/model.h"
#include "core/result.h"
#include "tests/parity/reference.h"

namespace orrery::reference {

struct Fixture {
  std::string name;
  Model model;
  Parameters parameters, biases;
  Batch batch;
  double loss = 0;
  std::vector<double> logits;                      // [rows * V]
  Parameters gradients;                            // by the names of shapes()
  std::vector<std::vector<std::int64_t>> routing;  // a MoE layer: [rows * k], a row's ids sorted
};

// tests/parity/fixtures/dots1.json.
Result<std::vector<Fixture>> dots1_fixtures();

// The largest |a - b|, relative to the largest |b| where that is above one. CHECKs equal sizes.
double worst_difference(const std::vector<double>& a, const std::vector<double>& b);
// The ids of every row of k, sorted.
std::vector<std::int64_t> sorted_rows(std::vector<std::int64_t> ids, std::int64_t k);

}  // namespace orrery::reference
