// Attention of sequences over several ranks: the blocks qkv, core and out, with the exchanges
// between them done by hand, are the whole attention block, forward and backward; documents stay
// apart across the split; what the moving primitives do together is a plain transpose.
#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "engine/torch/compat.h"
#include "tests/engine/ranks_harness.h"

namespace orrery::engine {
namespace {

constexpr std::int64_t kSequences = 2, kTokens = 24, kHidden = 10;

Model model_of(std::int64_t kv_heads) {
  Model m;
  m.name = "test";
  m.model_type = "qwen3";
  m.vocab = 16;
  m.hidden = kHidden;
  m.layers = 1;
  m.heads = 4;
  m.kv_heads = kv_heads;
  m.head_dim = 4;
  m.ffn = 8;
  m.moe_layer = {false};
  return m;
}

BlockShape shape_of(std::int64_t sp) {
  BlockShape s;
  s.sequences = s.global_sequences = kSequences;
  s.sequence_tokens = s.valid_tokens = kTokens;
  s.sp = sp;
  s.attention_query = 5;
  s.compute = s.master = DType::kFloat64;
  return s;
}

// Documents that begin and end inside of, at and across the borders of 2 and 4 ranks.
BlockContext context_of(std::int64_t first_position = 0) {
  BlockContext context;
  context.documents = {{3, 10, 1, 10}, {6, 12, 6}};
  context.first_position = first_position;
  return context;
}

// The rows of whole sequences that rank `rank` of `sp` holds.
at::Tensor local_rows(const at::Tensor& x, std::int64_t sp, std::int64_t rank) {
  const std::int64_t cols = x.size(1), rows = kTokens / sp;
  return x.view({kSequences, kTokens, cols})
      .narrow(1, rank * rows, rows)
      .contiguous()
      .view({-1, cols});
}

// The whole sequences of what the ranks hold.
at::Tensor whole_rows(const Tensors& of_ranks) {
  Tensors parts;
  const std::int64_t cols = of_ranks[0].size(1);
  for (const at::Tensor& t : of_ranks) parts.push_back(t.view({kSequences, -1, cols}));
  return at::cat(parts, 1).view({-1, cols});
}

struct Outcome {
  at::Tensor x1, dx;
};

Outcome run_whole(const ModelBlocks& blocks, SharedParams& params, const at::Tensor& x,
                  const at::Tensor& dy) {
  Call attention(blocks.attention, params, context_of());
  const at::Tensor x1 = attention.forward({x})[0];
  return {x1, attention.backward({dy})[0]};
}

// The same over `sp` ranks.
class SplitAttention {
 public:
  SplitAttention(const ModelBlocks& blocks, SharedParams& params, std::int64_t sp) : sp_(sp) {
    for (std::int64_t r = 0; r < sp; ++r) {
      const BlockContext context = context_of(r * (kTokens / sp));
      qkv_.emplace_back(blocks.qkv, params, context);
      core_.emplace_back(blocks.core, params, context);
      out_.emplace_back(blocks.out, params, context);
    }
  }

  at::Tensor forward(const at::Tensor& x) {
    Tensors packed, attended, x1;
    for (std::int64_t r = 0; r < sp_; ++r) {
      packed.push_back(at(qkv_, r).forward({local_rows(x, sp_, r)})[0]);
    }
    packed = all_to_all(packed);
    for (std::int64_t r = 0; r < sp_; ++r) {
      attended.push_back(at(core_, r).forward({packed[static_cast<std::size_t>(r)]})[0]);
    }
    attended = all_to_all(attended);
    for (std::int64_t r = 0; r < sp_; ++r) {
      x1.push_back(
          at(out_, r).forward({local_rows(x, sp_, r), attended[static_cast<std::size_t>(r)]})[0]);
    }
    return whole_rows(x1);
  }

  at::Tensor backward(const at::Tensor& dy) {
    Tensors dx, attended, packed, out;
    for (std::int64_t r = 0; r < sp_; ++r) {
      Tensors grads = at(out_, r).backward({local_rows(dy, sp_, r)});
      dx.push_back(grads[0]);
      attended.push_back(grads[1]);
    }
    attended = all_to_all(attended);
    for (std::int64_t r = 0; r < sp_; ++r) {
      packed.push_back(at(core_, r).backward({attended[static_cast<std::size_t>(r)]})[0]);
    }
    packed = all_to_all(packed);
    for (std::int64_t r = 0; r < sp_; ++r) {
      const auto i = static_cast<std::size_t>(r);
      out.push_back(at(qkv_, r).backward({packed[i]}, {dx[i]})[0]);
    }
    return whole_rows(out);
  }

 private:
  static Call& at(std::vector<Call>& calls, std::int64_t r) {
    return calls[static_cast<std::size_t>(r)];
  }

