// A distribution of document lengths, from which the typical rows of a workload are drawn. Draws
// depend on the seed and their place alone.
#pragma once

#include <cstdint>
#include <vector>

#include "core/packing.h"

namespace orrery {

// Log-normal: the logarithm of a length is normal, its median and standard deviation as stated;
// lengths are rounded, and no more than max_tokens.
struct DocumentLengths {
  double median_tokens = 0, sigma = 0;
  std::int64_t max_tokens = 0;
  std::int64_t seed = 0;
  bool operator==(const DocumentLengths&) const = default;
};

// The length of document `index` of stream `stream`; at least 1.
std::int64_t draw_length(const DocumentLengths& lengths, std::int64_t stream, std::int64_t index);

// The documents of typical row `row`, drawn one after the other; the last is cut at its end.
std::vector<std::int64_t> draw_row(const DocumentLengths& lengths, std::int64_t row_tokens,
                                   std::int64_t row);

// Mean pairs of a row packed naively from drawn documents (kNone: as kHard), from as many rows as
// 32,768 documents fill, and no more than 64. Remembers what it was asked.
std::int64_t expected_pairs(const DocumentLengths& lengths, std::int64_t row_tokens, Packing mode);

}  // namespace orrery
