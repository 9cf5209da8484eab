// The MoE of two ranks over the blocks of a family, with the exchanges done by hand: tokens that
// every rank gathers give what rows sent to their experts give, forward and backward, and so do
// exchanges in parts.
#include <ATen/Parallel.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <numeric>

#include "engine/torch/compat.h"
#include "tests/engine/ranks_harness.h"

namespace orrery::engine {
namespace {

constexpr std::int64_t kRanks = 2, kTokens = 9, kHidden = 6, kExperts = 8, kTopK = 3;
constexpr std::int64_t kLocal = kExperts / kRanks;

Model model_of(bool sigmoid) {
  Model m;
  m.name = "test";
  m.model_type = "qwen3_moe";
  m.vocab = 16;
  m.hidden = kHidden;
  m.layers = 1;
  m.heads = m.kv_heads = 1;
  m.head_dim = 4;
  m.ffn = m.moe_ffn = 5;
  m.experts = kExperts;
  m.top_k = kTopK;
  m.norm_topk = true;
  m.balance_coefficient = 0.01;
  m.moe_layer = {true};
  if (sigmoid) {
    m.sigmoid_router = m.router_bias = true;
    m.expert_groups = 4;
    m.top_groups = 2;
    m.routed_scale = 2.5;
  }
  return m;
}

BlockShape shape_of(bool gather, std::int64_t parts) {
  BlockShape s;
  s.sequence_tokens = kTokens;
  s.valid_tokens = kTokens - 2;
  s.global_sequences = s.dp = s.ep = kRanks;
  s.exchange_parts = parts;
  s.gather_dispatch = gather;
  s.compute = s.master = DType::kFloat64;
  s.z_loss = 0.01;
  return s;
}

// What a path computes: on each rank, and the gradients of the parameters over both.
struct Outcome {
  Tensors x2, dx1;
  double z_loss = 0;
};

std::size_t at_index(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

// The layer on both ranks. A bias no rank's expert of number 5 gets past: it has no rows.
class Layer {
 public:
  Layer(const Model& model, bool gather, std::int64_t parts, SharedParams& params)
      : model_(model),
        parts_(parts),
        params_(params),
        blocks_(family_of(model).blocks(model, shape_of(gather, parts))) {
    for (std::int64_t r = 0; r < kRanks; ++r) {
      routers_.emplace_back(blocks_.router, params, BlockContext{});
      merges_.emplace_back(blocks_.merge, params, BlockContext{});
      x1_.push_back(random_tensor(kTokens, kHidden, 10 + static_cast<std::uint64_t>(r)));
      dy_.push_back(random_tensor(kTokens, kHidden, 20 + static_cast<std::uint64_t>(r)));
      dp_.push_back(random_tensor(1, kExperts, 30 + static_cast<std::uint64_t>(r)));
    }
  }

  Outcome by_exchange();
  Outcome by_gather();

 private:
  struct Part {
    std::int64_t index;
    std::vector<std::vector<std::int64_t>> sent, received;  // [from][to] rows and the transpose
    std::vector<Call> experts;
  };

  void route();
  double z_loss() const;
  Part part_of(std::int64_t index);
  // Rows of a part among the rows that a rank sends.
  at::Tensor rows_of(const Part& part, std::int64_t rank, const at::Tensor& rows) const;
  Tensors to_experts(const Part& part, const Tensors& rows) const;

  const Model& model_;
  std::int64_t parts_;
  SharedParams& params_;
  ModelBlocks blocks_;
  std::vector<Call> routers_, merges_;
  Tensors x1_, dy_, dp_;  // input, gradient of the output, gradient of the sums of probabilities
};

void Layer::route() {
  for (std::int64_t r = 0; r < kRanks; ++r) {
    Tensors in = {x1_[at_index(r)]};
    if (model_.router_bias) {
      in.push_back(random_tensor(1, kExperts, 5, 0.3));
      in.back().narrow(1, 5, 1).fill_(-4);
    }
    routers_[at_index(r)].forward(in);
  }
}

double Layer::z_loss() const {
  double sum = 0;
  for (const Call& router : routers_) sum += router.out("z_loss").item<double>();
  return sum;
}

Layer::Part Layer::part_of(std::int64_t index) {
  const std::int64_t each = kLocal / parts_;
  Part part{index, {}, {}, {}};
  part.sent.assign(kRanks, std::vector<std::int64_t>(kRanks, 0));
  part.received = part.sent;
  for (std::int64_t to = 0; to < kRanks; ++to) {
    BlockContext context;
    const std::int64_t first = to * kLocal + index * each;
    context.expert_rows.assign(at_index(each), 0);
    for (std::int64_t from = 0; from < kRanks; ++from) {
      const at::Tensor counts = routers_[at_index(from)].out("expert_counts").view(-1);
      std::vector<std::int64_t> rows;
      for (std::int64_t e = 0; e < each; ++e) {
        rows.push_back(counts.data_ptr<std::int64_t>()[first + e]);
        context.expert_rows[at_index(e)] += rows.back();
      }
      const std::int64_t all = std::accumulate(rows.begin(), rows.end(), std::int64_t{0});
      part.sent[at_index(from)][at_index(to)] = all;
      part.received[at_index(to)][at_index(from)] = all;
      context.received.push_back(rows);
    }
    part.experts.emplace_back(blocks_.experts, params_, context, first);
  }
  return part;
}

at::Tensor Layer::rows_of(const Part& part, std::int64_t rank, const at::Tensor& rows) const {
  const at::Tensor counts = routers_[at_index(rank)].out("expert_counts").view(-1);
  const std::int64_t each = kLocal / parts_;
  std::int64_t begin = 0, count = 0;
  for (std::int64_t e = 0; e < kExperts; ++e) {
    const std::int64_t of = e % kLocal / each, n = counts.data_ptr<std::int64_t>()[e];
    if (of < part.index) begin += n;
    if (of == part.index) count += n;
  }
  return rows.narrow(0, begin, count);
}

Tensors Layer::to_experts(const Part& part, const Tensors& rows) const {
  Tensors own;
  for (std::int64_t r = 0; r < kRanks; ++r) own.push_back(rows_of(part, r, rows[at_index(r)]));
  return all_to_all_v(own, part.sent);
}

Outcome Layer::by_exchange() {
  route();
  std::vector<Part> parts;
  Tensors rows, back(kRanks), drows, dback(kRanks);
  for (const Call& router : routers_) rows.push_back(router.out("rows"));
  for (std::int64_t i = 0; i < parts_; ++i) {
    parts.push_back(part_of(i));
    Tensors at_experts = to_experts(parts.back(), rows);
    for (std::size_t r = 0; r < kRanks; ++r) {
      at_experts[r] = parts.back().experts[r].forward({at_experts[r]})[0];
    }
    at_experts = all_to_all_v(at_experts, parts.back().received);
    for (std::size_t r = 0; r < kRanks; ++r) {
      back[r] = i == 0 ? at_experts[r] : at::cat({back[r], at_experts[r]}, 0);
    }
  }
  Outcome out;
  out.z_loss = z_loss();
  std::vector<Tensors> merged;
  for (std::size_t r = 0; r < kRanks; ++r) {
    const Call& router = routers_[r];
    out.x2.push_back(
        merges_[r].forward({x1_[r], back[r], router.out("weights"), router.out("order")})[0]);
    merged.push_back(merges_[r].backward({dy_[r]}));
    drows.push_back(merged.back()[1]);
  }
  for (Part& part : parts) {
    Tensors grads = to_experts(part, drows);
    for (std::size_t r = 0; r < kRanks; ++r) grads[r] = part.experts[r].backward({grads[r]})[0];
    grads = all_to_all_v(grads, part.received);
    for (std::size_t r = 0; r < kRanks; ++r) {
      dback[r] = part.index == 0 ? grads[r] : at::cat({dback[r], grads[r]}, 0);
    }
  }
  for (std::size_t r = 0; r < kRanks; ++r) {
    const Tensors grads =
        routers_[r].grads({{"rows", dback[r]}, {"weights", merged[r][2]}, {"prob_sum", dp_[r]}});
    out.dx1.push_back(routers_[r].backward(grads, {merged[r][0], {}})[0]);
  }
  return out;
}

Outcome Layer::by_gather() {
  route();
  Tensors all[3];  // normed, ids, weights of every rank
  for (const Call& router : routers_) {
    all[0].push_back(router.out("normed"));
    all[1].push_back(router.out("ids"));
    all[2].push_back(router.out("weights"));
  }
  const at::Tensor normed = all_gather(all[0]), ids = all_gather(all[1]),
                   weights = all_gather(all[2]);
  const at::Tensor counts = at::bincount(ids.view(-1), {}, kExperts);
  std::vector<Call> selects, experts, spreads;
  Tensors partial;
  for (std::int64_t r = 0; r < kRanks; ++r) {
    BlockContext context;
    context.first_expert = r * kLocal;
    const std::int64_t* rows = counts.data_ptr<std::int64_t>() + r * kLocal;
    context.expert_rows.assign(rows, rows + kLocal);
    selects.emplace_back(blocks_.select, params_, context);
    experts.emplace_back(blocks_.experts, params_, context, r * kLocal);
    spreads.emplace_back(blocks_.spread, params_, context);
    selects.back().forward({normed, ids});
    experts.back().forward({selects.back().out("rows")});
    partial.push_back(spreads.back().forward(
        {experts.back().out("down"), weights, selects.back().out("order")})[0]);
    // What is kept instead of chosen again gives the same rows.
    Call replay(blocks_.select_replay, params_, context);
    replay.forward({normed, selects.back().out("order")});
    EXPECT_TRUE(at::equal(replay.out("rows"), selects.back().out("rows")));
  }
  partial = reduce_scatter(partial);
  Outcome out;
  out.z_loss = z_loss();
  Tensors dx1, dpartial, dnormed, dweights;
  for (std::size_t r = 0; r < kRanks; ++r) {
    out.x2.push_back(merges_[r].forward({x1_[r], partial[r]})[0]);
    const Tensors grads = merges_[r].backward({dy_[r]});
    dx1.push_back(grads[0]);
    dpartial.push_back(grads[1]);
  }
  const at::Tensor gathered = all_gather(dpartial);
  for (std::size_t r = 0; r < kRanks; ++r) {
    const Tensors grads = spreads[r].backward({gathered});
    dweights.push_back(grads[1]);
    const at::Tensor drows = experts[r].backward({grads[0]})[0];
    dnormed.push_back(selects[r].backward(selects[r].grads({{"rows", drows}}))[0]);
  }
  dnormed = reduce_scatter(dnormed);
  dweights = reduce_scatter(dweights);
  for (std::size_t r = 0; r < kRanks; ++r) {
    const Tensors grads =
        routers_[r].grads({{"normed", dnormed[r]}, {"weights", dweights[r]}, {"prob_sum", dp_[r]}});
    out.dx1.push_back(routers_[r].backward(grads, {dx1[r], {}})[0]);
  }
  return out;
}

class Dispatch : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override { at::set_num_threads(1); }
  void expect_equal(const Outcome& got, const SharedParams& got_params) {
    SharedParams params(model_);
    const Outcome want = Layer(model_, false, 1, params).by_exchange();
    EXPECT_NEAR(got.z_loss, want.z_loss, 1e-13);
    EXPECT_GT(want.z_loss, 0);
    for (std::size_t r = 0; r < kRanks; ++r) {
      EXPECT_LT(largest_difference(got.x2[r], want.x2[r]), 1e-12);
      EXPECT_LT(largest_difference(got.dx1[r], want.dx1[r]), 1e-12);
    }
    EXPECT_EQ(params.all_grads().size(), 5u);
    for (const auto& [name, grad] : params.all_grads()) {
      EXPECT_LT(largest_difference(got_params.all_grads().at(name), grad), 1e-11) << name;
      EXPECT_GT(grad.abs().max().item<double>(), 0) << name;
    }
  }
  Model model_ = model_of(GetParam());
};

TEST_P(Dispatch, GatheredTokensAreTheExchangedRows) {
  SharedParams params(model_);
  const Outcome got = Layer(model_, true, 1, params).by_gather();
  expect_equal(got, params);
}

TEST_P(Dispatch, PartsAreTheWholeExchange) {
  for (const std::int64_t parts : {2, 4}) {
    SharedParams params(model_);
    const Outcome got = Layer(model_, false, parts, params).by_exchange();
    expect_equal(got, params);
  }
}

INSTANTIATE_TEST_SUITE_P(Routers, Dispatch, testing::Bool(), [](const auto& sigmoid) {
  return std::string(sigmoid.param ? "sigmoid" : "softmax");
});

}  // namespace
}  // namespace orrery::engine
