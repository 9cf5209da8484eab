// A shared library found at run time: vendors' communication libraries are no part of the build.
#pragma once

#include <string>
#include <utility>

#include "core/result.h"

namespace orrery::engine {

class DynamicLibrary {
 public:
  // Opens the path in the environment variable `variable`, else `soname` by the loader's own rules.
  // Error kIo with the loader's words. `what` names the library ("NCCL"). It stays open until the
  // process ends: its threads may outlive every object of ours.
  static Result<DynamicLibrary> open(const std::string& what, const char* variable,
                                     const char* soname);

  // function = the symbol `name`. Error kIo names symbol and file where it is absent.
  template <class Function>
  Status find(const char* name, Function*& function) const {
    TRY(void* const symbol, address(name));
    function = reinterpret_cast<Function*>(symbol);
    return Ok{};
  }
  const std::string& path() const { return path_; }

 private:
  DynamicLibrary(std::string what, std::string path, void* handle)
      : what_(std::move(what)), path_(std::move(path)), handle_(handle) {}
  Result<void*> address(const char* name) const;

  std::string what_, path_;
  void* handle_ = nullptr;
};

}  // namespace orrery::engine
