// The memory contract: what a block takes, measured by the metered allocator, is what core counts:
// outputs, saved and peak, within the larger of 1 % and 64 KiB. And: the same bits twice.
#include <ATen/Parallel.h>
#include <ATen/ops/clone.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <thread>

#include "engine/torch/compat.h"
#include "engine/torch/metered_allocator.h"
#include "engine/torch/primitives_bodies.h"
#include "tests/engine/primitives_reference.h"

namespace orrery::engine {
namespace {

// What a run added to the meter: now, and at its highest.
class Measure {
 public:
  explicit Measure(MemoryMeter& meter) : meter_(meter), before_(meter.live()) {
    meter.reset_peaks();
  }
  std::int64_t added() const { return meter_.live() - before_; }
  std::int64_t peak() const { return meter_.peak() - before_; }

 private:
  MemoryMeter& meter_;
  std::int64_t before_;
};

void expect_bytes(std::int64_t measured, std::int64_t counted, const std::string& what) {
  const std::int64_t slack = std::max<std::int64_t>(64 * 1024, counted / 100);
  EXPECT_LE(std::abs(measured - counted), slack)
      << what << ": measured " << measured << ", counted " << counted;
}

using Param = std::tuple<std::string, DType>;

class BlockContract : public testing::TestWithParam<Param> {
 protected:
  void SetUp() override { at::set_num_threads(1); }
  std::shared_ptr<MemoryMeter> meter_ = std::make_shared<MemoryMeter>();
};

class BlockContractWide : public testing::Test {
 protected:
  void SetUp() override { at::set_num_threads(1); }
  std::shared_ptr<MemoryMeter> meter_ = std::make_shared<MemoryMeter>();
  MeterScope scope_{meter_};
};

std::int64_t bytes_of(const std::vector<at::Tensor>& tensors) {
  std::int64_t total = 0;
  for (const at::Tensor& t : tensors)
    total += t.defined() ? static_cast<std::int64_t>(t.nbytes()) : 0;
  return total;
}

// Gradients begun elsewhere for every second input that carries one.
std::vector<at::Tensor> some_seeds(const Case& c, const std::vector<at::Tensor>& inputs,
                                   std::vector<ValueId>& seeded) {
  std::vector<at::Tensor> seeds(inputs.size());
  bool take = true;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const ValueId v = c.block.inputs[i];
    if (!has_grad(c.block.values[static_cast<std::size_t>(v)])) continue;
    if (take) {
      seeds[i] = inputs[i].clone();
      seeded.push_back(v);
    }
    take = !take;
  }
  return seeds;
}

bool share(const at::Tensor& a, const at::Tensor& b) {
  return a.defined() && b.defined() && a.numel() > 0 && a.is_alias_of(b);
}

void check_backward(const Case& c, MemoryMeter& meter, bool with_seeds) {
  const auto inputs = input_tensors(c), params = param_tensors(c);
  const auto buffers = grad_buffers(c.block);
  std::vector<ValueId> seeded;
  const auto seeds = with_seeds ? some_seeds(c, inputs, seeded) : std::vector<at::Tensor>();
  Tape tape;
  const auto outputs =
      run_forward(c.block, {inputs, resolver(c.block, params), &c.context, &tape}).value();
  const auto grads = random_grads(c.block, outputs, 5);
  std::int64_t tape_bytes = 0;
  tape.visit([&](const at::Tensor& t) { tape_bytes += static_cast<std::int64_t>(t.nbytes()); });
  const Measure measure(meter);
  BackwardArgs args{std::move(tape),
                    inputs,
                    outputs,
                    grads,
                    seeds,
                    resolver(c.block, params),
                    resolver(c.block, buffers),
                    &c.context};
  const auto got = run_backward(c.block, std::move(args)).value();
  const BlockBytes counted = backward_bytes(c.block, c.values, c.base, seeded);
  EXPECT_EQ(bytes_of(got), counted.outputs);
  EXPECT_EQ(measure.added(), counted.outputs - tape_bytes) << "the tape is gone";
  expect_bytes(measure.peak(), counted.peak, "backward peak");
  for (std::size_t i = 0; i < got.size(); ++i) {  // every gradient has its own storage
    for (std::size_t j = 0; j < i; ++j) EXPECT_FALSE(share(got[i], got[j]));
    for (const at::Tensor& other : grads) EXPECT_FALSE(share(got[i], other));
    for (const at::Tensor& other : seeds) EXPECT_FALSE(share(got[i], other));
  }
}

void check_case(const Case& c, MemoryMeter& meter) {
  const auto inputs = input_tensors(c), params = param_tensors(c);
  for (const bool keep : {false, true}) {
    Tape tape;
    const Measure measure(meter);
    const auto outputs = run_forward(c.block, {inputs, resolver(c.block, params), &c.context,
                                               keep ? &tape : nullptr})
                             .value();
    const BlockBytes counted = forward_bytes(c.block, keep, c.values, c.base);
    EXPECT_EQ(bytes_of(outputs), counted.outputs);
    EXPECT_EQ(measure.added(), counted.outputs + counted.saved);
    expect_bytes(measure.peak(), counted.peak, keep ? "forward with tape" : "forward");
  }
  check_backward(c, meter, false);
  check_backward(c, meter, true);
  EXPECT_LT(meter.library_peak(), 2 << 20);
}

TEST_P(BlockContract, MeasuredBytesAreCountedBytes) {
  const auto& [name, dtype] = GetParam();
  const std::uint64_t seeds = name == "random_block" ? 20 : 2;
  const MeterScope scope(meter_);
  for (std::uint64_t seed = 0; seed < seeds; ++seed) {
    check_case(make_contract_case(name, dtype, seed), *meter_);
  }
}

// The same where the bodies go slice by slice.
TEST_F(BlockContractWide, MeasuredBytesAreCountedBytes) {
  for (const std::string& name : wide_case_names()) {
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      SCOPED_TRACE(name);
      check_case(make_wide_case(name, dtype), *meter_);
    }
  }
}

