// Documents as training data: tokenised by bytes, packed into the rows of a step, attended to
// apart.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/packing.h"
#include "core/plan.h"
#include "core/result.h"
#include "engine/data.h"

namespace orrery::engine {

// Files of a folder, each a document; or one file, each line a document (without its line end).
// They are shuffled once, packed in that order into rows, and every step takes the next rows; after
// the last one the first follow. What stands in a step's rows is then packed again and dealt with
// its ranks in balance (core/packing.h): which documents a step has does not depend on the ranks.
class DocumentSource {
 public:
  struct Options {
    std::int64_t row_tokens = 0;
    Packing packing = Packing::kSoft;
    Balance balance = Balance::kLevels;
    Deal deal;  // of a step's rows
  };
  // kIo when it cannot be read; kInvalid when no document of at least two bytes is there, or none
  // that fits a row (kSoft).
  static Result<DocumentSource> open(const std::string& path, const Options& options);

  // Appends row `row` (below deal.rows(), in its order) of `step`: ids, labels (-100 at
  // a document's last token and on padding; the token behind the cut where one is cut) and the
  // lengths of its documents. One thread at a time: the last step's packing is kept.
  // The last row of a round may be padded.
  void append_row(std::int64_t step, std::int64_t row, std::vector<std::int64_t>& ids,
                  std::vector<std::int64_t>& labels, std::vector<std::int64_t>& documents) const;

  std::int64_t documents() const { return std::ssize(spans_); }
  std::int64_t rows() const { return std::ssize(stream_); }  // of a round
  // Documents of one byte, which teach nothing, and those longer than a row (kSoft).
  std::int64_t left_out() const { return left_out_; }
  // The step's rows with pieces of the documents of its pool, as dealt.
  const std::vector<PackedRow>& packed(std::int64_t step) const;

 private:
  struct Span {
    std::size_t begin = 0;
    std::int64_t tokens = 0;
  };
  // A stretch of a document in the pool of a step.
  struct Pooled {
    std::int32_t document = 0;
    std::int64_t begin = 0, tokens = 0;
  };
  void pool(std::int64_t step) const;
  void add(std::size_t begin, std::size_t end);
  void add_lines();
  void shuffle_and_pack();

  Options options_;
  std::string text_;
  std::vector<Span> spans_;        // documents, shuffled
  std::vector<PackedRow> stream_;  // a round's rows
  std::int64_t left_out_ = 0;
  mutable std::int64_t step_ = -1;  // whose packing is kept, and the two below
  mutable std::vector<Pooled> pooled_;
  mutable std::vector<PackedRow> rows_;
};

}  // namespace orrery::engine
