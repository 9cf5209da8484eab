// The CPU's device: threads in the place of streams.
#include "engine/torch/device.h"

#include <ATen/ops/empty.h>

#include <array>
#include <utility>

#include "engine/lane_worker.h"
#include "engine/torch/compat.h"

namespace orrery::engine {
namespace {

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(const std::vector<Lane>& lanes) {
    for (const Lane lane : lanes) {
      auto& worker = workers_[static_cast<std::size_t>(lane)];
      if (lane != Lane::kCompute && worker == nullptr) {
        worker = std::make_unique<LaneWorker>(lane_name(lane));
      }
    }
  }
  ~CpuDevice() override { shutdown(); }
  CpuDevice(const CpuDevice&) = delete;
  CpuDevice& operator=(const CpuDevice&) = delete;

  DeviceKind kind() const override { return DeviceKind::kCpu; }
  at::Device torch() const override { return at::kCPU; }

  Result<LanePoint> post(Lane lane, const std::vector<LanePoint>& after, Job job) override {
    if (lane == Lane::kCompute) {
      for (const LanePoint point : after) TRY_OK(wait(point));
      TRY_OK(job());
      return LanePoint{lane, 0};
    }
    const LaneWorker::Ticket ticket =
        worker(lane).post([this, after, job = std::move(job)]() -> Status {
          for (const LanePoint point : after) TRY_OK(wait(point));
          return job();
        });
    return LanePoint{lane, ticket};
  }

  // The compute lane is the thread that asks, or one that asks after it: it has passed.
  Status wait(LanePoint point) override {
    if (point.lane == Lane::kCompute || point.ticket == 0) return Ok{};
    return worker(point.lane).wait(point.ticket);
  }
  // Memory comes back when jobs have ended, and all pools are one.
  void order(Lane, LanePoint) override {}

  Status drain() override {
    for (auto& lane : workers_) {
      if (lane != nullptr) TRY_OK(lane->drain());
    }
    return Ok{};
  }
  LaneTimes times(LanePoint) const override { return {}; }
  void shutdown() override {
    for (auto& lane : workers_) {
      if (lane != nullptr) lane->shutdown();
    }
  }

  StreamHandle stream(Lane) const override { return nullptr; }
  at::Tensor empty(Lane, at::IntArrayRef shape, at::ScalarType dtype) const override {
    return at::empty(shape, dtype);
  }
  at::Tensor host_empty(at::IntArrayRef shape, at::ScalarType dtype) const override {
    return at::empty(shape, dtype);
  }
  void copy(const at::Tensor& to, const at::Tensor& from) const override { to.copy_(from); }

 private:
  static const char* lane_name(Lane lane) { return orrery::name_of(lane); }
  LaneWorker& worker(Lane lane) const {
    const auto& found = workers_[static_cast<std::size_t>(lane)];
    CHECK(found != nullptr, std::string("no worker of lane ") + lane_name(lane));
    return *found;
  }

  std::array<std::unique_ptr<LaneWorker>, kNumLanes> workers_;
};

}  // namespace

const char* name_of(DeviceKind kind) {
  switch (kind) {
    case DeviceKind::kCpu:
      return "cpu";
    case DeviceKind::kCuda:
      return "cuda";
    case DeviceKind::kNpu:
      return "npu";
    case DeviceKind::kFake:
      return "fake";
  }
  CHECK(false, "unknown kind of device");
}

std::unique_ptr<Device> make_cpu_device(const std::vector<Lane>& lanes) {
  return std::make_unique<CpuDevice>(lanes);
}

}  // namespace orrery::engine