TEST_P(BlockContract, SameBitsTwice) {
  const auto& [name, dtype] = GetParam();
  const Case c = make_contract_case(name, dtype, 3);
  const auto inputs = input_tensors(c), params = param_tensors(c);
  const auto outputs =
      run_forward(c.block, {inputs, resolver(c.block, params), &c.context}).value();
  const auto grads = random_grads(c.block, outputs, 5);
  const BackwardResult a = run_both(c, grads), b = run_both(c, grads);
  const auto expect_same = [](const std::vector<at::Tensor>& x, const std::vector<at::Tensor>& y) {
    ASSERT_EQ(x.size(), y.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
      ASSERT_EQ(x[i].defined(), y[i].defined());
      EXPECT_TRUE(!x[i].defined() || at::equal(x[i], y[i])) << i;
    }
  };
  expect_same(a.outputs, b.outputs);
  expect_same(a.outputs, outputs);
  expect_same(a.grads, b.grads);
  expect_same(a.param_grads, b.param_grads);
}

std::string name_of_param(const testing::TestParamInfo<Param>& info) {
  return std::get<0>(info.param) + "_" + orrery::name_of(std::get<1>(info.param));
}

INSTANTIATE_TEST_SUITE_P(All, BlockContract,
                         testing::Combine(testing::ValuesIn(case_names()),
                                          testing::Values(DType::kFloat32, DType::kBFloat16,
                                                          DType::kFloat64)),
                         name_of_param);

// What a library packs does not grow with the operands: none of them is copied whole.
TEST(MeteredAllocator, ProductsCopyNoOperand) {
  at::set_num_threads(1);
  const auto meter = std::make_shared<MemoryMeter>();
  const MeterScope scope(meter);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
    const std::int64_t tokens = 4096, n = 1024, k = 512;
    const auto options = at::TensorOptions().dtype(dtype);
    const at::Tensor x = at::ones({tokens, k}, options), dy = at::ones({tokens, n}, options);
    const at::Tensor w = at::ones({n, k}, options), y = at::empty({tokens, n}, options);
    mm_to(y, x, w.t());
    mm_to(x, dy, w);
    add_mm_to(w, dy.t(), x);
    const std::int64_t heads = 2, rows = 1024, d = 64;
    const at::Tensor q = at::ones({heads, rows, d}, options),
                     p = at::ones({heads, rows, rows}, options);
    bmm_to(p, q, q.transpose(1, 2));
    bmm_to(q, p, q.clone());
    add_bmm_to(q, p.transpose(1, 2), q.clone());
  }
  EXPECT_GT(meter->library_peak(), 0);
  EXPECT_LT(meter->library_peak(), 2 << 20);
}

