// The reference model against central finite differences, and against what must hold of any correct
// model: invariances, limits with a closed form, and worked examples of routing and balancing.
#include "tests/parity/reference.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tests/parity/cases.h"

namespace orrery::reference {
namespace {

double total(const Output& out) {
  return out.loss + out.balance_loss + out.z_loss;
}

// Largest difference of two tensors of one size.
double difference(const std::vector<double>& a, const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

void expect_same_grads(const Output& a, const Output& b) {
  for (const auto& [name, grad] : a.grads) {
    EXPECT_LT(difference(grad, b.grads.at(name)), 1e-12) << name;
  }
  EXPECT_NEAR(a.grad_norm, b.grad_norm, 1e-12);
}

struct Case {
  std::string name;
  Model model;
  Options options;
};

std::vector<Case> gradient_cases() {
  const Options sequence{true, BalanceScope::kSequence, {}};
  const Options global{true, BalanceScope::kMicrobatchGlobal, {0, 1, 0}};
  std::vector<Case> cases{{"Dense", tiny_dense(), {}},
                          {"DenseTied", tiny_dense(), {}},
                          {"MoeSequence", tiny_moe(), sequence},
                          {"MoeTiedGlobal", tiny_moe(), global},
                          {"MoeUnnormedMixed", tiny_moe(true), sequence},
                          {"MoeUnnormedGlobal", tiny_moe(), global},
                          {"MoeNoBalance", tiny_moe(), {}}};
  Options biased = sequence;
  biased.biases = random_biases(tiny_dots(), 8);
  biased.z_loss = 0.3;
  Options with_z = global;
  with_z.z_loss = 0.2;
  cases.push_back({"Dots", tiny_dots(), biased});
  cases.push_back({"DotsUnnormedOneGroup", tiny_dots(), {}});
  cases.back().model.norm_topk = false;
  cases.back().model.expert_groups = cases.back().model.top_groups = 1;
  cases.push_back({"MoeZLoss", tiny_moe(), with_z});
  cases.push_back({"MoeSoftmaxGroupsShared", tiny_dots(), biased});
  cases.back().model.sigmoid_router = false;
  cases[1].model.tied_head = true;
  cases[3].model.tied_head = true;
  cases[4].model.norm_topk = false;
  cases[5].model.norm_topk = false;
  return cases;
}

class Gradient : public testing::TestWithParam<Case> {};

// Rounding leaves a few 1e-16 / step = 1e-10 in a difference, the third derivative (thousands,
// behind a sigmoid router) times step^2.
TEST_P(Gradient, EqualsCentralDifferences) {
  const auto& [name, model, options] = GetParam();
  Parameters parameters = random_parameters(model, 11);
  const Batch batch = random_batch(model, 3, 6, 12);
  const Output out = run(model, parameters, batch, options);
  constexpr double kStep = 3e-6;
  double squares = 0;
  for (auto& [tensor, values] : parameters) {
    double largest = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double kept = values[i];
      values[i] = kept + kStep;
      const Output above = run(model, parameters, batch, options);
      values[i] = kept - kStep;
      const Output below = run(model, parameters, batch, options);
      values[i] = kept;
      ASSERT_EQ(above.routing, out.routing) << "choose another seed: a margin is too small";
      ASSERT_EQ(below.routing, out.routing) << "choose another seed: a margin is too small";
      const double expected = (total(above) - total(below)) / (2 * kStep);
      const double actual = out.grads.at(tensor)[i];
      ASSERT_NEAR(actual, expected, 1e-6 * std::abs(expected) + 1e-9) << tensor << "[" << i << "]";
      largest = std::max(largest, std::abs(actual));
      squares += actual * actual;
    }
    EXPECT_GT(largest, 1e-4) << tensor << " has no gradient to speak of: the test would be blind";
  }
  EXPECT_NEAR(out.grad_norm, std::sqrt(squares), 1e-12);
}

INSTANTIATE_TEST_SUITE_P(Reference, Gradient, testing::ValuesIn(gradient_cases()),
                         [](const auto& one) { return one.param.name; });

using Column = std::vector<double>;

// Rows [first, first + rows) of w times x.
Column times(const Column& w, const Column& x, std::size_t first, std::size_t rows) {
  Column y(rows, 0.0);
  for (std::size_t o = 0; o < rows; ++o) {
    for (std::size_t i = 0; i < x.size(); ++i) y[o] += w[(first + o) * x.size() + i] * x[i];
  }
  return y;
}

Column normed(const Column& x, const Column& w, double eps) {
  double mean = eps;
  for (const double value : x) mean += value * value / static_cast<double>(x.size());
  Column y = w;
  for (std::size_t i = 0; i < x.size(); ++i) y[i] *= x[i] / std::sqrt(mean);
  return y;
}

// The wiring, spelled out for the second of two tokens, one layer, heads of two columns (which turn
// by the position itself): which norm comes before what, and where the residuals are taken.
TEST(Reference, TwoTokensSpelledOut) {
  Model model = tiny_dense();
  model.layers = 1;
  model.moe_layer = {false};
  model.head_dim = 2;
  model.rms_eps = 0.1;
  const Parameters w = random_parameters(model, 21);
  const auto of = [&w](const std::string& leaf) { return w.at("layers.0." + leaf); };
  const auto norm = [&](const Column& x, const Column& by) { return normed(x, by, 0.1); };
  const Batch batch{1, 2, {3, 7}, {0, 0}, {{2}}};
  Column x[2], n[2];
  for (int t = 0; t < 2; ++t) {
    const auto row = w.at("embed_tokens").begin() + batch.ids[t] * 10;
    x[t] = Column(row, row + 10);
    n[t] = norm(x[t], of("input_norm"));
  }
  const auto turn = [](const Column& v, double a) -> Column {
    return {v[0] * std::cos(a) - v[1] * std::sin(a), v[1] * std::cos(a) + v[0] * std::sin(a)};
  };
  Column attended;
  for (std::size_t h = 0; h < 4; ++h) {
    const Column q = turn(norm(times(of("q_proj"), n[1], 2 * h, 2), of("q_norm")), 1);
    double weight[2], sum = 0;
    for (int t = 0; t < 2; ++t) {
      const Column k = turn(norm(times(of("k_proj"), n[t], h / 2 * 2, 2), of("k_norm")), t);
      weight[t] = std::exp((q[0] * k[0] + q[1] * k[1]) / std::sqrt(2.0));
      sum += weight[t];
    }
    const Column v0 = times(of("v_proj"), n[0], h / 2 * 2, 2);
    const Column v1 = times(of("v_proj"), n[1], h / 2 * 2, 2);
    for (int i = 0; i < 2; ++i) attended.push_back((weight[0] * v0[i] + weight[1] * v1[i]) / sum);
  }
  Column x1 = times(of("o_proj"), attended, 0, 10);
  for (int i = 0; i < 10; ++i) x1[i] += x[1][i];
  const Column n2 = norm(x1, of("post_norm"));
  Column inner = times(of("up_proj"), n2, 0, 6);
  const Column gate = times(of("gate_proj"), n2, 0, 6);
  for (int i = 0; i < 6; ++i) inner[i] *= gate[i] / (1 + std::exp(-gate[i]));
  Column x2 = times(of("down_proj"), inner, 0, 10);
  for (int i = 0; i < 10; ++i) x2[i] += x1[i];
  const Column expected = times(w.at("lm_head"), norm(x2, w.at("final_norm")), 0, 13);
  const Output out = run(model, w, batch, {});
  EXPECT_LT(difference(Column(out.logits.begin() + 13, out.logits.end()), expected), 1e-13);
}

TEST(Reference, UniformLogitsCostLogOfVocab) {
  const Model model = tiny_dense();
  Parameters parameters = random_parameters(model, 1);
  parameters.at("lm_head").assign(parameters.at("lm_head").size(), 0);
  const Output out = run(model, parameters, random_batch(model, 2, 5, 1), {});
  EXPECT_NEAR(out.loss, std::log(13), 1e-14);
}

TEST(Reference, IgnoredLabelsCountForNothing) {
  const Model model = tiny_dense();
  const Parameters parameters = random_parameters(model, 2);
  Batch batch = random_batch(model, 1, 4, 2);
  double sum = 0;  // of the losses of one label at a time
  for (std::size_t i = 0; i < 3; ++i) {
    batch.labels.assign(4, kIgnored);
    batch.labels[i] = static_cast<std::int64_t>(i);
    sum += run(model, parameters, batch, {}).loss;
  }
  batch.labels = {0, 1, 2, kIgnored};
  EXPECT_NEAR(run(model, parameters, batch, {}).loss, sum / 3, 1e-13);
  batch.labels.assign(4, kIgnored);
  const Output nothing = run(model, parameters, batch, {});
  EXPECT_EQ(nothing.loss, 0);
  EXPECT_EQ(nothing.grad_norm, 0);
}

TEST(Reference, OrderOfSequencesDoesNotMatter) {
  const Model model = tiny_moe();
  const Parameters parameters = random_parameters(model, 3);
  const Batch batch = random_batch(model, 3, 6, 3);
  const std::vector<std::int64_t> order{2, 0, 1};
  Batch turned{3, 6, {}, {}, {}};
  const std::vector<int> micro_batch{0, 1, 1};
  std::vector<int> turned_micro_batch;
  for (const std::int64_t s : order) {
    turned.ids.insert(turned.ids.end(), batch.ids.begin() + s * 6, batch.ids.begin() + s * 6 + 6);
    turned.labels.insert(turned.labels.end(), batch.labels.begin() + s * 6,
                         batch.labels.begin() + s * 6 + 6);
    turned.documents.push_back(batch.documents[s]);
    turned_micro_batch.push_back(micro_batch[s]);
  }
  for (const BalanceScope scope : {BalanceScope::kSequence, BalanceScope::kMicrobatchGlobal}) {
    const Output a = run(model, parameters, batch, {true, scope, micro_batch});
    const Output b = run(model, parameters, turned, {true, scope, turned_micro_batch});
    EXPECT_NEAR(a.loss, b.loss, 1e-13);
    EXPECT_NEAR(a.balance_loss, b.balance_loss, 1e-13);
    expect_same_grads(a, b);
    const std::int64_t width = 6 * model.vocab;
    for (std::int64_t to = 0; to < 3; ++to) {
      for (std::int64_t i = 0; i < width; ++i) {
        ASSERT_EQ(b.logits[to * width + i], a.logits[order[to] * width + i]);
      }
    }
  }
}

TEST(Reference, DocumentsOfOneRowEqualRowsOfTheirOwn) {
  const Model model = tiny_moe();
  const Parameters parameters = random_parameters(model, 4);
  Batch packed = random_batch(model, 1, 8, 4);
  packed.documents = {{4, 4}};
  Batch apart = packed;
  apart.sequences = 2;
  apart.tokens = 4;
  apart.documents = {{4}, {4}};
  const Output a = run(model, parameters, packed, {true, BalanceScope::kMicrobatchGlobal, {0}});
  const Output b = run(model, parameters, apart, {true, BalanceScope::kMicrobatchGlobal, {0, 0}});
  EXPECT_EQ(a.logits, b.logits);
  EXPECT_EQ(a.routing, b.routing);
  EXPECT_NEAR(total(a), total(b), 1e-13);
  expect_same_grads(a, b);
}

TEST(Reference, LaterTokensDoNotReachEarlierOnes) {
  const Model model = tiny_moe();
  const Parameters parameters = random_parameters(model, 5);
  Batch batch = random_batch(model, 1, 8, 5);
  batch.documents = {{8}};
  const Output before = run(model, parameters, batch, {});
  batch.ids[5] = (batch.ids[5] + 1) % model.vocab;
  const Output after = run(model, parameters, batch, {});
  const auto width = static_cast<std::size_t>(model.vocab);
  for (std::size_t n = 0; n < 8; ++n) {
    const std::vector<double> a(before.logits.begin() + n * width,
                                before.logits.begin() + (n + 1) * width);
    const std::vector<double> b(after.logits.begin() + n * width,
                                after.logits.begin() + (n + 1) * width);
    EXPECT_EQ(a == b, n < 5) << n;
  }
}

TEST(Reference, EqualExpertsWithNormalisedWeightsMakeADenseModel) {
  const Model dense = tiny_dense();
  Model moe = tiny_moe();
  moe.moe_ffn = dense.ffn;
  const Parameters parameters = random_parameters(dense, 6);
  Parameters stacked = random_parameters(moe, 6);
  for (auto& [name, values] : stacked) {
    const std::size_t at = name.find("experts.");
    if (at == std::string::npos) {
      if (parameters.count(name) > 0) values = parameters.at(name);
      continue;
    }
    const std::vector<double>& one = parameters.at(name.substr(0, at) + name.substr(at + 8));
    values.clear();
    for (int e = 0; e < 4; ++e) values.insert(values.end(), one.begin(), one.end());
  }
  const Batch batch = random_batch(dense, 2, 6, 6);
  const Output a = run(dense, parameters, batch, {}), b = run(moe, stacked, batch, {});
  EXPECT_LT(difference(a.logits, b.logits), 1e-13);
  EXPECT_NEAR(a.loss, b.loss, 1e-13);
}

TEST(Reference, TiesGoToTheLowerExpert) {
  Model model = tiny_moe();
  Parameters parameters = random_parameters(model, 7);
  const Batch batch = random_batch(model, 2, 3, 7);
  std::vector<double>& router = parameters.at("layers.1.router");
  router.assign(router.size(), 0);
  const Output out = run(model, parameters, batch, {true, BalanceScope::kSequence, {}});
  std::vector<std::int64_t> first_two;
  for (int n = 0; n < 6; ++n) first_two.insert(first_two.end(), {0, 1});
  EXPECT_EQ(out.routing[1], first_two);
  // Experts 1 and 3 alike, and above 0 and 2 which are alike: 1, 3 or 0, 2 by the sign.
  for (std::size_t i = 0; i < router.size(); ++i) router[i] = (i / 10) % 2 == 1 ? 0.3 : 0.0;
  const Output paired = run(model, parameters, batch, {});
  for (std::size_t i = 0; i < paired.routing[1].size(); i += 2) {
    EXPECT_EQ(paired.routing[1][i] + 2, paired.routing[1][i + 1]);
    EXPECT_LT(paired.routing[1][i], 2);
  }
}

// One layer whose attention gives nothing, so that the router sees (1, 1) for id 0 and (1, -1) for
// id 1: expert 0 has the probability s = sigmoid(1) for id 0 and 1 - s for id 1.
TEST(Reference, BalancingLossOfAWorkedExample) {
  Model model = tiny_moe();
  model.vocab = model.hidden = model.experts = 2;
  model.layers = model.top_k = 1;
  model.moe_layer = {true};
  model.rms_eps = 0;
  Parameters parameters = random_parameters(model, 8);
  parameters.at("layers.0.o_proj").assign(parameters.at("layers.0.o_proj").size(), 0);
  parameters.at("layers.0.post_norm") = {1, 1};
  parameters.at("embed_tokens") = {1, 1, 1, -1};
  parameters.at("layers.0.router") = {0, 1, 0, 0};
  const Batch batch{2, 2, {0, 0, 0, 1}, {0, 1, 1, 0}, {{2}, {2}}};
  const double s = 1 / (1 + std::exp(-1.0));
  // Sequence 0: n = (2,0), p0 = 2s; sequence 1: n = (1,1), p = (1,1); factor 2 / (1 * 4 * 2).
  const Output sequence = run(model, parameters, batch, {true, BalanceScope::kSequence, {}});
  EXPECT_EQ(sequence.routing[0], (std::vector<std::int64_t>{0, 0, 0, 1}));
  EXPECT_NEAR(sequence.balance_loss, 0.5 * (s + 0.5), 1e-14);
  // One micro-batch: n = (3,1), p = (2s + 1, 3 - 2s), factor 2 / 16.
  const Options one{true, BalanceScope::kMicrobatchGlobal, {0, 0}};
  EXPECT_NEAR(run(model, parameters, batch, one).balance_loss, 0.5 * (4 * s + 6) / 8, 1e-14);
  const Options two{true, BalanceScope::kMicrobatchGlobal, {1, 0}};
  EXPECT_NEAR(run(model, parameters, batch, two).balance_loss, sequence.balance_loss, 1e-14);
  EXPECT_EQ(run(model, parameters, batch, {}).balance_loss, 0);
}

TEST(Reference, PerfectBalanceCostsTheCoefficientALayer) {
  Model model = tiny_moe();
  model.top_k = model.experts;  // every expert takes every token: f_e = 1 / E
  const Output out = run(model, random_parameters(model, 9), random_batch(model, 3, 4, 9),
                         {true, BalanceScope::kSequence, {}});
  EXPECT_NEAR(out.balance_loss, 0.5 * 2, 1e-13);
}

TEST(Reference, AdamWFollowsItsEquationForTwoSteps) {
  const AdamW hyper{0.1, 0.9, 0.5, 0.25, 0.2, 1.0};  // lr, beta1, beta2, eps, decay, clip
  Parameters parameters{{"w", {2}}, {"q_norm", {2}}};
  AdamState state;
  adamw(parameters, state, {{"w", {0.5}}, {"q_norm", {-0.5}}}, hyper, 0.7, 1);  // not clipped
  // Step 1: mhat = g, sqrt(vhat) = |g|: update 0.5 / 0.75; decay 0.2 * 2 for w only.
  const double w1 = 2 - 0.1 * (0.4 + 0.5 / 0.75);
  EXPECT_NEAR(parameters.at("w")[0], w1, 1e-14);
  EXPECT_NEAR(parameters.at("q_norm")[0], 2 + 0.1 * (0.5 / 0.75), 1e-14);
  adamw(parameters, state, {{"w", {3}}, {"q_norm", {0}}}, hyper, 4 - 1e-6, 2);  // clipped to 0.75
  const double m = (0.9 * 0.05 + 0.1 * 0.75) / (1 - 0.81);
  const double v = (0.5 * 0.125 + 0.5 * 0.5625) / (1 - 0.25);
  EXPECT_NEAR(parameters.at("w")[0], w1 - 0.1 * (0.2 * w1 + m / (std::sqrt(v) + 0.25)), 1e-14);
}

}  // namespace
}  // namespace orrery::reference
