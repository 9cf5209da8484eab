// Drawing lengths, and rows of them.
#include "core/document_lengths.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <numbers>
#include <numeric>
#include <tuple>

#include "core/check.h"
#include "core/hash.h"

namespace orrery {
namespace {

constexpr std::int64_t kRows = 64, kDraws = 1 << 15;

double uniform(std::uint64_t seed) {
  return (static_cast<double>(mix64(seed) >> 11) + 0.5) * 0x1.0p-53;
}

std::int64_t mean_pairs(const DocumentLengths& lengths, std::int64_t row_tokens, Packing mode) {
  std::vector<std::int64_t> documents;
  std::int64_t tokens = 0, pairs = 0;
  for (std::int64_t i = 0; i < kDraws && tokens < kRows * row_tokens; ++i) {
    documents.push_back(draw_length(lengths, 0, i));
    tokens += documents.back();
    pairs += document_pairs(documents.back());
  }
  if (tokens < row_tokens) {  // a row is longer than all of them: they cover a part of it
    const double part = static_cast<double>(row_tokens) / static_cast<double>(tokens);
    return std::llround(static_cast<double>(pairs) * part);
  }
  const Packing packing = mode == Packing::kSoft ? mode : Packing::kHard;
  std::vector<PackedRow> rows = pack_stream(documents, row_tokens, packing);
  if (rows.size() > 1) rows.pop_back();  // the last one is not full
  double sum = 0;
  for (const PackedRow& row : rows) sum += static_cast<double>(row_pairs(row));
  return std::llround(sum / static_cast<double>(rows.size()));
}

}  // namespace

std::int64_t draw_length(const DocumentLengths& lengths, std::int64_t stream, std::int64_t index) {
  const std::uint64_t place =
      mix64(mix64(static_cast<std::uint64_t>(lengths.seed)) + static_cast<std::uint64_t>(stream)) +
      2 * static_cast<std::uint64_t>(index);
  const double u = uniform(place), v = uniform(place + 1);
  const double z = std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v);
  const double length = lengths.median_tokens * std::exp(lengths.sigma * z);
  if (length >= static_cast<double>(lengths.max_tokens)) return lengths.max_tokens;
  return std::max<std::int64_t>(1, std::llround(length));
}

std::vector<std::int64_t> draw_row(const DocumentLengths& lengths, std::int64_t row_tokens,
                                   std::int64_t row) {
  std::vector<std::int64_t> documents;
  for (std::int64_t left = row_tokens; left > 0; left -= documents.back()) {
    documents.push_back(std::min(left, draw_length(lengths, row, std::ssize(documents))));
  }
  return documents;
}

std::int64_t expected_pairs(const DocumentLengths& lengths, std::int64_t row_tokens, Packing mode) {
  using Key = std::tuple<double, double, std::int64_t, std::int64_t, std::int64_t, Packing>;
  static std::mutex mutex;
  static std::map<Key, std::int64_t> known;
  const std::lock_guard lock(mutex);
  const Key key{lengths.median_tokens, lengths.sigma, lengths.max_tokens,
                lengths.seed,          row_tokens,    mode};
  const auto found = known.find(key);
  if (found != known.end()) return found->second;
  return known[key] = mean_pairs(lengths, row_tokens, mode);
}

}  // namespace orrery