TEST(MeteredAllocator, CountsByClassAndReturnsToTheMeterThatTook) {
  const auto meter = std::make_shared<MemoryMeter>(), other = std::make_shared<MemoryMeter>();
  std::vector<std::int64_t> deltas;
  meter->set_listener([&](BufferClass, std::int64_t delta) { deltas.push_back(delta); });
  at::Tensor kept;
  {
    const MeterScope scope(meter);
    kept = at::empty({1000}, at::kFloat);
    const at::Tensor temporary = at::empty({500}, at::kFloat);
    EXPECT_EQ(classify(kept.view({10, 100}), BufferClass::kSaved), 4000);
  }
  EXPECT_EQ(meter->live(), 4000);
  EXPECT_EQ(meter->peak(), 6000);
  EXPECT_EQ(meter->live(BufferClass::kSaved), 4000);
  EXPECT_EQ(meter->live(BufferClass::kWorkspace), 0);
  EXPECT_EQ(meter->peak(BufferClass::kWorkspace), 6000);
  const at::Tensor unmetered = at::empty({100}, at::kFloat);
  EXPECT_EQ(classify(unmetered, BufferClass::kSaved), 0);
  std::thread([&] {
    const MeterScope scope(other);
    kept.reset();
  }).join();
  EXPECT_EQ(meter->live(), 0);
  EXPECT_EQ(other->live(), 0);
  EXPECT_EQ(deltas, (std::vector<std::int64_t>{4000, 2000, -4000, 4000, -2000, -4000}));
  meter->reset_peaks();
  EXPECT_EQ(meter->peak(), 0);
}

// Refused before it is taken, with what is asked, what is there and the largest classes; below the
// limit, and for what no meter counts, nothing changes.
TEST(MeteredAllocator, ALimitIsNotExceeded) {
  const auto meter = std::make_shared<MemoryMeter>();
  meter->set_limit(10000);
  const auto take = [&](std::int64_t bytes) {
    return guarded("op", [&]() -> Result<at::Tensor> { return at::empty({bytes}, at::kByte); });
  };
  const MeterScope scope(meter);
  const auto first = take(6000);
  ASSERT_TRUE(first.ok());
  classify(first.value(), BufferClass::kSaved);
  EXPECT_TRUE(take(4000).ok());
  const auto refused = take(4001);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kRun);
  const std::string text = refused.error().text();
  EXPECT_NE(text.find("op: out of memory: 3.91 KiB more are beyond the limit of 9.77 KiB; "
                      "live 5.86 KiB: saved 5.86 KiB"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("hint: "), std::string::npos) << text;
  EXPECT_EQ(meter->live(), 6000);
  EXPECT_EQ(meter->peak(), 10000);
  // What the machine itself refuses is said the same way, whatever libtorch calls it.
  meter->set_limit(std::numeric_limits<std::int64_t>::max());
  const auto huge = take(std::int64_t{1} << 50);
  ASSERT_FALSE(huge.ok());
  EXPECT_NE(huge.error().text().find("out of memory: the machine has no 1.00 PiB left; live 5.86"),
            std::string::npos)
      << huge.error().text();
  EXPECT_NE(huge.error().text().find("hint: "), std::string::npos);
  const MeterScope unmetered(nullptr);
  EXPECT_TRUE(take(20000).ok());
}

// The allocator is in place before the first tensor.
const bool kInstalled = [] {
  install_metered_allocator();
  return true;
}();

}  // namespace
}  // namespace orrery::engine
