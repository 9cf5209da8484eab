// Result<T>: a value or an Error. Expected failures travel as results; bugs are CHECK (check.h).
#pragma once

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "core/check.h"

namespace orrery {

// The enumerators are the documented exit codes of every orrery binary.
enum class ErrorCode : int {
  kUsage = 2,       // the command line is wrong
  kInvalid = 3,     // a config, plan or trace is invalid, or belongs to another world
  kInfeasible = 4,  // nothing fits, or a pin that no rule allows
  kIo = 5,          // a file, a disk, a missing part (no engine built)
  kRun = 6,         // a run failed
  kInterrupted = 130,
};

// One thing that is wrong: where (file:/json/pointer), what (with the value), and how to mend it.
struct Problem {
  std::string where;
  std::string message;
  std::string hint;  // may be empty
};

// An expected failure. It lists all problems found, not only the first.
struct Error {
  ErrorCode code = ErrorCode::kInvalid;
  std::vector<Problem> problems;

  static Error of(ErrorCode code, std::string where, std::string message, std::string hint = "") {
    return {code, {{std::move(where), std::move(message), std::move(hint)}}};
  }
  // "error: where: message\n  hint: ..." for each problem.
  std::string text() const;
};

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : data_(std::move(value)) {}      // NOLINT(google-explicit-constructor)
  Result(Error error) : data_(std::move(error)) {}  // NOLINT(google-explicit-constructor)

  bool ok() const { return std::holds_alternative<T>(data_); }
  const T& value() const& {
    ORRERY_CHECK(ok(), std::get<Error>(data_).text());
    return std::get<T>(data_);
  }
  T&& value() && {
    ORRERY_CHECK(ok(), std::get<Error>(data_).text());
    return std::get<T>(std::move(data_));
  }
  const Error& error() const {
    ORRERY_CHECK(!ok(), "error() of a result that holds a value");
    return std::get<Error>(data_);
  }

 private:
  std::variant<T, Error> data_;
};

// The result of an operation that has no value.
struct Ok {};
using Status = Result<Ok>;

}  // namespace orrery

#define ORRERY_CONCAT_(a, b) a##b
#define ORRERY_CONCAT(a, b) ORRERY_CONCAT_(a, b)
#define ORRERY_TRY_(tmp, declaration, expression) \
  auto tmp = (expression);                        \
  if (!tmp.ok()) return tmp.error();              \
  declaration = std::move(tmp).value()

// TRY(auto plan, load_plan(path)): unwraps, or returns the error from the enclosing function.
#define TRY(declaration, expression) \
  ORRERY_TRY_(ORRERY_CONCAT(try_result_, __LINE__), declaration, expression)
// TRY_OK(write(...)): the same for a Status.
#define TRY_OK(expression)                           \
  do {                                               \
    auto try_status = (expression);                  \
    if (!try_status.ok()) return try_status.error(); \
  } while (false)