  std::int64_t sp_;
  std::vector<Call> qkv_, core_, out_;
};

class SequenceParallel : public testing::TestWithParam<std::tuple<std::int64_t, std::int64_t>> {
 protected:
  void SetUp() override { at::set_num_threads(1); }
  std::int64_t sp() const { return std::get<0>(GetParam()); }
  Model model_ = model_of(std::get<1>(GetParam()));
  ModelBlocks whole_ = family_of(model_).blocks(model_, shape_of(1));
  ModelBlocks split_ = family_of(model_).blocks(model_, shape_of(sp()));
};

TEST_P(SequenceParallel, IsTheWholeAttention) {
  const at::Tensor x = random_tensor(kSequences * kTokens, kHidden, 1);
  const at::Tensor dy = random_tensor(kSequences * kTokens, kHidden, 2);
  SharedParams one(model_), many(model_);
  const Outcome want = run_whole(whole_, one, x, dy);
  SplitAttention split(split_, many, sp());
  EXPECT_LT(largest_difference(split.forward(x), want.x1), 1e-12);
  EXPECT_LT(largest_difference(split.backward(dy), want.dx), 1e-12);
  EXPECT_EQ(one.all_grads().size(), 7u);
  for (const auto& [name, grad] : one.all_grads()) {
    EXPECT_LT(largest_difference(many.all_grads().at(name), grad), 1e-11) << name;
  }
}

// What a document is, no other row sees: not across the ranks, not in another sequence.
TEST_P(SequenceParallel, DocumentsStayApart) {
  SharedParams params(model_);
  const at::Tensor x = random_tensor(kSequences * kTokens, kHidden, 1);
  const at::Tensor before = SplitAttention(split_, params, sp()).forward(x);
  // Document 1 of sequence 0 has rows 3..12; row 5 changes.
  const at::Tensor changed = x.clone();
  changed.narrow(0, 5, 1).add_(1);
  const at::Tensor after = SplitAttention(split_, params, sp()).forward(changed);
  for (std::int64_t row = 0; row < x.size(0); ++row) {
    const bool sees = row >= 5 && row < 13;
    EXPECT_EQ(at::equal(before.narrow(0, row, 1), after.narrow(0, row, 1)), !sees) << row;
  }
}

INSTANTIATE_TEST_SUITE_P(RanksAndKvHeads, SequenceParallel,
                         testing::Combine(testing::Values(2, 4), testing::Values(1, 2, 4)));

// A block of one primitive between inputs and outputs of the given columns.
Block one_prim(Prim prim, std::int64_t rows, std::vector<std::int64_t> in, std::int64_t out_rows,
               std::vector<std::int64_t> out) {
  Block block;
  block.name = "one";
  for (const std::int64_t cols : in) {
    prim.in.push_back(block.add("in", SizeExpr::constant(rows), cols, DType::kFloat64));
  }
  block.inputs = prim.in;
  for (const std::int64_t cols : out) {
    prim.out.push_back(block.add("out", SizeExpr::constant(out_rows), cols, DType::kFloat64));
  }
  block.outputs = prim.out;
  block.prims = {prim};
  block.finish();
  return block;
}

// Heads in, through all ranks to whole sequences of some heads, and back: each rank then has every
// head of its rows as they were; between, rank r has the whole sequence's heads of block r.
TEST(SequenceMoves, AreATransposeAndItsInverse) {
  constexpr std::int64_t kRanks = 4, kHeads = 8, kKv = 2, kDim = 3;
  const std::int64_t local = kSequences * kTokens / kRanks, all = kSequences * kTokens;
  const Prim prim{.kind = PrimKind::kPackHeads,
                  .heads = kHeads,
                  .kv_heads = kKv,
                  .head_dim = kDim,
                  .sequences = kSequences,
                  .parts = kRanks};
  const auto as = [&](PrimKind kind) {
    Prim p = prim;
    p.kind = kind;
    return p;
  };
  const std::int64_t q = kHeads / kRanks * kDim, packed = q + 2 * kDim;
  const Block pack = one_prim(prim, local, {kHeads * kDim, kKv * kDim, kKv * kDim}, all, {packed});
  const Block unpack = one_prim(as(PrimKind::kUnpackSequence), all, {packed}, all, {q, kDim, kDim});
  const Block back = one_prim(as(PrimKind::kPackSequence), all, {q}, all, {q});
  const Block heads = one_prim(as(PrimKind::kUnpackHeads), all, {q}, local, {kHeads * kDim});
  const at::Tensor wq = random_tensor(all, kHeads * kDim, 1),
                   wk = random_tensor(all, kKv * kDim, 2), wv = random_tensor(all, kKv * kDim, 3);
  const Model model;
  SharedParams none(model);
  Tensors sent, returned;
  for (std::int64_t r = 0; r < kRanks; ++r) {
    sent.push_back(Call(pack, none, {})
                       .forward({local_rows(wq, kRanks, r), local_rows(wk, kRanks, r),
                                 local_rows(wv, kRanks, r)})[0]);
  }
  sent = all_to_all(sent);
  for (std::int64_t r = 0; r < kRanks; ++r) {
    const Tensors qkv = Call(unpack, none, {}).forward({sent[static_cast<std::size_t>(r)]});
    EXPECT_TRUE(at::equal(qkv[0], wq.narrow(1, r * q, q)));
    const std::int64_t head = r * kKv / kRanks;
    EXPECT_TRUE(at::equal(qkv[1], wk.narrow(1, head * kDim, kDim)));
    EXPECT_TRUE(at::equal(qkv[2], wv.narrow(1, head * kDim, kDim)));
    returned.push_back(Call(back, none, {}).forward({qkv[0]})[0]);
  }
  returned = all_to_all(returned);
  for (std::int64_t r = 0; r < kRanks; ++r) {
    const at::Tensor got =
        Call(heads, none, {}).forward({returned[static_cast<std::size_t>(r)]})[0];
    EXPECT_TRUE(at::equal(got, local_rows(wq, kRanks, r)));
  }
}

}  // namespace
}  // namespace orrery::engine
