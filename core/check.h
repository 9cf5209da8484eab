// CHECK: an always-on test for programmer errors. It prints the values and ends with exit code 70.
#pragma once

#include <string>

namespace orrery {

// Prints `file:line: CHECK(condition) failed: message` to stderr and exits 70 ("internal bug").
[[noreturn]] void check_failed(const char* file, int line, const char* condition,
                               const std::string& message);

}  // namespace orrery

// CHECK(condition, message): `message` is a std::string expression, evaluated only on failure.
// libtorch's logging has a macro of the same name; engine/torch/compat.h settles which one holds.
#define ORRERY_CHECK(condition, message)                                 \
  do {                                                                   \
    if (!(condition)) {                                                  \
      ::orrery::check_failed(__FILE__, __LINE__, #condition, (message)); \
    }                                                                    \
  } while (false)
#undef CHECK
#define CHECK(condition, message) ORRERY_CHECK(condition, message)
