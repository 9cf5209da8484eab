// The device's lanes, memory and clock, on the CPU and on the fake device; and that the fake device
// finds what it is for.
#include "engine/torch/device.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <thread>

#include "engine/torch/device_memory.h"
#include "engine/torch/metered_allocator.h"
#include "tests/engine/fake_device.h"
#include "tests/engine/primitives_reference.h"
// Last: it restores CHECK, which a header of libtorch redefines.
#include "engine/torch/compat.h"

namespace orrery::engine {
namespace {

constexpr std::int64_t kCount = 4096;

// Runs a block forward and backward, on the CPU or with all device operands on the fake device.
BackwardResult run_case(const Case& c, const std::vector<at::Tensor>& grad_outputs,
                        const at::Device& device) {
  const auto moved = [&](std::vector<at::Tensor> tensors) {
    for (at::Tensor& t : tensors) {
      if (t.defined()) t = t.to(device);
    }
    return tensors;
  };
  const auto inputs = moved(input_tensors(c)), params = moved(param_tensors(c));
  BackwardResult result;
  result.param_grads = moved(grad_buffers(c.block));
  Tape tape;
  result.outputs =
      run_forward(c.block, {inputs, resolver(c.block, params), &c.context, &tape}).value();
  result.grads = run_backward(c.block, {std::move(tape),
                                        inputs,
                                        result.outputs,
                                        moved(grad_outputs),
                                        {},
                                        resolver(c.block, params),
                                        resolver(c.block, result.param_grads),
                                        &c.context})
                     .value();
  return result;
}

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  if (a.defined() != b.defined()) return false;
  if (!a.defined()) return true;
  const at::Tensor x = a.cpu().contiguous(), y = b.cpu().contiguous();
  return x.sizes() == y.sizes() && x.scalar_type() == y.scalar_type() &&
         (x.nbytes() == 0 || std::memcmp(x.data_ptr(), y.data_ptr(), x.nbytes()) == 0);
}

// Every primitive and block, forward and backward: the bodies are right on tensors that are not the
// CPU's, with every operation late, and use no memory before it is written or after it is freed.
TEST(FakeDeviceTest, BlocksGiveTheBitsOfTheCpu) {
  const at::NoGradGuard no_grad;
  const auto device = test::make_fake_device(0);
  std::uint64_t seed = 0;
  for (const std::string& name : case_names()) {
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      test::reseed_fake_device(0, ++seed);
      const Case c = make_case(name, dtype, seed);
      const auto params = param_tensors(c);
      const auto outputs =
          run_forward(c.block, {input_tensors(c), resolver(c.block, params), &c.context}).value();
      const auto grads = random_grads(c.block, outputs, seed);
      const BackwardResult want = run_case(c, grads, at::kCPU);
      BackwardResult got;
      const auto posted = device->post(Lane::kCompute, {}, [&]() -> Status {
        got = run_case(c, grads, device->torch());
        return Ok{};
      });
      ASSERT_TRUE(posted.ok()) << name << posted.error().text();
      const Status drained = device->drain();
      ASSERT_TRUE(drained.ok()) << name << ": " << drained.error().text();
      const auto compare = [&](const auto& a, const auto& b, const char* what) {
        ASSERT_EQ(a.size(), b.size());
        for (std::size_t i = 0; i < a.size(); ++i) {
          EXPECT_TRUE(same_bits(a[i], b[i])) << name << " " << what << " " << i;
        }
      };
      compare(got.outputs, want.outputs, "output");
      compare(got.grads, want.grads, "gradient");
      compare(got.param_grads, want.param_grads, "gradient of parameter");
    }
  }
  const auto faults = test::fake_faults(0);
  EXPECT_TRUE(faults.empty()) << faults.size() << " faults: " << faults.front();
}

