// What libtorch asks of a device: a guard, an allocator, and operations.
#include "tests/engine/fake_device.h"

#include <ATen/EmptyTensor.h>
#include <ATen/core/List.h>
#include <ATen/core/boxing/KernelFunction.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <array>
#include <atomic>
#include <mutex>
#include <optional>
#include <utility>

#include "engine/torch/metered_allocator.h"
#include "tests/engine/fake_memory.h"
// Last: it restores CHECK, which a header of libtorch redefines.
#include "engine/torch/compat.h"

namespace orrery::engine::test {
namespace {

constexpr auto kType = c10::DeviceType::PrivateUse1;

c10::Device device_at(int index) {
  return {kType, static_cast<c10::DeviceIndex>(index)};
}

FakeStream& stream_of(const c10::Stream& stream) {
  return fake_stream(stream.device_index(), static_cast<int>(stream.id()));
}

FakeStream& current_stream(int device) {
  return fake_stream(device, current_fake_stream(device));
}

struct EventHandle {
  std::shared_ptr<FakeEvent> moment;
};

// What is virtual only in libtorch 2.x has no `override`.
class Guard final : public c10::impl::DeviceGuardImplInterface {
 public:
  c10::DeviceType type() const override { return kType; }
  c10::Device exchangeDevice(c10::Device device) const override {
    const c10::Device before = getDevice();
    setDevice(device);
    return before;
  }
  c10::Device getDevice() const override { return device_at(current_fake_device()); }
  void setDevice(c10::Device device) const override { uncheckedSetDevice(device); }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    if (device.has_index()) current_fake_device() = device.index();
  }
  c10::DeviceIndex deviceCount() const noexcept override { return kFakeDevices; }

  c10::Stream getStream(c10::Device device) const noexcept override {
    const int index = device.has_index() ? device.index() : current_fake_device();
    return c10::Stream(c10::Stream::UNSAFE, device_at(index), current_fake_stream(index));
  }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::UNSAFE, device, 0);
  }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override {
    static std::array<std::atomic<int>, kFakeDevices> next{};
    const int number = next[static_cast<std::size_t>(device.index())]++;
    return c10::Stream(c10::Stream::UNSAFE, device, 1 + number % (kFakeStreams - 1));
  }
  c10::Stream exchangeStream(c10::Stream stream) const noexcept override {
    const c10::Stream before = getStream(stream.device());
    current_fake_stream(stream.device_index()) = static_cast<int>(stream.id());
    return before;
  }
  bool queryStream(const c10::Stream& stream) const override { return stream_of(stream).idle(); }
  void synchronizeStream(const c10::Stream& stream) const override {
    stream_of(stream).synchronize();
  }
  void synchronizeDevice(const c10::DeviceIndex index) const {
    for (int s = 0; s < kFakeStreams; ++s) fake_stream(index, s).synchronize();
  }
  void* getStreamNativeHandle(const c10::Stream stream) const { return stream_of(stream).handle(); }

  void record(void** event, const c10::Stream& stream, const c10::DeviceIndex,
              const c10::EventFlag) const override {
    if (*event == nullptr) *event = new EventHandle;
    static_cast<EventHandle*>(*event)->moment = stream_of(stream).record();
  }
  void block(void* event, const c10::Stream& stream) const override {
    stream_of(stream).wait_for(static_cast<EventHandle*>(event)->moment);
  }
  bool queryEvent(void* event) const override {
    return static_cast<EventHandle*>(event)->moment->fired();
  }
  void synchronizeEvent(void* event) const { static_cast<EventHandle*>(event)->moment->wait(); }
  double elapsedTime(void* from, void* to, const c10::DeviceIndex) const {
    const auto ns = [](void* event) {
      return static_cast<double>(static_cast<EventHandle*>(event)->moment->fired_ns());
    };
    return (ns(to) - ns(from)) * 1e-6;
  }
  void destroyEvent(void* event, const c10::DeviceIndex) const noexcept override {
    delete static_cast<EventHandle*>(event);
  }
};

class Allocator final : public AllocatorBase {
 public:
  c10::DataPtr take(std::size_t bytes) const override { return allocate_fake(bytes); }
};

Allocator& allocator() {
  static Allocator one;
  return one;
}

class OnDevice {
 public:
  explicit OnDevice(c10::Device device) : before_(current_fake_device()) {
    if (device.has_index()) current_fake_device() = device.index();
  }
  ~OnDevice() { current_fake_device() = before_; }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_;
};

bool is_fake(const at::Tensor& t) {
  return t.defined() && t.device().type() == kType;
}

