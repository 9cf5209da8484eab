// What `orrery plan` and its questions read from the command line: nouns, pins, budget of time.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "planner/plans/decide.h"
#include "planner/plans/planner.h"
#include "planner/questions/searcher.h"

namespace orrery::cli {

using planner::PinList;

// One noun of a request, or its problems among the others'.
template <class T>
void take(Result<T> result, T& noun, std::vector<Problem>& problems, ErrorCode& code) {
  if (result.ok()) {
    noun = std::move(result).value();
    return;
  }
  code = result.error().code;
  const auto& found = result.error().problems;
  problems.insert(problems.end(), found.begin(), found.end());
}

// A word NAME=VALUE in two; where it is none, none and a problem.
std::optional<PinList::value_type> split_pin(const std::string& word, const std::string& option,
                                             std::vector<Problem>& problems);

// Words NAME=VALUE of names that can be pinned, of plans or with `jobs` of jobs; kUsage names all
// that are not. `option`: "--pin".
Result<PinList> read_pins(const std::vector<std::string>& words, const std::string& option,
                          bool jobs = false);

// "a,b,c" -> a, b, c; kUsage where one is empty.
Result<std::vector<std::string>> comma_list(const std::string& word, const std::string& option);

// The value of an option with its unit ("2s", "10 days"), more than 0. kUsage.
Result<double> quantity_option(const Arguments& arguments, const std::string& name,
                               std::string_view dimension);

// A count with a letter of thousands: "4096", "1M", "15T". kUsage where it is not a whole number of
// at least 1 and at most 1e18. Powers of ten, but for "Ki" and "Mi".
Result<std::int64_t> parse_count(const std::string& word, const std::string& where);

// All of it but the cluster, of which a call may name several.
Result<planner::Request> read_request(const Arguments& arguments, const std::string& cluster);

// --budget: true once it is over, counted from here; empty where none is given. kUsage.
Result<std::function<bool()>> read_budget(const Arguments& arguments);

// --risk, --fit-probability and --ties. kUsage.
Result<planner::DecisionRule> read_rule(const Arguments& arguments);

// Those of the three nouns that are files: a folder may have the name of a cluster, or be a model's
// and have the plan in it.
std::vector<std::string> files_read(const Arguments& arguments);

}  // namespace orrery::cli
