// See the header.
#include "engine/comm/dynamic_library.h"

#include <dlfcn.h>

#include <cstdlib>

namespace orrery::engine {

Result<DynamicLibrary> DynamicLibrary::open(const std::string& what, const char* variable,
                                            const char* soname) {
  const char* chosen = std::getenv(variable);
  const bool named = chosen != nullptr && *chosen != '\0';
  const std::string path = named ? chosen : soname;
  void* const handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* words = dlerror();
    return Error::of(ErrorCode::kIo, what, words == nullptr ? "cannot open " + path : words,
                     std::string("set ") + variable + " to the library's path");
  }
  return DynamicLibrary(what, path, handle);
}

Result<void*> DynamicLibrary::address(const char* name) const {
  void* const symbol = dlsym(handle_, name);
  if (symbol == nullptr) {
    return Error::of(ErrorCode::kIo, what_, path_ + " has no function " + name,
                     "use a newer " + what_);
  }
  return symbol;
}

}  // namespace orrery::engine
