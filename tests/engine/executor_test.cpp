// Training by the executor, beyond single steps: bf16 follows fp32, the same run gives the same
// bits, a gradient that is no number is refused, failed steps leave no memory behind, and nothing
// is learnt where nothing can be.
#include "engine/torch/executor.h"

#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <thread>

#include "core/program/lower.h"
#include "tests/parity/cases.h"
#include "tests/parity/harness.h"
#include "tests/support/plans.h"
// Last: it restores CHECK, which a header of libtorch redefines.
#include "engine/torch/compat.h"

namespace orrery::engine {
namespace {

constexpr std::int64_t kTokens = 32, kSequences = 8;

// Two layers; the smallest that learns a text in a few steps.
Plan bytes_plan(bool moe, std::int64_t world, DType dtype) {
  Model model = moe ? reference::tiny_moe() : reference::tiny_dense();
  model.vocab = 256;
  model.hidden = 32;
  model.ffn = 64;
  if (moe) {
    model.moe_ffn = 32;
    model.balance_coefficient = 0.01;
  }
  Layout layout;
  layout.fsdp_d = world;
  layout.ep = moe ? world : 1;
  layout.micro_batch = 2;
  Plan plan = parity::make_plan(model, layout, {}, {}, dtype, kTokens, kSequences);
  plan.workload.optimizer.lr = 1e-2;
  seal(plan);
  return plan;
}

// The token at a place of the step's rows.
using Text = std::function<std::int64_t(std::int64_t step, std::int64_t row, std::int64_t token)>;

std::int64_t alphabet(std::int64_t, std::int64_t row, std::int64_t token) {
  return (7 * row + token) % 26 + 'a';
}

// Another draw for every place.
std::int64_t noise(std::int64_t step, std::int64_t row, std::int64_t token) {
  Draw draw(static_cast<std::uint64_t>((step * kSequences + row) * (kTokens + 1) + token));
  return draw.between(0, 255);
}

std::vector<MicroBatch> batch_of(const Plan& plan, const Text& text, std::int32_t rank,
                                 std::int32_t step) {
  const Layout& layout = plan.layout;
  std::vector<MicroBatch> batch(static_cast<std::size_t>(layout.accumulation * plan.chunks.domino));
  for (std::size_t m = 0; m < batch.size(); ++m) {
    for (std::int64_t j = 0; j < layout.micro_batch; ++j) {
      const std::int64_t row = global_row(layout.world() / layout.sp, layout.micro_batch,
                                          rank / layout.sp, static_cast<std::int64_t>(m), j);
      for (std::int64_t t = 0; t < kTokens; ++t) {
        batch[m].ids.push_back(text(step, row, t));
        batch[m].labels.push_back(text(step, row, t + 1));
      }
      batch[m].documents.push_back({kTokens});
    }
  }
  return batch;
}

struct Outcome {
  std::vector<StepResult> steps;   // of rank 0
  std::vector<double> weights;     // all shards and router biases of all ranks
  std::vector<std::int64_t> live;  // bytes of each rank, at the end
  std::vector<std::string> errors;
  std::vector<double> losses() const {
    std::vector<double> out;
    for (const StepResult& step : steps) out.push_back(step.loss);
    return out;
  }
};

// `observe(rank, step, op, tensor)` sees what the executor's observer sees.
struct Training {
  std::int32_t steps = 1;
  Text text = alphabet;
  std::int32_t skip_op = -1;
  std::function<void(std::int32_t, std::int32_t, const Op&, const at::Tensor&)> observe = nullptr;
};

class RankTraining {
 public:
  RankTraining(const Plan& plan, const Program& program, Communicator& communicator,
               const Training& training)
      : plan_(plan), program_(program), communicator_(communicator), training_(training) {}

