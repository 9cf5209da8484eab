// Layout invariance: every layout trains the model that one rank trains.
#include <gtest/gtest.h>

#include <cmath>

#include "core/program/lower.h"
#include "core/program/verify.h"
#include "tests/parity/cases.h"
#include "tests/parity/harness.h"

namespace orrery::parity {
namespace {

constexpr std::int64_t kSequences = 8, kTokens = 12;

struct Case {
  std::string name;
  Layout layout;
  bool tied = false;
};

Run run_case(const Model& model, const Layout& layout, const Chunks& chunks,
             const MemoryPolicy& policy, DType dtype, const reference::Batch& batch,
             std::int32_t steps) {
  const Plan plan = make_plan(model, layout, chunks, policy, dtype, kTokens, kSequences);
  const Program program = lower(plan);
  EXPECT_TRUE(verify(program).empty());
  RunOptions options;
  options.steps = steps;
  auto run = run_in_process(plan, program, batch, options);
  EXPECT_TRUE(run.ok()) << (run.ok() ? "" : run.error().text());
  return std::move(run).value();
}

std::vector<Case> moe_cases() {
  return {
      {"fsdp 4", layout_of(1, 4, 1, 4)},
      {"replicate 2 x fsdp 2", layout_of(2, 2, 1, 2)},
      {"replicate 2 inner", layout_of(2, 2, 1, 4, 2, "replicate")},
      {"ep 2, dense over all", layout_of(1, 4, 2, 2)},
      {"ep 2, dense replicated over ep", layout_of(2, 2, 2, 2, 1, "replicate")},
      {"ep 2, experts replicated", layout_of(1, 4, 2, 1)},
      {"ep 4", layout_of(1, 4, 4, 1)},
      {"ep 4, dense replicated", layout_of(4, 1, 4, 1, 2, "replicate")},
  };
}

struct Variant {
  std::string name;
  Chunks chunks;
  std::int64_t recompute = 0;
  std::int64_t micro_batch = 0;  // 0: the layout's own
};

std::vector<Variant> variants() {
  return {{"plain", {0, 0, 1}, 0, 0},
          {"recompute", {0, 0, 0}, 1, 0},
          {"chunked", {5, 4, 2}, 0, 0},
          {"one micro-batch", {0, 0, 1}, 0, 2},
          {"all", {7, 3, 2}, 2, 1}};
}

void check_model(const Model& model, const std::vector<Case>& cases, DType dtype) {
  const auto batch = reference::random_batch(model, kSequences, kTokens, 11);
  const Run one = run_case(model, layout_of(1, 1, 1, 1, 8), {}, {}, dtype, batch, 2);
  for (const Case& c : cases) {
    for (const Variant& v : variants()) {
      SCOPED_TRACE(c.name + ", " + v.name);
      Layout layout = c.layout;
      if (v.micro_batch > 0) layout.micro_batch = v.micro_batch;
      expect_equal_runs(run_case(model, layout, v.chunks, {v.recompute}, dtype, batch, 2), one,
                        dtype);
    }
  }
}

TEST(LayoutInvariance, MoeInFloat64) {
  check_model(reference::tiny_moe(), moe_cases(), DType::kFloat64);
}

TEST(LayoutInvariance, MoeInFloat32) {
  check_model(reference::tiny_moe(), moe_cases(), DType::kFloat32);
}

TEST(LayoutInvariance, DenseAndTiedInFloat64) {
  Layout fsdp = layout_of(1, 4, 1, 1), hybrid = layout_of(2, 2, 1, 1);
  fsdp.fsdp_e = hybrid.fsdp_e = fsdp.replicate_e = hybrid.replicate_e = 1;
  const std::vector<Case> cases = {{"fsdp 4", fsdp}, {"replicate 2 x fsdp 2", hybrid}};
  Model model = reference::tiny_dense();
  check_model(model, cases, DType::kFloat64);
  model.tied_head = !model.tied_head;
  check_model(model, cases, DType::kFloat64);
}

TEST(LayoutInvariance, ExpertBytesAreSharedOut) {
  const Model model = reference::tiny_moe();
  const auto batch = reference::random_batch(model, kSequences, kTokens, 11);
  std::int64_t total = 0;
  for (const Case& c : moe_cases()) {
    const Plan plan = make_plan(model, c.layout, {}, {}, DType::kFloat64, kTokens, kSequences);
    const Program program = lower(plan);
    std::int64_t resident = 0, all = 0;
    for (const Unit& u : program.roles[0].units) {
      if (!u.is_expert) continue;
      resident += u.shard_numel;
      all += u.numel * c.layout.ep;
    }
    EXPECT_EQ(resident * c.layout.ep * c.layout.fsdp_e, all) << c.name;
    total += resident;
  }
  EXPECT_GT(total, 0);
}

}  // namespace
}  // namespace orrery::parity