// The same memory as a tensor of the CPU, which owns nothing.
at::Tensor host_view(const at::Tensor& t) {
  return at::from_blob(t.data_ptr(), t.sizes(), t.strides(),
                       at::TensorOptions().dtype(t.scalar_type()));
}

// What a job touches: views to compute with, and the blocks that must live until it ran.
struct Operands {
  std::vector<c10::IValue> values;
  std::vector<std::shared_ptr<FakeBlock>> blocks;
  int device = -1;

  at::Tensor add(const at::Tensor& t) {
    if (!is_fake(t)) return t;
    if (device < 0) device = t.device().index();
    const auto block = fake_block(t.storage().data_ptr().get());
    if (block != nullptr) blocks.push_back(block);
    return host_view(t);
  }
  void add(const c10::IValue& value) {
    if (value.isTensor()) {
      values.emplace_back(add(value.toTensor()));
    } else if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& t : value.toTensorVector()) list.push_back(add(t));
      values.emplace_back(std::move(list));
    } else {
      values.push_back(value);
    }
  }
};

// The argument that return `r` is, by the schema; -1: a new tensor.
int argument_of(const c10::FunctionSchema& schema, std::size_t r) {
  const c10::AliasInfo* alias = schema.returns()[r].alias_info();
  if (alias == nullptr) return -1;
  TORCH_CHECK(alias->isWrite(), "the fake device has no view operation ", schema.name());
  for (std::size_t a = 0; a < schema.arguments().size(); ++a) {
    const c10::AliasInfo* other = schema.arguments()[a].alias_info();
    if (other != nullptr && *other == *alias) return static_cast<int>(a);
  }
  return -1;
}

// Whether every result is a tensor that was given, of its size already.
bool may_run_later(const c10::FunctionSchema& schema, const std::vector<c10::IValue>& arguments) {
  for (std::size_t r = 0; r < schema.returns().size(); ++r) {
    const int a = argument_of(schema, r);
    if (a < 0) return false;
    const c10::IValue& given = arguments[static_cast<std::size_t>(a)];
    if (!given.isTensor() || given.toTensor().numel() == 0) return false;
  }
  return true;
}

// A result that the CPU made: into new memory of the device, or into the tensor that was given.
at::Tensor to_device(const at::Tensor& result, int device, const at::Tensor& given) {
  at::Tensor out = given;
  if (!out.defined()) {
    out = at::empty(result.sizes(), result.options().device(device_at(device)));
  } else if (out.sizes() != result.sizes()) {
    out.resize_(result.sizes());
  }
  if (result.numel() > 0) host_view(out).copy_(result);
  return out;
}

// Runs an operation of the CPU; `values` become its results. libtorch 1.13 drops the arguments
// before it copies several results that are among them: they must live on.
void call_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack& values) {
  const torch::jit::Stack held = values;
  op.callBoxed(&values);
}

void run_now(const c10::OperatorHandle& op, const std::vector<c10::IValue>& arguments,
             Operands operands, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const MeterScope unmetered(nullptr);
  // Given tensors that have no elements yet get theirs from the CPU.
  for (std::size_t r = 0; r < schema.returns().size(); ++r) {
    const int a = argument_of(schema, r);
    if (a < 0) continue;
    auto& value = operands.values[static_cast<std::size_t>(a)];
    if (value.toTensor().numel() == 0) value = at::empty({0}, value.toTensor().options());
  }
  torch::jit::Stack results = std::move(operands.values);
  call_on_cpu(op, results);
  for (std::size_t r = 0; r < schema.returns().size(); ++r) {
    const int a = argument_of(schema, r);
    if (!results[r].isTensor()) {
      stack->push_back(results[r]);
      continue;
    }
    const at::Tensor given =
        a < 0 ? at::Tensor() : arguments[static_cast<std::size_t>(a)].toTensor();
    if (given.defined() && !is_fake(given)) {
      stack->emplace_back(given);
    } else if (given.defined() && given.numel() > 0) {
      stack->emplace_back(given);  // written through its view
    } else {
      stack->emplace_back(to_device(results[r].toTensor(), operands.device, given));
    }
  }
}

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const std::size_t count = schema.arguments().size();
  const std::vector<c10::IValue> arguments(stack->end() - static_cast<std::ptrdiff_t>(count),
                                           stack->end());
  torch::jit::drop(*stack, count);
  Operands operands;
  for (const c10::IValue& value : arguments) operands.add(value);
  TORCH_CHECK(operands.device >= 0, "no tensor of the fake device in ", schema.name());
  FakeStream& stream = current_stream(operands.device);
  if (!may_run_later(schema, arguments)) {
    stream.synchronize();
    expect_live(operands.blocks, schema.name());
    return run_now(op, arguments, std::move(operands), stack);
  }
  for (std::size_t r = 0; r < schema.returns().size(); ++r) {
    stack->push_back(arguments[static_cast<std::size_t>(argument_of(schema, r))]);
  }
  auto shared = std::make_shared<Operands>(std::move(operands));
  stream.enqueue([op, shared] {
    expect_live(shared->blocks, op.schema().name());
    const at::NoGradGuard no_grad;
    call_on_cpu(op, shared->values);
  });
}