  void run() {
    const std::int32_t rank = communicator_.rank();
    std::int32_t step = 0;
    ExecutorOptions options;
    options.optimizer = plan_.workload.optimizer;
    options.skip_op = training_.skip_op;
    if (training_.observe) {
      options.observe = [&](const Op& op, BufferId, const at::Tensor& tensor) {
        training_.observe(rank, step, op, tensor);
      };
    }
    NoTrace trace;
    const auto made = Executor::create(program_, rank, communicator_, trace, options);
    CHECK(made.ok(), made.error().text());
    Executor& executor = *made.value();
    for (; step < training_.steps; ++step) {
      const auto result = executor.run_step(step, batch_of(plan_, training_.text, rank, step));
      if (!result.ok()) {
        error = result.error().text();
        break;
      }
      steps.push_back(result.value());
    }
    live = executor.live_bytes();
    for (std::size_t u = 0; u < program_.roles[0].units.size(); ++u) {
      const at::Tensor shard = executor.shard(static_cast<std::int32_t>(u)).to(at::kDouble);
      weights.insert(weights.end(), shard.data_ptr<double>(),
                     shard.data_ptr<double>() + shard.numel());
    }
    for (const at::Tensor& bias : executor.router_biases()) {
      const auto* p = bias.data_ptr<float>();
      weights.insert(weights.end(), p, p + bias.numel());
    }
  }

  std::vector<StepResult> steps;
  std::vector<double> weights;
  std::int64_t live = 0;
  std::string error;

