// The reference against figures of Hugging Face transformers: loss, logits, routing and every
// gradient of small dots1 models in fp64.
#include "tests/parity/fixture.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace orrery::reference {
namespace {

void expect_equal(const std::vector<double>& a, const std::vector<double>& b,
                  const std::string& what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  EXPECT_LE(worst_difference(a, b), 1e-11) << what;
  const auto largest = std::max_element(
      b.begin(), b.end(), [](double x, double y) { return std::abs(x) < std::abs(y); });
  EXPECT_GT(std::abs(*largest), 1e-6) << what << " is zero: the test would be blind";
}

void check(const Fixture& f) {
  SCOPED_TRACE(f.name);
  Options options;
  options.biases = f.biases;
  const Output out = run(f.model, f.parameters, f.batch, options);
  EXPECT_NEAR(out.loss, f.loss, 1e-12);
  expect_equal(out.logits, f.logits, "logits");
  EXPECT_EQ(f.gradients.size(), out.grads.size());
  for (const auto& [name, grad] : f.gradients) expect_equal(out.grads.at(name), grad, name);
  ASSERT_EQ(out.routing.size(), f.routing.size());
  for (std::size_t layer = 0; layer < f.routing.size(); ++layer) {
    EXPECT_EQ(sorted_rows(out.routing[layer], f.model.top_k), f.routing[layer]) << layer;
  }
}

TEST(Fixture, ReferenceEqualsTransformersOnDots1) {
  const auto fixtures = dots1_fixtures();
  ASSERT_TRUE(fixtures.ok()) << fixtures.error().text();
  ASSERT_EQ(fixtures.value().size(), 2U);
  for (const Fixture& f : fixtures.value()) check(f);
}

}  // namespace
}  // namespace orrery::reference
