// CHECK's slow path.
#include "core/check.h"

#include <cstdio>
#include <cstdlib>

namespace orrery {

void check_failed(const char* file, int line, const char* condition, const std::string& message) {
  std::fprintf(stderr, "%s:%d: CHECK(%s) failed: %s\nThis is a bug in orrery, not in your input.\n",
               file, line, condition, message.c_str());
  std::fflush(stderr);
  std::_Exit(70);
}

}  // namespace orrery
