// A document in a pack is trained on as if it were alone: the same logits, the same loss, in fp64,
// from the file through packing and masks to the engine's loss.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "core/program/lower.h"
#include "engine/documents.h"
#include "tests/engine/launch.h"
#include "tests/parity/cases.h"
#include "tests/parity/harness.h"

namespace orrery::engine {
namespace {

constexpr std::int64_t kRow = 24;

// Bytes below the vocabulary of the small models, no line end among them.
std::string document(std::size_t number, std::int64_t tokens) {
  std::string text;
  for (std::int64_t t = 0; t < tokens; ++t) {
    text += static_cast<char>(1 + (7 * number + static_cast<std::size_t>(t * t + t)) % 9);
  }
  return text;
}

reference::Batch batch_of(const std::string& path, const Deal& deal, Packing packing) {
  DocumentSource::Options options;
  options.row_tokens = kRow;
  options.packing = packing;
  options.deal = deal;
  const auto source = DocumentSource::open(path, options);
  CHECK(source.ok(), source.error().text());
  reference::Batch batch;
  batch.sequences = deal.rows();
  batch.tokens = kRow;
  for (std::int64_t row = 0; row < deal.rows(); ++row) {
    source.value().append_row(0, row, batch.ids, batch.labels, batch.documents.emplace_back());
  }
  return batch;
}

struct Trained {
  double loss = 0;
  std::int64_t labels = 0;
  std::map<std::vector<std::int64_t>, std::vector<double>> logits;  // by the document's tokens
};

Trained train(const Model& model, const reference::Batch& batch, const Deal& deal) {
  const Plan plan = parity::make_plan(model, parity::layout_of(1, deal.ranks, 1, deal.ranks), {},
                                      {}, DType::kFloat64, kRow, deal.rows());
  const auto run = parity::run_in_process(plan, lower(plan), batch, {});
  CHECK(run.ok(), run.error().text());
  Trained out;
  out.loss = run.value().steps[0].loss;
  out.labels = run.value().steps[0].tokens;
  auto at = batch.ids.begin();
  auto logit = run.value().logits.begin();
  for (const auto& documents : batch.documents) {
    for (const std::int64_t tokens : documents) {
      out.logits[{at, at + tokens}] = {logit, logit + tokens * model.vocab};
      at += tokens;
      logit += tokens * model.vocab;
    }
  }
  return out;
}

TEST(PackedLoss, ADocumentInAPackIsAsIfAlone) {
  const Folder folder;
  const std::vector<std::int64_t> lengths = {13, 11, 9, 8, 6, 17, 5, 2, 3};
  std::string all;
  for (std::size_t d = 0; d < lengths.size(); ++d) all += document(d, lengths[d]) + "\n";
  const std::string path = folder.write("all", all);
  const Deal deal{2, 2, 1};
  for (const Model& model : {reference::tiny_dense(), reference::tiny_moe()}) {
    ASSERT_GT(model.vocab, 9);
    const Trained packed = train(model, batch_of(path, deal, Packing::kSoft), deal);
    double sum = 0;
    std::int64_t labels = 0;
    for (std::size_t d = 0; d < lengths.size(); ++d) {
      const std::string text = document(d, lengths[d]);
      const std::string one = folder.write("one", text);
      const Deal single{1, 1, 1};
      const Trained alone = train(model, batch_of(one, single, Packing::kSoft), single);
      ASSERT_EQ(alone.labels, lengths[d] - 1);
      sum += alone.loss * static_cast<double>(alone.labels);
      labels += alone.labels;
      const std::vector<std::int64_t> ids(text.begin(), text.end());
      ASSERT_EQ(packed.logits.count(ids), 1U) << "document " << d << " is not whole in a row";
      const std::vector<double>&mine = packed.logits.at(ids), &other = alone.logits.at(ids);
      double worst = 0;
      for (std::size_t i = 0; i < mine.size(); ++i) {
        worst = std::max(worst, std::abs(mine[i] - other[i]));
      }
      EXPECT_LT(worst, 1e-11) << "document " << d;
    }
    EXPECT_EQ(packed.labels, labels);
    EXPECT_NEAR(packed.loss, sum / static_cast<double>(labels), 1e-11);
  }
}

// The loss of a step is of its documents, however they are packed and dealt.
TEST(PackedLoss, DoesNotDependOnTheDeal) {
  const Folder folder;
  std::string all;
  for (std::size_t d = 0; d < 9; ++d) all += document(d, 4 + static_cast<std::int64_t>(d)) + "\n";
  const std::string path = folder.write("all", all);
  const Model model = reference::tiny_moe();
  const Deal one{1, 4, 1}, two{2, 2, 1}, four{4, 1, 1};
  const double loss = train(model, batch_of(path, one, Packing::kSoft), one).loss;
  EXPECT_NEAR(train(model, batch_of(path, two, Packing::kSoft), two).loss, loss, 1e-11);
  EXPECT_NEAR(train(model, batch_of(path, four, Packing::kSoft), four).loss, loss, 1e-11);
}

}  // namespace
}  // namespace orrery::engine
