// A device with streams, through the guard that its library registered with libtorch. The streams
// are of the library's pool, none is the default stream: work that is launched without a lane is
// ordered with nothing, and the fake device of the tests shows that.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <dlfcn.h>

#include <array>
#include <chrono>
#include <cmath>
#include <optional>
#include <thread>
#include <utility>

#include "engine/torch/compat.h"
#include "engine/torch/device.h"

namespace orrery::engine {
namespace {

using Guard = c10::impl::VirtualGuardImpl;

at::DeviceType type_of(DeviceKind kind) {
  return kind == DeviceKind::kCuda ? at::kCUDA : c10::DeviceType::PrivateUse1;
}

std::int64_t steady_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// An event with a time, of the device's own.
class Event {
 public:
  Event(const Guard& guard, const c10::Stream& stream) : guard_(guard), stream_(stream) {
    guard_.record(&event_, stream_, stream_.device_index(), c10::EventFlag::BACKEND_DEFAULT);
  }
  ~Event() {
    if (event_ != nullptr) guard_.destroyEvent(event_, stream_.device_index());
  }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void block(const c10::Stream& stream) const { guard_.block(event_, stream); }
  void wait() const {
#if ORRERY_TORCH_2
    guard_.synchronizeEvent(event_);
#else
    while (!guard_.queryEvent(event_)) std::this_thread::sleep_for(std::chrono::microseconds(20));
#endif
  }
  double ms_since(const Event& other, const StreamHooks& hooks) const {
    if (hooks.elapsed_ms != nullptr) return hooks.elapsed_ms(other.event_, event_);
#if ORRERY_TORCH_2
    return guard_.elapsedTime(other.event_, event_, stream_.device_index());
#else
    CHECK(false, "libtorch 1.13 has no times of events");
#endif
  }

 private:
  const Guard& guard_;
  c10::Stream stream_;
  void* event_ = nullptr;
};

// One job between its two events.
struct Mark {
  std::unique_ptr<Event> start, end;
};

class StreamDevice final : public Device {
 public:
  StreamDevice(DeviceKind kind, at::Device device, StreamHooks hooks)
      : kind_(kind), device_(device), hooks_(hooks), guard_(device.type()) {
    guard_.setDevice(device_);
    for (int lane = 0; lane < kNumLanes; ++lane) {
      streams_.push_back(guard_.getStreamFromGlobalPool(device_, false));
    }
  }
  ~StreamDevice() override { shutdown(); }
  StreamDevice(const StreamDevice&) = delete;
  StreamDevice& operator=(const StreamDevice&) = delete;

  DeviceKind kind() const override { return kind_; }
  at::Device torch() const override { return device_; }

  Result<LanePoint> post(Lane lane, const std::vector<LanePoint>& after, Job job) override {
    return guarded("", [&]() -> Result<LanePoint> {
      begin_window();
      const c10::Stream& stream = at(lane);
      const c10::StreamGuard current(stream);
      block(lane, after);
      Mark mark;
      mark.start = std::make_unique<Event>(guard_, stream);
      TRY_OK(job());
      mark.end = std::make_unique<Event>(guard_, stream);
      auto& marks = marks_[index(lane)];
      marks.push_back(std::move(mark));
      return LanePoint{lane, passed_[index(lane)] + marks.size()};
    });
  }

  Status wait(LanePoint point) override {
    return guarded("", [&]() -> Status {
      if (const Event* end = end_of(point)) end->wait();
      return Ok{};
    });
  }

  void order(Lane lane, LanePoint point) override { block(lane, {point}); }

  Status drain() override {
    const Status drained = guarded("", [&]() -> Status {
      for (const c10::Stream& stream : streams_) guard_.synchronizeStream(stream);
      return Ok{};
    });
    if (drained.ok()) keep_times();
    for (int lane = 0; lane < kNumLanes; ++lane) {
      auto& marks = marks_[static_cast<std::size_t>(lane)];
      passed_[static_cast<std::size_t>(lane)] += marks.size();
      marks.clear();
    }
    base_.reset();
    return drained;
  }

  LaneTimes times(LanePoint point) const override {
    const auto& times = times_[index(point.lane)];
    const std::uint64_t first = passed_[index(point.lane)] - times.size();
    if (point.ticket <= first || point.ticket - first > times.size()) return {};
    return times[point.ticket - first - 1];
  }

  void shutdown() override {
    for (const c10::Stream& stream : streams_) {
      const Status ended = guarded("", [&]() -> Status {
        guard_.synchronizeStream(stream);
        return Ok{};
      });
      (void)ended;  // of a failed run: its error has been told
    }
  }

  StreamHandle stream(Lane lane) const override {
    if (hooks_.native != nullptr) return hooks_.native(device_, at(lane).id());
#if ORRERY_TORCH_2
    return at(lane).native_handle();
#else
    CHECK(false, "libtorch 1.13 has no handles of streams");
#endif
  }

