// The reference against figures of Hugging Face transformers (fixtures/make_dots1.py writes them):
// loss, logits, routing and every gradient of small dots1 models in fp64.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/configs.h"
#include "core/json.h"
#include "tests/parity/reference.h"

namespace orrery::reference {
namespace {

template <class T>
std::vector<T> numbers(const Json& array) {
  std::vector<T> out;
  for (const Json& item : array.items()) out.push_back(static_cast<T>(item.as_double()));
  return out;
}

Parameters tensors(const Json& object) {
  Parameters out;
  for (const auto& [name, values] : object.members()) out[name] = numbers<double>(values);
  return out;
}

// The fixtures hold 14 digits.
void expect_equal(const std::vector<double>& a, const std::vector<double>& b,
                  const std::string& what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  double scale = 0, worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    scale = std::max(scale, std::abs(b[i]));
    worst = std::max(worst, std::abs(a[i] - b[i]));
  }
  EXPECT_LE(worst, 1e-11 * std::max(1.0, scale)) << what;
  EXPECT_GT(scale, 1e-6) << what << " is zero: the test would be blind";
}

void check(const Json& one) {
  SCOPED_TRACE(one.find("name")->as_string());
  const Result<Model> read = model_from_json(*one.find("config"), "fixture:/config");
  ASSERT_TRUE(read.ok()) << read.error().text();
  const Model& model = read.value();
  const std::int64_t sequences = one.find("sequences")->as_integer();
  const std::int64_t tokens = one.find("tokens")->as_integer();
  const Batch batch{sequences, tokens, numbers<std::int64_t>(*one.find("ids")),
                    numbers<std::int64_t>(*one.find("labels")),
                    std::vector<std::vector<std::int64_t>>(2, {tokens})};
  Options options;
  options.biases = tensors(*one.find("biases"));
  const Output out = run(model, tensors(*one.find("parameters")), batch, options);
  EXPECT_NEAR(out.loss, one.find("loss")->as_double(), 1e-12);
  expect_equal(out.logits, numbers<double>(*one.find("logits")), "logits");
  const Parameters expected = tensors(*one.find("gradients"));
  EXPECT_EQ(expected.size(), out.grads.size());
  for (const auto& [name, grad] : expected) {
    if (model.tied_head && name == "lm_head") continue;
    expect_equal(out.grads.at(name), grad, name);
  }
  // Theirs are in no order: experts of a token, sorted.
  const auto& routing = one.find("routing")->items();
  ASSERT_EQ(out.routing.size(), routing.size());
  for (std::size_t layer = 0; layer < routing.size(); ++layer) {
    std::vector<std::int64_t> sorted = out.routing[layer];
    for (auto at = sorted.begin(); at != sorted.end(); at += model.top_k) {
      std::sort(at, at + model.top_k);
    }
    EXPECT_EQ(sorted, numbers<std::int64_t>(routing[layer])) << layer;
  }
}

TEST(Fixture, ReferenceEqualsTransformersOnDots1) {
  const std::string path = std::string(ORRERY_SOURCE_DIR) + "/tests/parity/fixtures/dots1.json";
  const Result<Json> fixture = Json::load(path);
  ASSERT_TRUE(fixture.ok()) << fixture.error().text();
  const auto& cases = fixture.value().find("cases")->items();
  ASSERT_EQ(cases.size(), 2U);
  for (const Json& one : cases) check(one);
}

}  // namespace
}  // namespace orrery::reference