 private:
  const Plan& plan_;
  const Program& program_;
  Communicator& communicator_;
  const Training& training_;
};

Outcome train(const Plan& plan, const Program& program, const Training& training) {
  auto communicators = make_in_process(program.groups, program.world);
  std::vector<RankTraining> ranks;
  for (auto& communicator : communicators) {
    ranks.emplace_back(plan, program, *communicator, training);
  }
  std::vector<std::thread> threads;
  for (RankTraining& rank : ranks) threads.emplace_back([&rank] { rank.run(); });
  for (std::thread& thread : threads) thread.join();
  Outcome outcome;
  outcome.steps = ranks[0].steps;
  for (const RankTraining& rank : ranks) {
    outcome.weights.insert(outcome.weights.end(), rank.weights.begin(), rank.weights.end());
    outcome.live.push_back(rank.live);
    outcome.errors.push_back(rank.error);
  }
  return outcome;
}

Outcome train(const Plan& plan, const Training& training) {
  return train(plan, lower(plan), training);
}

std::int64_t state_bytes(const Program& program) {
  std::int64_t bytes = 0;
  for (const Buffer& b : program.roles[0].buffers) bytes += b.taken_by < 0 ? b.bytes.c0 : 0;
  return bytes;
}

TEST(Training, Bf16FollowsFp32) {
  for (const bool moe : {false, true}) {
    SCOPED_TRACE(moe ? "moe" : "dense");
    const Outcome single = train(bytes_plan(moe, 1, DType::kFloat32), {.steps = 8});
    const Outcome half = train(bytes_plan(moe, 1, DType::kBFloat16), {.steps = 8});
    ASSERT_EQ(half.steps.size(), 8U) << half.errors[0];
    for (std::size_t s = 0; s < 8; ++s) {
      EXPECT_NEAR(half.steps[s].loss, single.steps[s].loss, 0.02 * single.steps[s].loss);
    }
    EXPECT_NE(half.steps[7].loss, single.steps[7].loss) << "bf16 was not used";
    EXPECT_LT(half.steps[7].loss, half.steps[0].loss - 0.5) << "nothing was learnt";
    EXPECT_TRUE(std::all_of(half.weights.begin(), half.weights.end(),
                            [](double w) { return std::isfinite(w); }));
  }
}

TEST(Training, TheSameRunGivesTheSameBits) {
  for (const auto& [moe, world, dtype] :
       {std::tuple(false, 2, DType::kFloat32), std::tuple(true, 2, DType::kBFloat16),
        std::tuple(true, 4, DType::kFloat32)}) {
    const Plan plan = bytes_plan(moe, world, dtype);
    const Outcome first = train(plan, {.steps = 4}), second = train(plan, {.steps = 4});
    EXPECT_EQ(first.losses(), second.losses());
    EXPECT_EQ(first.weights, second.weights);
    EXPECT_NE(first.steps[0].loss, first.steps[3].loss);
  }
}

// One step of one rank brings a gradient that is no number: all ranks see it, say so, and
// go on as if the step had not been.
TEST(Training, ANonFiniteGradientLeavesWeightsAlone) {
  for (const float poison :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Plan plan = bytes_plan(true, 2, DType::kFloat32);
    // Moments on the host, and biases that the loads move, have their own way to be left alone.
    plan.policy.host_optimizer = plan.model.router_bias = std::isnan(poison);
    plan.workload.bias_speed = std::isnan(poison) ? 0.05 : 0;
    seal(plan);
    Training poisoned{.steps = 3};
    poisoned.observe = [&](std::int32_t rank, std::int32_t step, const Op& op,
                           const at::Tensor& tensor) {
      if (op.kind == OpKind::kGradNorm && rank == 1 && step == 1) {
        tensor.data_ptr<float>()[0] = poison;
      }
    };
    const Outcome with = train(plan, poisoned), without = train(plan, {.steps = 2});
    ASSERT_EQ(with.steps.size(), 3U);
    EXPECT_TRUE(with.steps[0].updated);
    EXPECT_FALSE(with.steps[1].updated);
    EXPECT_FALSE(std::isfinite(with.steps[1].grad_norm));
    EXPECT_TRUE(with.steps[2].updated);
    EXPECT_EQ(with.steps[1].loss, with.steps[2].loss) << "the same weights, the same text";
    EXPECT_EQ(with.weights, without.weights) << "moments or their step count moved";
  }
}

// Ops that a step cannot do without, left out one by one: the ranks end with an error that names
// rank and op, and hold their persistent state alone.
TEST(Training, AFailedStepLeavesNoMemoryBehind) {
  const Plan plan = bytes_plan(true, 2, DType::kFloat32);
  const Program program = lower(plan);
  int failed = 0;
  for (std::size_t op = 0; op < program.roles[0].ops.size(); op += 5) {
    Training training{.steps = 1};
    training.skip_op = static_cast<std::int32_t>(op);
    const Outcome outcome = train(plan, program, training);
    if (outcome.errors[0].empty() && outcome.errors[1].empty()) continue;
    ++failed;
    for (const std::string& error : outcome.errors) {
      EXPECT_NE(error.find("rank "), std::string::npos) << error;
      EXPECT_NE(error.find(" op "), std::string::npos) << error;
    }
    for (const std::int64_t live : outcome.live) {
      EXPECT_EQ(live, state_bytes(program)) << program.roles[0].ops[op].path;
    }
  }
  EXPECT_GT(failed, 5);
}

// Bytes drawn afresh for every place hold nothing to learn: the loss stays at ln 256 = 5.545. A
// model that could see the labels would fall below, as it does where the text can be learnt.
TEST(Training, NothingIsLearntFromNoise) {
  for (const bool moe : {false, true}) {
    const Plan plan = bytes_plan(moe, 1, DType::kFloat32);
    for (const double loss : train(plan, {.steps = 8, .text = noise}).losses()) {
      EXPECT_GT(loss, 5.45);
      EXPECT_LT(loss, 6.0);
    }
    EXPECT_LT(train(plan, {.steps = 8}).losses().back(), 5.0);
  }
}

// What comes later in a row, or stands in another document, moves no logit.
TEST(Training, TheFutureAndOtherDocumentsAreNotSeen) {
  const Model model = reference::tiny_moe();
  constexpr std::int64_t kRow = 12, kDocument = 7, kChanged = 4;
  Layout layout;
  const Plan plan = parity::make_plan(model, layout, {}, {}, DType::kFloat64, kRow, 1);
  reference::Batch batch = reference::random_batch(model, 1, kRow, 11);
  batch.documents = {{kDocument, kRow - kDocument}};
  const auto logits = [&] {
    auto run = parity::run_in_process(plan, lower(plan), batch, {});
    CHECK(run.ok(), run.error().text());
    return std::move(run).value().logits;
  };
  const std::vector<double> before = logits();
  batch.ids[kChanged] = (batch.ids[kChanged] + 1) % model.vocab;
  const std::vector<double> after = logits();
  ASSERT_EQ(after.size(), static_cast<std::size_t>(kRow * model.vocab));
  for (std::int64_t t = 0; t < kRow; ++t) {
    double moved = 0;
    for (std::int64_t v = 0; v < model.vocab; ++v) {
      const auto i = static_cast<std::size_t>(t * model.vocab + v);
      moved = std::max(moved, std::abs(after[i] - before[i]));
    }
    if (t < kChanged || t >= kDocument) {
      EXPECT_LT(moved, 1e-12) << "token " << t;
    } else {
      EXPECT_GT(moved, 1e-6) << "token " << t;
    }
  }
}

}  // namespace
}  // namespace orrery::engine