  at::Tensor empty(Lane pool, at::IntArrayRef shape, at::ScalarType dtype) const override {
    const c10::StreamGuard current(at(pool));
    return at::empty(shape, at::TensorOptions().dtype(dtype).device(device_));
  }
  at::Tensor host_empty(at::IntArrayRef shape, at::ScalarType dtype) const override {
    const bool pinned = kind_ != DeviceKind::kFake;  // whose device memory is the host's
    return at::empty(shape, at::TensorOptions().dtype(dtype).pinned_memory(pinned));
  }
  void copy(const at::Tensor& to, const at::Tensor& from) const override {
    to.copy_(from, /*non_blocking=*/true);
  }

 private:
  static std::size_t index(Lane lane) {
    return static_cast<std::size_t>(lane);
  }
  const c10::Stream& at(Lane lane) const {
    return streams_[index(lane)];
  }

  // The event of a moment; null when it has passed.
  const Event* end_of(LanePoint point) const {
    const std::uint64_t passed = passed_[index(point.lane)];
    if (point.ticket <= passed) return nullptr;
    const auto& marks = marks_[index(point.lane)];
    CHECK(point.ticket - passed <= marks.size(), "a moment that no post returned");
    return marks[point.ticket - passed - 1].end.get();
  }

  // A lane's moments come in order, so the last of each lane stands for all.
  void block(Lane lane, const std::vector<LanePoint>& after) {
    std::array<std::uint64_t, kNumLanes> last{};
    for (const LanePoint point : after) {
      last[index(point.lane)] = std::max(last[index(point.lane)], point.ticket);
    }
    for (int other = 0; other < kNumLanes; ++other) {
      const auto of = static_cast<Lane>(other);
      if (of == lane) continue;
      if (const Event* end = end_of({of, last[index(of)]})) end->block(at(lane));
    }
  }

  // The streams are idle: the host's clock and the device's are read together.
  void begin_window() {
    if (base_ != nullptr) return;
    for (auto& times : times_) times.clear();
    base_ = std::make_unique<Event>(guard_, at(Lane::kCompute));
    base_->wait();
    base_ns_ = steady_ns();
  }

  void keep_times() {
    if (base_ == nullptr) return;
    const auto since = [&](const Event& event) {
      return base_ns_ +
             static_cast<std::int64_t>(std::llround(event.ms_since(*base_, hooks_) * 1e6));
    };
    for (std::size_t lane = 0; lane < marks_.size(); ++lane) {
      for (const Mark& mark : marks_[lane]) {
        times_[lane].push_back({since(*mark.start), since(*mark.end)});
      }
    }
  }

  const DeviceKind kind_;
  const at::Device device_;
  const StreamHooks hooks_;
  const Guard guard_;
  std::vector<c10::Stream> streams_;                     // by lane
  std::array<std::vector<Mark>, kNumLanes> marks_;       // jobs since the last drain
  std::array<std::uint64_t, kNumLanes> passed_{};        // jobs before them
  std::array<std::vector<LaneTimes>, kNumLanes> times_;  // of the window before the last drain
  std::unique_ptr<Event> base_;
  std::int64_t base_ns_ = 0;
};

// The engine links the host's part of libtorch alone; the kernels of CUDA come from the library
// beside it.
Status load_cuda() {
  Dl_info info;
  const auto* inside = reinterpret_cast<const void*>(&at::get_num_threads);
  std::string path = "libtorch_cuda.so";
  if (dladdr(inside, &info) != 0 && info.dli_fname != nullptr) {
    const std::string own = info.dli_fname;
    const std::size_t slash = own.rfind('/');
    if (slash != std::string::npos) path = own.substr(0, slash + 1) + path;
  }
  if (dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    const char* words = dlerror();
    return Error::of(ErrorCode::kIo, "cuda", words == nullptr ? "cannot open " + path : words,
                     "build the preset cuda with a wheel of PyTorch that has CUDA");
  }
  return Ok{};
}

}  // namespace

Result<std::unique_ptr<Device>> make_stream_device(DeviceKind kind, std::int32_t index,
                                                   StreamHooks hooks) {
  CHECK(kind != DeviceKind::kCpu, "the CPU has no streams");
  if (kind == DeviceKind::kCuda) TRY_OK(load_cuda());
  const at::Device device(type_of(kind), static_cast<c10::DeviceIndex>(index));
  auto made = guarded(name_of(kind), [&]() -> Result<std::unique_ptr<Device>> {
    if (!c10::impl::hasDeviceGuardImpl(device.type())) {
      return Error::of(ErrorCode::kIo, name_of(kind), "libtorch has no such device");
    }
    const std::int32_t count = c10::impl::getDeviceGuardImpl(device.type())->deviceCount();
    if (index < 0 || index >= count) {
      return Error::of(ErrorCode::kIo, name_of(kind),
                       "device " + std::to_string(index) + " of " + std::to_string(count));
    }
    // Starts the device's library, which the guard alone does not.
    at::empty({1}, at::TensorOptions().device(device));
    return std::unique_ptr<Device>(std::make_unique<StreamDevice>(kind, device, hooks));
  });
  return made;
}

}  // namespace orrery::engine