// y = x + 1 on the compute lane, then a copy of y to the host on the d2h lane.
bool copy_after_compute(std::uint64_t seed, bool ordered) {
  test::reseed_fake_device(1, seed);
  const auto device = test::make_fake_device(1);
  const at::Tensor y = device->empty(Lane::kCompute, {kCount}, at::kFloat);
  const at::Tensor host = device->host_empty({kCount}, at::kFloat);
  const auto computed = device->post(Lane::kCompute, {}, [&]() -> Status {
    y.zero_();
    for (int i = 0; i < 20; ++i) y.add_(1);
    return Ok{};
  });
  std::vector<LanePoint> after;
  if (ordered) after.push_back(computed.value());
  const auto copied = device->post(Lane::kD2h, after, [&]() -> Status {
    device->copy(host, y);
    return Ok{};
  });
  EXPECT_TRUE(device->wait(copied.value()).ok());
  const bool right = host.eq(20).all().item<bool>();
  EXPECT_TRUE(device->drain().ok());
  return right;
}

TEST(FakeDeviceTest, AMissingEventShows) {
  int wrong = 0;
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    EXPECT_TRUE(copy_after_compute(seed, true)) << seed;
    wrong += copy_after_compute(seed, false) ? 0 : 1;
  }
  EXPECT_GE(wrong, 3);  // of 10: a stream may happen to be late enough
}

// A block of the fsdp lane's pool, read by compute, goes back to the pool: only once compute has
// passed, or the pool may give it out while it is read.
std::vector<std::string> free_after_read(std::uint64_t seed, bool ordered) {
  test::reseed_fake_device(2, seed);
  const auto device = test::make_fake_device(2);
  at::Tensor gathered = device->empty(Lane::kFsdp, {kCount}, at::kFloat);
  const at::Tensor sum = device->empty(Lane::kCompute, {kCount}, at::kFloat);
  const auto filled = device->post(Lane::kFsdp, {}, [&]() -> Status {
    gathered.zero_();
    return Ok{};
  });
  const auto read = device->post(Lane::kCompute, {filled.value()}, [&]() -> Status {
    sum.zero_();
    for (int i = 0; i < 20; ++i) sum.add_(gathered);
    return Ok{};
  });
  if (ordered) device->order(Lane::kFsdp, read.value());
  gathered.reset();
  EXPECT_TRUE(device->drain().ok());
  return test::fake_faults(2);
}

TEST(FakeDeviceTest, MemoryThatIsGivenBackTooSoonShows) {
  int found = 0;
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    const auto faults = free_after_read(seed, true);
    EXPECT_TRUE(faults.empty()) << faults.front();
    const auto wrong = free_after_read(seed, false);
    if (wrong.empty()) continue;
    ++found;
    EXPECT_NE(wrong.front().find("after it was freed"), std::string::npos) << wrong.front();
  }
  EXPECT_GE(found, 3);
}

TEST(FakeDeviceTest, AnErrorOfAStreamComesBackWhereTheHostWaits) {
  const auto device = test::make_fake_device(3);
  const auto posted = device->post(Lane::kCompute, {}, [&]() -> Status {
    const at::Tensor x = device->empty(Lane::kCompute, {4}, at::kFloat);
    const at::Tensor poison = device->empty(Lane::kCompute, {2}, at::kLong);  // -1
    x.zero_();
    at::Tensor out = device->empty(Lane::kCompute, {2}, at::kFloat);
    out.copy_(x.index_select(0, poison));
    return Ok{};
  });
  EXPECT_FALSE(posted.ok() && device->drain().ok());
  test::reseed_fake_device(3, 1);
}

TEST(FakeDeviceTest, MemoryIsCountedByClass) {
  const auto device = test::make_fake_device(4);
  const auto meter = std::make_shared<MemoryMeter>();
  const MeterScope scope(meter);
  const DeviceMeterScope reports;
  {
    const at::Tensor a = device->empty(Lane::kCompute, {1000}, at::kFloat);
    EXPECT_EQ(classify(a, BufferClass::kActivation), 4000);
    EXPECT_EQ(meter->live(BufferClass::kActivation), 4000);
    {
      const at::Tensor b = device->empty(Lane::kFsdp, {500}, at::kDouble);
      EXPECT_EQ(meter->live(), 8000);
    }
    EXPECT_EQ(meter->live(), 4000);
    EXPECT_EQ(test::fake_live_bytes(4), 4000);
  }
  EXPECT_EQ(meter->live(), 0);
  EXPECT_EQ(meter->peak(), 8000);
}

