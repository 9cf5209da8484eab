// See plan_request.h.
#include "cli/plan_request.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <filesystem>

#include "core/quantity.h"
#include "planner/jobs/request.h"

namespace orrery::cli {
namespace {

// True from `seconds` after now on.
std::function<bool()> after(double seconds) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  return [=] { return std::chrono::duration<double>(Clock::now() - start).count() >= seconds; };
}

}  // namespace

std::optional<PinList::value_type> split_pin(const std::string& word, const std::string& option,
                                             std::vector<Problem>& problems) {
  const std::size_t equals = word.find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == word.size()) {
    problems.push_back(
        {option, "'" + word + "' is not NAME=VALUE", "for example " + option + " ep=8"});
    return std::nullopt;
  }
  return PinList::value_type(word.substr(0, equals), word.substr(equals + 1));
}

Result<PinList> read_pins(const std::vector<std::string>& words, const std::string& option,
                          bool jobs) {
  std::vector<Problem> problems;
  PinList pins;
  const std::vector<std::string> known = jobs ? planner::jobs::pinnable() : planner::pinnable();
  for (const std::string& word : words) {
    const auto pin = split_pin(word, option, problems);
    if (!pin) continue;
    if (std::find(known.begin(), known.end(), pin->first) == known.end()) {
      std::string hint;
      if (const std::string near = nearest(pin->first, known); !near.empty()) {
        hint = "did you mean '" + near + "'?";
      } else {
        for (const std::string& name : known) hint += (hint.empty() ? "known: " : ", ") + name;
      }
      problems.push_back({option, "'" + pin->first + "' cannot be pinned", hint});
    }
    pins.push_back(*pin);
  }
  if (problems.empty() && jobs) {
    const Result<planner::jobs::Pins> read = planner::jobs::Pins::parse(pins);
    if (!read.ok()) problems = read.error().problems;
    // It speaks of --pin.
    for (Problem& problem : problems) problem.where = option + problem.where.substr(5);
  }
  if (problems.empty()) return pins;
  return Error{ErrorCode::kUsage, std::move(problems)};
}

Result<std::vector<std::string>> comma_list(const std::string& word, const std::string& option) {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at <= word.size();) {
    const std::size_t comma = std::min(word.find(',', at), word.size());
    parts.push_back(word.substr(at, comma - at));
    if (parts.back().empty()) {
      return Error::of(ErrorCode::kUsage, option, "'" + word + "' has an empty part",
                       "write the values with one comma between them");
    }
    at = comma + 1;
  }
  return parts;
}

Result<double> quantity_option(const Arguments& arguments, const std::string& name,
                               std::string_view dimension) {
  auto value = parse_quantity(arguments.text(name), dimension, "--" + name);
  if (!value.ok()) return Error{ErrorCode::kUsage, value.error().problems};
  if (value.value() > 0) return value;
  return Error::of(ErrorCode::kUsage, "--" + name,
                   "'" + arguments.text(name) + "' is not more than 0", "");
}

Result<std::int64_t> parse_count(const std::string& word, const std::string& where) {
  double number = 0;
  const char* const end = word.data() + word.size();
  const auto [rest, error] = std::from_chars(word.data(), end, number);
  const std::string unit(rest, end);
  double factor = -1;
  for (const auto& [name, times] :
       std::vector<std::pair<std::string, double>>{{"", 1},
                                                   {"k", 1e3},
                                                   {"K", 1e3},
                                                   {"M", 1e6},
                                                   {"B", 1e9},
                                                   {"T", 1e12},
                                                   {"Ki", 1024},
                                                   {"Mi", 1024 * 1024}}) {
    if (unit == name) factor = times;
  }
  const double value = number * factor;
  if (error == std::errc() && value >= 1 && value <= 1e18 && value == std::floor(value)) {
    return static_cast<std::int64_t>(value);
  }
  return Error::of(ErrorCode::kUsage, where, "'" + word + "' is not a whole number of at least 1",
                   "write 4096, 64Ki, 1M, 15T (k, M, B, T: powers of 1000; Ki, Mi: of 1024)");
}

Result<planner::Request> read_request(const Arguments& arguments, const std::string& cluster) {
  planner::Request request;
  TRY(request.pins, read_pins(arguments.all("pin"), "--pin"));
  TRY(const std::int64_t runners, arguments.integer("runners-up", 0, 1000));
  request.runners_up = static_cast<int>(runners);
  TRY(request.stop, read_budget(arguments));
  std::vector<Problem> problems;
  ErrorCode code = ErrorCode::kInvalid;
  take(load_model(arguments.text("model")), request.model, problems, code);
  take(load_cluster(cluster), request.cluster, problems, code);
  take(load_workload(arguments.text("workload")), request.workload, problems, code);
  if (!problems.empty()) return Error{code, std::move(problems)};
  return request;
}

Result<std::function<bool()>> read_budget(const Arguments& arguments) {
  if (!arguments.has("budget")) return std::function<bool()>();
  TRY(const double seconds, quantity_option(arguments, "budget", "s"));
  return after(seconds);
}

Result<planner::DecisionRule> read_rule(const Arguments& arguments) {
  planner::DecisionRule rule;
  std::vector<Problem> problems;
  const auto word = [&](const char* name, const char* first, const char* second) {
    const std::string text = arguments.text(name);
    if (text != first && text != second) {
      problems.push_back({std::string("--") + name, "'" + text + "' is not a value of it",
                          std::string("write '") + first + "' or '" + second + "'"});
    }
    return text == first;
  };
  rule.risk = word("risk", "expected", "p90") ? planner::Risk::kExpected : planner::Risk::kP90;
  rule.simplest = word("ties", "simplest", "fastest");
  const std::string odds = arguments.text("fit-probability");
  const char* const end = odds.data() + odds.size();
  const auto [rest, error] = std::from_chars(odds.data(), end, rule.fit_probability);
  if (error != std::errc() || rest != end ||
      !(rule.fit_probability >= 0 && rule.fit_probability < 1)) {
    problems.push_back({"--fit-probability", "'" + odds + "' is not a probability below 1",
                        "for example 0.99; 0: a replay that fits is enough"});
  }
  if (problems.empty()) return rule;
  return Error{ErrorCode::kUsage, std::move(problems)};
}

std::vector<std::string> files_read(const Arguments& arguments) {
  std::vector<std::string> files, words = arguments.all("cluster");
  const std::string model = arguments.text("model");
  words.insert(words.begin(), {model, model + "/config.json"});
  words.push_back(arguments.text("workload"));
  for (const char* name : {"import", "stack", "parameters", "versus"}) {
    if (arguments.has(name)) words.push_back(arguments.text(name));
  }
  for (const std::string& path : words) {
    std::error_code ec;
    if (std::filesystem::is_regular_file(path, ec)) files.push_back(path);
  }
  return files;
}

}  // namespace orrery::cli
