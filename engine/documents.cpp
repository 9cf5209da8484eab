// Documents of files or lines, and a step's rows of them.
#include "engine/documents.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/check.h"
#include "core/hash.h"

namespace orrery::engine {
namespace {

constexpr std::int64_t kNoLabel = -100;

}  // namespace

Result<DocumentSource> DocumentSource::open(const std::string& path, const Options& options) {
  CHECK(options.packing != Packing::kNone, "documents that are not packed");
  TRY(const std::vector<std::string> files, files_of(path));
  DocumentSource source;
  source.options_ = options;
  const bool lines = files.size() == 1 && files[0] == path;
  for (const std::string& file : files) {
    const std::size_t begin = source.text_.size();
    TRY_OK(append_file(file, source.text_));
    if (!lines) source.add(begin, source.text_.size());
  }
  if (lines) source.add_lines();
  if (source.spans_.empty()) {
    return Error::of(ErrorCode::kInvalid, path,
                     "no document of 2 to " + std::to_string(options.row_tokens) + " bytes there" +
                         (source.left_out_ > 0
                              ? ", and " + std::to_string(source.left_out_) + " of other lengths"
                              : ""),
                     "give a folder of files, or a file with a document a line; packing \"hard\" "
                     "cuts long ones");
  }
  source.shuffle_and_pack();
  return source;
}

void DocumentSource::add(std::size_t begin, std::size_t end) {
  const auto tokens = static_cast<std::int64_t>(end - begin);
  if (tokens == 0) return;
  const bool too_long = options_.packing == Packing::kSoft && tokens > options_.row_tokens;
  if (tokens < 2 || too_long) {
    ++left_out_;
  } else {
    spans_.push_back({begin, tokens});
  }
}

void DocumentSource::add_lines() {
  for (std::size_t begin = 0; begin < text_.size();) {
    const std::size_t end = std::min(text_.find('\n', begin), text_.size());
    const bool carriage = end > begin && text_[end - 1] == '\r';
    add(begin, carriage ? end - 1 : end);
    begin = end + 1;
  }
}

void DocumentSource::shuffle_and_pack() {
  std::vector<std::pair<std::uint64_t, Span>> order;
  for (std::size_t d = 0; d < spans_.size(); ++d) order.emplace_back(mix64(d), spans_[d]);
  std::sort(order.begin(), order.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::int64_t> lengths;
  for (std::size_t d = 0; d < order.size(); ++d) {
    spans_[d] = order[d].second;
    lengths.push_back(order[d].second.tokens);
  }
  stream_ = pack_stream(lengths, options_.row_tokens, options_.packing);
}

// The documents of the step's rows. Stretches of one document that follow each other, in one row or
// over the end of one, are one again.
void DocumentSource::pool(std::int64_t step) const {
  pooled_.clear();
  const std::int64_t round = rows(), step_rows = options_.deal.rows();
  const std::int64_t first = step % round * (step_rows % round) % round;
  for (std::int64_t i = 0; i < step_rows; ++i) {
    for (const Piece& piece : stream_[static_cast<std::size_t>((first + i) % round)]) {
      if (piece.document < 0) continue;
      if (!pooled_.empty() && pooled_.back().document == piece.document &&
          pooled_.back().begin + pooled_.back().tokens == piece.begin) {
        pooled_.back().tokens += piece.tokens;
      } else {
        pooled_.push_back({piece.document, piece.begin, piece.tokens});
      }
    }
  }
}

const std::vector<PackedRow>& DocumentSource::packed(std::int64_t step) const {
  if (step == step_) return rows_;
  pool(step);
  std::vector<std::int64_t> lengths;
  for (const Pooled& pooled : pooled_) lengths.push_back(pooled.tokens);
  Packed packed =
      pack(lengths, options_.row_tokens, options_.deal, options_.packing, options_.balance);
  CHECK(packed.left_over.empty(), "documents that fitted the rows before");
  rows_ = std::move(packed.rows);
  step_ = step;
  return rows_;
}

void DocumentSource::append_row(std::int64_t step, std::int64_t row, std::vector<std::int64_t>& ids,
                                std::vector<std::int64_t>& labels,
                                std::vector<std::int64_t>& documents) const {
  for (const Piece& piece : packed(step).at(static_cast<std::size_t>(row))) {
    documents.push_back(piece.tokens);
    if (piece.document < 0) {
      ids.insert(ids.end(), static_cast<std::size_t>(piece.tokens), 0);
      labels.insert(labels.end(), static_cast<std::size_t>(piece.tokens), kNoLabel);
      continue;
    }
    const Pooled& pooled = pooled_[static_cast<std::size_t>(piece.document)];
    const Span& span = spans_[static_cast<std::size_t>(pooled.document)];
    const std::int64_t begin = pooled.begin + piece.begin;
    const auto* text = reinterpret_cast<const unsigned char*>(text_.data()) + span.begin;
    for (std::int64_t t = begin; t < begin + piece.tokens; ++t) {
      ids.push_back(text[t]);
      labels.push_back(t + 1 < span.tokens ? text[t + 1] : kNoLabel);
    }
  }
}

}  // namespace orrery::engine