TEST(FakeDeviceTest, TimesOfJobsAreInOrder) {
  const auto device = test::make_fake_device(5);
  const at::Tensor x = device->empty(Lane::kCompute, {kCount}, at::kFloat);
  std::vector<LanePoint> points;
  for (int i = 0; i < 6; ++i) {
    const Lane lane = i % 2 == 0 ? Lane::kCompute : Lane::kEp;
    const std::vector<LanePoint> after =
        points.empty() ? std::vector<LanePoint>{} : std::vector<LanePoint>{points.back()};
    points.push_back(device
                         ->post(lane, after,
                                [&]() -> Status {
                                  x.zero_();
                                  return Ok{};
                                })
                         .value());
  }
  ASSERT_TRUE(device->drain().ok());
  std::int64_t before = 0;
  for (const LanePoint point : points) {
    const LaneTimes times = device->times(point);
    EXPECT_LE(before, times.start_ns);
    EXPECT_LE(times.start_ns, times.end_ns);
    before = times.end_ns;
  }
}

// On a machine with a GPU: the blocks on it against the CPU. Elsewhere it says that it did not run.
TEST(CudaDeviceTest, BlocksAgreeWithTheCpu) {
  auto made = make_stream_device(DeviceKind::kCuda, 0);
  if (!made.ok()) GTEST_SKIP() << "no CUDA device: " << made.error().problems.at(0).message;
  const at::NoGradGuard no_grad;
  Device& device = *made.value();
  for (const std::string& name : case_names()) {
    const Case c = make_case(name, DType::kFloat64, 3);
    const auto params = param_tensors(c);
    const auto outputs =
        run_forward(c.block, {input_tensors(c), resolver(c.block, params), &c.context}).value();
    const auto grads = random_grads(c.block, outputs, 3);
    const BackwardResult want = run_case(c, grads, at::kCPU);
    BackwardResult got;
    const auto posted = device.post(Lane::kCompute, {}, [&]() -> Status {
      got = run_case(c, grads, device.torch());
      return Ok{};
    });
    ASSERT_TRUE(posted.ok()) << name << posted.error().text();
    ASSERT_TRUE(device.drain().ok()) << name;
    const auto compare = [&](const auto& a, const auto& b, const char* what) {
      for (std::size_t i = 0; i < a.size(); ++i) {
        if (!b[i].defined() || b[i].numel() == 0) continue;
        const at::Tensor x = a[i].cpu().to(at::kDouble), y = b[i].to(at::kDouble);
        const double off = x.sub(y).abs().max().template item<double>();
        EXPECT_LE(off, 1e-9 * (1 + y.abs().max().template item<double>())) << name << what << i;
      }
    };
    compare(got.outputs, want.outputs, " output ");
    compare(got.grads, want.grads, " gradient ");
    compare(got.param_grads, want.param_grads, " gradient of parameter ");
  }
}

TEST(CpuDeviceTest, LanesWaitForEachOther) {
  const auto device = make_cpu_device({Lane::kFsdp, Lane::kEp});
  int value = 0;
  const auto first = device->post(Lane::kFsdp, {}, [&]() -> Status {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    value = 1;
    return Ok{};
  });
  const auto second = device->post(Lane::kEp, {first.value()}, [&]() -> Status {
    value = 10 * value + 2;
    return Ok{};
  });
  const auto third = device->post(Lane::kCompute, {second.value()}, [&]() -> Status {
    value = 10 * value + 3;
    return Ok{};
  });
  EXPECT_TRUE(third.ok());
  EXPECT_EQ(value, 123);
  const auto failed = device->post(
      Lane::kEp, {}, []() -> Status { return Error::of(ErrorCode::kRun, "lane", "no such peer"); });
  const Status waited = device->wait(failed.value());
  ASSERT_FALSE(waited.ok());
  EXPECT_NE(waited.error().text().find("no such peer"), std::string::npos);
}

}  // namespace
}  // namespace orrery::engine
