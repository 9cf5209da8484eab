// Outlines: their FLOPs are those that papers count, ranks of an axis share them, collectives carry
// what theory says, and what is run again is what forward did.
#include <gtest/gtest.h>

#include <algorithm>
#include <string_view>

#include "core/outline/task.h"
#include "tests/outline/jobs.h"

namespace orrery::outline {
namespace {

double flops_of(const std::vector<Task>& tasks) {
  double sum = 0;
  for (const Task& t : tasks) sum += t.flops;
  return sum;
}

// Forward and backward of the whole model for one micro-batch, on one rank.
double training_flops(const Job& job) {
  double sum = 0;
  const auto add = [&](const Piece& p) {
    sum += flops_of(p.outline.forward) + flops_of(p.outline.backward);
  };
  for (std::int64_t i = 0; i < job.model.layers; ++i) add(layer(job, i, false));
  add(embedding(job));
  add(head(job));
  return sum;
}

// What the attention kernel computes a second time in backward: half of its forward.
double attention_again(const Job& job) {
  double sum = 0;
  for (std::int64_t i = 0; i < job.model.layers; ++i) {
    for (const Task& t : layer(job, i, false).outline.forward) {
      if (t.kind == TaskKind::kAttention) sum += t.flops / 2;
    }
  }
  return sum;
}

double router_flops(const Job& job) {
  double sum = 0;
  for (std::int64_t i = 0; i < job.model.layers; ++i) {
    for (const Task& t : layer(job, i, false).outline.forward) {
      if (std::string_view(t.name) == "router") sum += 3 * t.flops;
    }
  }
  return sum;
}

TEST(Outline, CountsTheFlopsThatPapersDo) {
  for (const Job& job : {dense_job(), moe_job()}) {
    const double tokens = rows_of(job);
    const double counted =
        training_flops_per_token(job.model, (static_cast<double>(job.sequence_tokens) + 1) / 2);
    EXPECT_NEAR(training_flops(job) - attention_again(job) - router_flops(job), counted * tokens,
                1e-9 * counted * tokens)
        << job.model.name;
  }
}

TEST(Outline, TensorRanksShareProducts) {
  Job whole = dense_job(), split = dense_job();
  split.layout.tp = 4;
  split.layout.dp = split.layout.fsdp_d = 2;
  for (const bool parallel : {false, true}) {
    split.sequence_parallel = parallel;
    EXPECT_NEAR(4 * training_flops(split), training_flops(whole), 1e-9 * training_flops(whole));
  }
  const Parameters one = layer(whole, 0, false).parameters,
                   part = layer(split, 0, false).parameters;
  EXPECT_DOUBLE_EQ(4 * (part.dense - part.replicated) + part.replicated, one.dense);
}

TEST(Outline, ContextRanksShareEverything) {
  Job whole = dense_job(), split = dense_job();
  split.layout.cp = 4;
  split.layout.dp = 2;
  EXPECT_NEAR(4 * training_flops(split), training_flops(whole), 1e-9 * training_flops(whole));
  EXPECT_DOUBLE_EQ(layer(split, 0, false).parameters.dense,
                   layer(whole, 0, false).parameters.dense);
}

double moved(const std::vector<Task>& tasks, Axis axis, CollectiveKind kind) {
  double bytes = 0;
  for (const Task& t : tasks) {
    if (t.kind == TaskKind::kCollective && t.axis == axis && t.collective == kind) bytes += t.bytes;
  }
  return bytes;
}

TEST(Outline, TensorCollectivesCarryWhatTheoryCounts) {
  // Shoeybi 2019: two all-reduces of the rows a layer, forward and backward. Korthikanti 2022: the
  // same bytes as gathers and scatters, and one more gather of each product's input in backward.
  Job job = dense_job();
  job.layout.tp = 8;
  job.layout.dp = job.layout.fsdp_d = 1;
  const double rows = rows_of(job) * static_cast<double>(job.model.hidden) * 2;
  const Outline reduced = layer(job, 0, false).outline;
  EXPECT_DOUBLE_EQ(moved(reduced.forward, Axis::kTensor, CollectiveKind::kAllReduce), 2 * rows);
  EXPECT_DOUBLE_EQ(moved(reduced.backward, Axis::kTensor, CollectiveKind::kAllReduce), 2 * rows);
  job.sequence_parallel = true;
  const Outline split = layer(job, 0, false).outline;
  EXPECT_DOUBLE_EQ(moved(split.forward, Axis::kTensor, CollectiveKind::kAllGather), 2 * rows);
  EXPECT_DOUBLE_EQ(moved(split.forward, Axis::kTensor, CollectiveKind::kReduceScatter), 2 * rows);
  EXPECT_DOUBLE_EQ(moved(split.backward, Axis::kTensor, CollectiveKind::kAllGather), 4 * rows);
  EXPECT_DOUBLE_EQ(moved(split.backward, Axis::kTensor, CollectiveKind::kReduceScatter), 2 * rows);
}

TEST(Outline, ExpertsExchangeChosenRows) {
  Job job = moe_job();
  job.layout.ep = 8;
  const double rows = rows_of(job) * static_cast<double>(job.model.hidden * job.model.top_k) * 2;
  const Outline o = layer(job, 0, false).outline;
  EXPECT_DOUBLE_EQ(moved(o.forward, Axis::kExpert, CollectiveKind::kAllToAll), 2 * rows);
  EXPECT_DOUBLE_EQ(moved(o.backward, Axis::kExpert, CollectiveKind::kAllToAll), 2 * rows);
  const double balanced = flops_of(o.forward);
  job.expert_load_cv = 0.5;
  EXPECT_GT(flops_of(layer(job, 0, false).outline.forward), balanced)
      << "the fullest is waited for";
}

double core_flops(const Job& job) {
  double sum = 0;
  for (const Task& t : layer(job, 0, false).outline.forward) {
    if (t.kind == TaskKind::kAttention) sum += t.flops;
  }
  return sum;
}

TEST(Outline, AttentionStaysInsideDocuments) {
  Job job = dense_job();
  const auto columns = static_cast<double>(2 * job.model.heads * job.model.head_dim);
  // Every pair counted: of query q of a document with keys 0..q, the last `window` of them.
  const auto counted = [&](std::int64_t from, std::int64_t to, std::int64_t window) {
    double pairs = 0;
    std::int64_t begin = 0;
    for (const std::int64_t tokens : job.documents) {
      for (std::int64_t q = 0; q < tokens; ++q) {
        if (begin + q >= from && begin + q < to) {
          pairs += static_cast<double>(std::min(q + 1, window));
        }
      }
      begin += tokens;
    }
    return pairs * 2 * columns;
  };
  for (const std::int64_t window : {2048, 100}) {
    job.model.window =
        window == 2048 ? std::vector<std::int64_t>{} : std::vector<std::int64_t>(4, window);
    for (const auto& documents : std::vector<std::vector<std::int64_t>>{
             {2048}, {1024, 1024}, {7, 1500, 41, 500}, equal_documents(2048, 300)}) {
      job.documents = documents;
      job.layout.cp = 1;
      EXPECT_DOUBLE_EQ(core_flops(job), counted(0, 2048, window));
      // Four ranks: parts r and 7 - r of eight, by the sequence or (in a ring) by the document.
      job.layout.cp = 4;
      double fullest = 0;
      for (std::int64_t r = 0; r < 4; ++r) {
        const std::int64_t head = 256 * r, tail = 256 * (7 - r);
        fullest = std::max(fullest,
                           counted(head, head + 256, window) + counted(tail, tail + 256, window));
      }
      job.context = ContextExchange::kRing;
      EXPECT_DOUBLE_EQ(4 * core_flops(job), counted(0, 2048, window));
      job.context = ContextExchange::kAllGather;
      EXPECT_DOUBLE_EQ(core_flops(job), fullest);
    }
  }
}

TEST(Outline, DocumentsFillTheSequence) {
  EXPECT_EQ(equal_documents(10, 3), (std::vector<std::int64_t>{4, 3, 3}));
  EXPECT_EQ(equal_documents(10, 100), (std::vector<std::int64_t>{10}));
  EXPECT_EQ(equal_documents(3, 0.1).size(), 3U);
  Job job = dense_job();
  EXPECT_TRUE(violations(job).empty());
  for (const std::vector<std::int64_t>& wrong :
       std::vector<std::vector<std::int64_t>>{{2047}, {2048, 0}, {2049, -1}}) {
    job.documents = wrong;
    ASSERT_FALSE(violations(job).empty());
    EXPECT_EQ(violations(job)[0].rule, "documents");
  }
}

TEST(Outline, RecomputeTradesMemoryForForward) {
  Job job = dense_job();
  const Outline kept = layer(job, 0, false).outline;
  const Outline again = layer(job, 0, true).outline;
  EXPECT_DOUBLE_EQ(flops_of(again.again), flops_of(kept.forward));
  EXPECT_EQ(flops_of(kept.again), 0);
  EXPECT_LT(again.saves, kept.saves / 5);
  EXPECT_DOUBLE_EQ(again.worst, kept.saves);
  job.recompute.modules[static_cast<std::size_t>(Module::kMlp)] = true;
  const Outline mlp = layer(job, 0, false).outline;
  EXPECT_GT(flops_of(mlp.again), 0);
  EXPECT_LT(mlp.saves, kept.saves);
  EXPECT_GT(mlp.saves, again.saves);
}

TEST(Outline, SelectiveByOpsLiesBetweenNoneAndFull) {
  Job job = dense_job();
  const Outline none = layer(job, 0, false).outline, full = layer(job, 0, true).outline;
  job.recompute.ops = true;
  const Outline ops = layer(job, 0, false).outline;
  EXPECT_LT(ops.saves, none.saves);
  EXPECT_GT(ops.saves, full.saves);
  double products = 0;
  for (const Task& t : none.forward) products += t.kind == TaskKind::kAttention ? 0 : t.flops;
  EXPECT_DOUBLE_EQ(flops_of(ops.again), products / 2) << "attention is kept";
  EXPECT_DOUBLE_EQ(ops.worst, none.saves) << "all is there again while the layer goes backward";
  EXPECT_EQ(flops_of(head(job).outline.again), 0) << "ends are not run again";
  // Of a row: the input, attention's output, and half of what the four products make.
  const Model& m = job.model;
  const double kv = 8 * 64, hidden = static_cast<double>(m.hidden), q = 32 * 64;
  const double elements = hidden + q + (q + 2 * kv + hidden + 2 * 3072 + hidden) / 2;
  EXPECT_DOUBLE_EQ(ops.saves, rows_of(job) * elements * 2);
}

TEST(Outline, ActivationsAreThoseOfTheClosedForm) {
  // Korthikanti 2022, with flash attention, no dropout, a GELU MLP of 4 h: of s b h bytes 4 norms'
  // inputs (two of 2), 2 of qkv's input, 6 q, k, v, 2 of attention's output, 2 of the MLP's input,
  // 8 of its activation's input, 8 of its output: 32; and 4 bytes a row and head of flash.
  Job job = dense_job();
  Model& m = job.model;
  m.gated = false;
  m.kv_heads = m.heads;
  m.head_dim = m.hidden / m.heads;
  m.ffn = 4 * m.hidden;
  const double rows = rows_of(job);
  EXPECT_DOUBLE_EQ(layer(job, 0, false).outline.saves, 32 * rows * static_cast<double>(m.hidden) +
                                                           4 * rows * static_cast<double>(m.heads));
}

}  // namespace
}  // namespace orrery::outline
