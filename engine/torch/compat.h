// What differs between libtorch 1.13 and 2.x, and the border where its exceptions stop.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/Allocator.h>
#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>
#include <c10/util/Logging.h>

#include <exception>
#include <new>
#include <string>
#include <utility>

#include "core/check.h"
#include "core/program/block.h"
#include "core/result.h"

// Logging.h defines a CHECK of its own, once: whatever came first, ours holds from here on. A .cpp
// that includes ATen headers and uses CHECK includes this header.
#undef CHECK
#define CHECK(condition, message) ORRERY_CHECK(condition, message)

// A header that came with 2.x; the package of 1.13 has none of that name.
#if __has_include(<torch/headeronly/version.h>)
#define ORRERY_TORCH_2 1
#else
#define ORRERY_TORCH_2 0
#endif

namespace orrery::engine {

// An allocator of libtorch: 2.x allocates through a mutable one and asks it for a copy.
class AllocatorBase : public c10::Allocator {
 public:
  virtual c10::DataPtr take(std::size_t bytes) const = 0;
#if ORRERY_TORCH_2
  c10::DataPtr allocate(std::size_t bytes) override {
    return take(bytes);
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
#else
  c10::DataPtr allocate(std::size_t bytes) const override {
    return take(bytes);
  }
#endif
};

inline at::ScalarType scalar_type(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return at::kFloat;
    case DType::kBFloat16:
      return at::kBFloat16;
    case DType::kFloat64:
      return at::kDouble;
    case DType::kInt64:
      return at::kLong;
  }
  CHECK(false, "unknown dtype");
}

// Runs `body`, which returns a Result; an exception of the library becomes an error (kRun).
template <class Body>
auto guarded(const std::string& where, Body&& body) -> decltype(body()) {
  try {
    return std::forward<Body>(body)();
  } catch (const c10::Error& e) {
    return Error::of(ErrorCode::kRun, where, e.what_without_backtrace());
  } catch (const std::bad_alloc& e) {  // OutOfMemory of the metered allocator among them
    return Error::of(ErrorCode::kRun, where, e.what(),
                     "plan with a smaller micro-batch, recompute or more ranks: `orrery plan`; "
                     "`orrery analyze RUN.db memory` shows where it went");
  } catch (const std::exception& e) {
    return Error::of(ErrorCode::kRun, where, e.what());
  }
}

}  // namespace orrery::engine
