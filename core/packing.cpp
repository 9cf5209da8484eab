// First fit, the cut of a stream, and what a packing costs. Balancing is in packing_balance.cpp.
#include "core/packing.h"

#include <algorithm>

#include "core/check.h"
#include "core/packing_rows.h"

namespace orrery {
namespace {

// The first row with room: a tree of the most free tokens below each node.
class FreeTree {
 public:
  FreeTree(std::int64_t rows, std::int64_t tokens) {
    while (leaves_ < rows) leaves_ *= 2;
    most_.assign(static_cast<std::size_t>(2 * leaves_), 0);
    for (std::int64_t r = 0; r < rows; ++r) at(leaves_ + r) = tokens;
    for (std::int64_t n = leaves_ - 1; n >= 1; --n) at(n) = std::max(at(2 * n), at(2 * n + 1));
  }
  // -1: none.
  std::int64_t first(std::int64_t tokens) const {
    if (most_[1] < tokens) return -1;
    std::int64_t n = 1;
    while (n < leaves_) {
      n *= 2;
      if (most_[static_cast<std::size_t>(n)] < tokens) ++n;
    }
    return n - leaves_;
  }
  void take(std::int64_t row, std::int64_t tokens) {
    std::int64_t n = leaves_ + row;
    at(n) -= tokens;
    for (n /= 2; n >= 1; n /= 2) at(n) = std::max(at(2 * n), at(2 * n + 1));
  }

 private:
  std::int64_t& at(std::int64_t n) { return most_[static_cast<std::size_t>(n)]; }
  std::int64_t leaves_ = 1;
  std::vector<std::int64_t> most_;
};

Packed first_fit(const std::vector<std::int64_t>& documents, std::int64_t row_tokens,
                 std::int64_t rows) {
  Packed out;
  out.rows.resize(static_cast<std::size_t>(rows));
  FreeTree free(rows, row_tokens);
  for (std::size_t d = 0; d < documents.size(); ++d) {
    const Piece piece{static_cast<std::int32_t>(d), 0, documents[d]};
    const std::int64_t row = free.first(piece.tokens);
    if (row < 0) {
      out.left_over.push_back(piece);
      continue;
    }
    free.take(row, piece.tokens);
    out.rows[static_cast<std::size_t>(row)].push_back(piece);
  }
  return out;
}

Packed cut_in_order(const std::vector<std::int64_t>& documents, std::int64_t row_tokens,
                    std::int64_t rows) {
  Packed out;
  out.rows.resize(static_cast<std::size_t>(rows));
  std::int64_t row = 0, room = row_tokens;
  for (std::size_t d = 0; d < documents.size(); ++d) {
    for (std::int64_t at = 0; at < documents[d];) {
      Piece piece{static_cast<std::int32_t>(d), at, documents[d] - at};
      if (row == rows) {
        out.left_over.push_back(piece);
        break;
      }
      piece.tokens = std::min(piece.tokens, room);
      out.rows[static_cast<std::size_t>(row)].push_back(piece);
      at += piece.tokens;
      room -= piece.tokens;
      if (room > 0) continue;
      ++row;
      room = row_tokens;
    }
  }
  return out;
}

Packed place(const std::vector<std::int64_t>& documents, std::int64_t row_tokens, std::int64_t rows,
             Packing mode) {
  CHECK(mode != Packing::kNone, "nothing to pack");
  for (const std::int64_t length : documents) CHECK(length >= 1, "an empty document");
  return mode == Packing::kSoft ? first_fit(documents, row_tokens, rows)
                                : cut_in_order(documents, row_tokens, rows);
}

void pad(PackedRow& row, std::int64_t row_tokens) {
  std::int64_t room = row_tokens;
  for (const Piece& piece : row) room -= piece.tokens;
  CHECK(room >= 0, "a row holds more than its tokens");
  for (; room > 0; room -= row.back().tokens) {
    row.push_back({-1, 0, std::min(room, kPaddingTokens)});
  }
}

}  // namespace

Packed pack(const std::vector<std::int64_t>& documents, std::int64_t row_tokens, const Deal& deal,
            Packing mode, Balance balance) {
  CHECK(row_tokens >= 1 && deal.rows() >= 1, "no rows to pack into");
  Packed packed = place(documents, row_tokens, deal.rows(), mode);
  if (balance == Balance::kLevels) balance_rows(packed.rows, documents, row_tokens, deal, mode);
  for (PackedRow& row : packed.rows) pad(row, row_tokens);
  return packed;
}

std::vector<PackedRow> pack_stream(const std::vector<std::int64_t>& documents,
                                   std::int64_t row_tokens, Packing mode) {
  std::int64_t tokens = 0, count = 0;
  for (const std::int64_t length : documents) {
    tokens += length;
    count += length <= row_tokens ? 1 : 0;
  }
  const std::int64_t rows = mode == Packing::kSoft ? count : (tokens + row_tokens - 1) / row_tokens;
  std::vector<PackedRow> packed = place(documents, row_tokens, rows, mode).rows;
  while (!packed.empty() && packed.back().empty()) packed.pop_back();
  for (PackedRow& row : packed) pad(row, row_tokens);
  return packed;
}

std::int64_t row_pairs(const PackedRow& row) {
  std::int64_t pairs = 0;
  for (const Piece& piece : row) pairs += document_pairs(piece.tokens);
  return pairs;
}

PackedWork packed_work(const std::vector<PackedRow>& rows, const Deal& deal) {
  CHECK(static_cast<std::int64_t>(rows.size()) == deal.rows(), "rows that are not dealt");
  PackedWork work;
  work.rank_pairs.assign(static_cast<std::size_t>(deal.ranks), 0);
  auto row = rows.begin();
  for (std::int64_t m = 0; m < deal.micro_batches; ++m) {
    std::int64_t most = 0;
    for (std::int64_t& rank : work.rank_pairs) {
      std::int64_t pairs = 0;
      for (std::int64_t j = 0; j < deal.micro_batch; ++j) pairs += row_pairs(*row++);
      rank += pairs;
      most = std::max(most, pairs);
    }
    work.lockstep_pairs += most;
  }
  return work;
}

}  // namespace orrery
