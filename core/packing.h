// Packing: the documents of a step placed into rows, and the rows dealt to the ranks, so that ranks
// that wait for each other have the same work. Pure: the same documents, deal and mode give the
// same rows, so that every rank computes the whole assignment alone.
//
// What a document costs is linear_s * len + quadratic_s * len * (len + 1) / 2. All rows have the
// same tokens, padding included, so that the linear part is the same for each of them: rows differ
// by their pairs alone, and only pairs (integers) are compared. Every micro-batch ends in
// collectives, so that a step takes as long as the sum over its micro-batches of the slowest rank
// of each ("lockstep"): that is what balancing makes small. It need not make all rows alike: a
// document with more pairs than the mean row is joined by rows as heavy in the same micro-batch.
#pragma once

#include <cstdint>
#include <vector>

namespace orrery {

// kNone: rows are cut from running text, their documents stated by the workload. kSoft: whole
// documents, never cut, the rest of a row is padding. kHard: documents are cut at a row's end, and
// the rest goes on in another row.
enum class Packing { kNone, kSoft, kHard };

// Seconds of one micro-batch's compute on a rank: per token, and per query-key pair.
struct DocumentCost {
  double linear_s = 0, quadratic_s = 0;
  double of(std::int64_t tokens, std::int64_t pairs) const {
    return linear_s * static_cast<double>(tokens) + quadratic_s * static_cast<double>(pairs);
  }
  bool operator==(const DocumentCost&) const = default;
};

// Query-key pairs of a document under a causal mask.
constexpr std::int64_t document_pairs(std::int64_t tokens) {
  return tokens * (tokens + 1) / 2;
}

// Padding is documents of at most so many tokens: it costs little attention.
inline constexpr std::int64_t kPaddingTokens = 256;

// Tokens [begin, begin + tokens) of a document of the pool, attended to as a document of its own;
// padding where `document` is -1.
struct Piece {
  std::int32_t document = -1;
  std::int64_t begin = 0, tokens = 0;
  bool operator==(const Piece&) const = default;
};
using PackedRow = std::vector<Piece>;

// Who takes which row: rows[(m * ranks + rank) * micro_batch + j] is row j of micro-batch m of the
// rank. Ranks that share their rows (sequence parallel) count as one.
struct Deal {
  std::int64_t ranks = 1, micro_batches = 1, micro_batch = 1;
  std::int64_t rows() const { return ranks * micro_batches * micro_batch; }
};

enum class Balance {
  kNaive,   // first fit in the order of arrival, rows dealt in their order
  kLevels,  // as said above
};

struct Packed {
  std::vector<PackedRow> rows;   // Deal::rows(), each of row_tokens tokens
  std::vector<Piece> left_over;  // what no row had room for
};

// Places `documents` (lengths >= 1; those longer than a row are left over by kSoft). What is placed
// and what is left over does not depend on `balance`. Never slower in lockstep than kNaive.
Packed pack(const std::vector<std::int64_t>& documents, std::int64_t row_tokens, const Deal& deal,
            Packing mode, Balance balance);

// Rows for all of `documents`, in order of arrival: for a source that cuts a stream into steps.
// kSoft: first fit, without those longer than a row. kHard: the last row may be padded.
std::vector<PackedRow> pack_stream(const std::vector<std::int64_t>& documents,
                                   std::int64_t row_tokens, Packing mode);

// What the ranks of a step have to do, by pairs of their rows.
struct PackedWork {
  std::vector<std::int64_t> rank_pairs;  // over all micro-batches
  std::int64_t lockstep_pairs = 0;       // sum over the micro-batches of the most of any rank
};
PackedWork packed_work(const std::vector<PackedRow>& rows, const Deal& deal);
std::int64_t row_pairs(const PackedRow& row);

}  // namespace orrery
