// What a request holds fixed: axes, chunks and policies by the names of plan.json.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/result.h"
#include "planner/plans/planner.h"

namespace orrery::planner {

class Pins {
 public:
  // kUsage, all problems at once: an unknown name, a name that is there twice, an unreadable value.
  static Result<Pins> parse(const Request& request);

  std::optional<std::int64_t> get(const std::string& name) const;
  std::int64_t get(const std::string& name, std::int64_t otherwise) const;
  // The pinned value alone, or all of `otherwise`.
  std::vector<std::int64_t> list(const std::string& name,
                                 std::vector<std::int64_t> otherwise) const;
  std::vector<std::string> words(const std::string& name, std::vector<std::string> otherwise) const;
  bool any() const { return !numbers_.empty() || !words_.empty(); }
  bool has(const std::string& name) const;

 private:
  std::map<std::string, std::int64_t> numbers_;
  std::map<std::string, std::string> words_;  // also "all" of swap_layers
};

}  // namespace orrery::planner
