// Parsing by CLI11, with this house's exit codes, help and "did you mean".
#include "cli/command.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <deque>

#include "core/quantity.h"

namespace orrery::cli {
namespace {

constexpr std::size_t kHelpColumn = 24;

// "-o,--out" -> "out"
std::string name_of(const Option& option) {
  const std::size_t dashes = option.names.rfind("--");
  CHECK(dashes != std::string_view::npos, "an option without a long name");
  return std::string(option.names.substr(dashes + 2));
}

std::vector<std::string> long_names(const Command& command) {
  std::vector<std::string> names = {"--json", "--help"};
  for (const Option& option : command.options) names.push_back("--" + name_of(option));
  return names;
}

// What CLI11 fills: addresses must stay.
struct Targets {
  std::deque<std::vector<std::string>> values;
  std::deque<bool> flags;
  std::vector<CLI::Option*> positionals, options;
};

void declare(const Command& command, CLI::App& app, Targets& targets) {
  for (const Positional& positional : command.positionals) {
    std::vector<std::string>& values = targets.values.emplace_back();
    const std::string name(positional.name);
    // A vector would take every word that follows.
    const auto take_one = [&values](const std::string& word) { values = {word}; };
    CLI::Option* added = positional.many ? app.add_option(name, values)
                                         : app.add_option_function<std::string>(name, take_one);
    targets.positionals.push_back(added);
  }
  for (const Option& option : command.options) {
    const std::string names(option.names);
    if (option.value.empty()) {
      targets.values.emplace_back();
      targets.options.push_back(app.add_flag(names, targets.flags.emplace_back()));
      continue;
    }
    CLI::Option* added = app.add_option(names, targets.values.emplace_back());
    added->expected(1)->allow_extra_args(false);
    added->multi_option_policy(option.many ? CLI::MultiOptionPolicy::TakeAll
                                           : CLI::MultiOptionPolicy::Throw);
    targets.options.push_back(added);
  }
}

std::string usage_hint(const Command& command) {
  return "`orrery " + std::string(command.name) + " --help` shows what there is";
}

Problem unknown_word(const Command& command, const std::string& word) {
  const std::string where = "orrery " + std::string(command.name);
  if (!word.starts_with('-')) {
    return {where, "unexpected argument '" + word + "'", usage_hint(command)};
  }
  const std::string option = word.substr(0, word.find('='));
  const std::string near = nearest(option, long_names(command));
  return {where, "unknown option '" + option + "'",
          near.empty() ? usage_hint(command) : "did you mean '" + near + "'?"};
}

Result<Arguments> collect(const Command& command, const Targets& targets,
                          std::vector<Problem> problems) {
  const std::string where = "orrery " + std::string(command.name);
  const std::string hint =
      "for example: " + std::string(command.example.substr(0, command.example.find('\n')));
  Arguments arguments;
  for (std::size_t i = 0; i < command.positionals.size(); ++i) {
    const Positional& positional = command.positionals[i];
    const std::vector<std::string>& values = targets.values[i];
    if (positional.required && values.empty()) {
      problems.push_back({where, "missing " + std::string(positional.name), hint});
    }
    arguments.set(std::string(positional.name), values, !values.empty());
  }
  for (std::size_t i = 0; i < command.options.size(); ++i) {
    const Option& option = command.options[i];
    const bool given = targets.options[i]->count() > 0;
    std::vector<std::string> values = targets.values[command.positionals.size() + i];
    if (!given && option.required) {
      problems.push_back({where, "missing --" + name_of(option), hint});
    }
    if (!given && !option.fallback.empty()) values = {std::string(option.fallback)};
    arguments.set(name_of(option), std::move(values), given);
  }
  if (!problems.empty()) return Error{ErrorCode::kUsage, std::move(problems)};
  return arguments;
}

std::string padded(std::string text) {
  text.resize(std::max(kHelpColumn, text.size() + 2), ' ');
  return text;
}

}  // namespace

bool Arguments::has(std::string_view name) const {
  const auto found = entries_.find(name);
  CHECK(found != entries_.end(), "a command asks for an option it does not declare");
  return found->second.given;
}

std::vector<std::string> Arguments::all(std::string_view name) const {
  const auto found = entries_.find(name);
  CHECK(found != entries_.end(), "a command asks for an option it does not declare");
  return found->second.values;
}

std::string Arguments::text(std::string_view name) const {
  const std::vector<std::string> values = all(name);
  return values.empty() ? "" : values.back();
}

Result<std::int64_t> Arguments::integer(std::string_view name, std::int64_t min,
                                        std::int64_t max) const {
  const std::string word = text(name);
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error == std::errc() && end == word.data() + word.size() && value >= min && value <= max) {
    return value;
  }
  return Error::of(ErrorCode::kUsage, "--" + std::string(name),
                   "'" + word + "' is not a number of its range",
                   "a whole number from " + std::to_string(min) + " to " + std::to_string(max));
}

void Arguments::set(std::string name, std::vector<std::string> values, bool given) {
  entries_[std::move(name)] = {std::move(values), given};
}

Result<Arguments> parse_arguments(const Command& command, const std::vector<std::string>& words) {
  CLI::App app;
  app.set_help_flag();
  app.allow_extras();
  Targets targets;
  declare(command, app, targets);
  bool json = false;
  app.add_flag("--json", json);
  try {
    app.parse(std::vector<std::string>(words.rbegin(), words.rend()));  // CLI11 takes them reversed
  } catch (const CLI::ParseError& error) {
    return Error::of(ErrorCode::kUsage, "orrery " + std::string(command.name), error.what(),
                     usage_hint(command));
  }
  std::vector<Problem> problems;
  bool after_unknown = false;  // what follows an unknown option may be its value
  for (const std::string& word : app.remaining()) {
    const bool option = word.starts_with('-');
    if (option || !after_unknown) problems.push_back(unknown_word(command, word));
    after_unknown = option;
  }
  TRY(Arguments arguments, collect(command, targets, std::move(problems)));
  arguments.set("json", {}, json);
  return arguments;
}

std::string help_of(const Command& command) {
  std::string usage = "orrery " + std::string(command.name);
  std::string rows;
  for (const Positional& positional : command.positionals) {
    const std::string name = std::string(positional.name) + (positional.many ? "..." : "");
    usage += positional.required ? " " + name : " [" + name + "]";
    rows += "  " + padded(name) + std::string(positional.help) + "\n";
  }
  std::string options;
  for (const Option& option : command.options) {
    const std::string value = option.value.empty() ? "" : " " + std::string(option.value);
    if (option.required) usage += " --" + name_of(option) + value;
    std::string names(option.names);
    if (const std::size_t comma = names.find(','); comma != std::string::npos) {
      names.insert(comma + 1, " ");
    }
    options += "  " + padded(names + value) + std::string(option.help);
    if (!option.fallback.empty()) options += " (default: " + std::string(option.fallback) + ")";
    options += "\n";
  }
  options += "  " + padded("--json") + "one JSON document on stdout instead of text\n";
  options += "  " + padded("-h, --help") + "this page\n";
  std::string out = std::string(command.about) + "\n\nusage: " + usage + " [options]\n\n";
  if (!rows.empty()) out += rows + "\n";
  return out + options + "\nexample:\n  " + [&] {
    std::string example(command.example);
    for (std::size_t at = 0; (at = example.find('\n', at)) != std::string::npos; at += 3) {
      example.replace(at, 1, "\n  ");
    }
    return example;
  }() + "\n";
}

}  // namespace orrery::cli