#if ORRERY_TORCH_2
template <class T>
using Opt = std::optional<T>;
#else
template <class T>
using Opt = c10::optional<T>;
#endif

at::Tensor empty(at::IntArrayRef sizes, Opt<at::ScalarType> dtype, Opt<at::Layout>,
                 Opt<at::Device> device, Opt<bool>, Opt<at::MemoryFormat> format) {
  const OnDevice here(device.value_or(device_at(current_fake_device())));
  return at::detail::empty_generic(sizes, &allocator(),
                                   c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   dtype.value_or(at::kFloat), format);
}

at::Tensor empty_strided(at::IntArrayRef sizes, at::IntArrayRef strides, Opt<at::ScalarType> dtype,
                         Opt<at::Layout>, Opt<at::Device> device, Opt<bool>) {
  const OnDevice here(device.value_or(device_at(current_fake_device())));
  return at::detail::empty_strided_generic(sizes, strides, &allocator(),
                                           c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                           dtype.value_or(at::kFloat));
}

at::Tensor as_strided(const at::Tensor& self, at::IntArrayRef sizes, at::IntArrayRef strides,
                      Opt<std::int64_t> offset) {
  return at::native::as_strided_tensorimpl(self, sizes, strides, offset);
}

at::Tensor view(const at::Tensor& self, at::IntArrayRef sizes) {
  return at::native::view(self, sizes);
}

at::Tensor reshape_alias(const at::Tensor& self, at::IntArrayRef sizes, at::IntArrayRef strides) {
  return at::native::as_strided_tensorimpl(self, sizes, strides, self.storage_offset());
}

// Only for tensors that an operation fills afterwards: what they held is not kept.
const at::Tensor& resize_(const at::Tensor& self, at::IntArrayRef sizes, Opt<at::MemoryFormat>) {
  std::size_t bytes = self.element_size();
  for (const std::int64_t extent : sizes) bytes *= static_cast<std::size_t>(extent);
  if (bytes > self.storage().nbytes()) {
    const OnDevice here(self.device());
    const at::Storage storage = self.storage();
    storage.unsafeGetStorageImpl()->set_data_ptr(allocate_fake(bytes));
    storage.unsafeGetStorageImpl()->set_nbytes(bytes);
  }
  self.unsafeGetTensorImpl()->set_sizes_contiguous(sizes);
  return self;
}

// Asynchronous when asked for, or when both sides are the device's.
at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  auto operands = std::make_shared<Operands>();
  operands->add(c10::IValue(from));
  operands->add(c10::IValue(to));
  FakeStream& stream = current_stream(operands->device);
  stream.enqueue([operands] {
    expect_live(operands->blocks, "copy");
    const at::NoGradGuard no_grad;
    operands->values[1].toTensor().copy_(operands->values[0].toTensor());
  });
  if (!non_blocking && is_fake(from) != is_fake(to)) stream.synchronize();
  return to;
}

at::Scalar local_scalar(const at::Tensor& self) {
  current_stream(self.device().index()).synchronize();
  return host_view(self).item();
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("as_strided", &as_strided);
  m.impl("view", &view);
  m.impl("_reshape_alias", &reshape_alias);
  m.impl("resize_", &resize_);
  m.impl("_copy_from", &copy_from);
  m.impl("_local_scalar_dense", &local_scalar);
}

}  // namespace

void install_fake_device() {
  static std::once_flag once;
  std::call_once(once, [] {
    static Guard* const guard = new Guard;  // never destroyed, as libtorch asks
    static const c10::impl::DeviceGuardImplRegistrar registered(kType, guard);
    c10::SetAllocator(kType, &allocator(), 255);
  });
}

std::unique_ptr<Device> make_fake_device(int index) {
  install_fake_device();
  StreamHooks hooks;
  hooks.native = [](at::Device device, std::int64_t stream) -> StreamHandle {
    return fake_stream(device.index(), static_cast<int>(stream)).handle();
  };
  hooks.elapsed_ms = [](void* from, void* to) { return Guard().elapsedTime(from, to, 0); };
  auto made = make_stream_device(DeviceKind::kFake, index, hooks);
  CHECK(made.ok(), made.error().text());
  return std::move(made).value();
}

}  // namespace orrery::engine::test
