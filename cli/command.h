// What a command of `orrery` is: its words as data, and the function that runs it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "cli/output.h"
#include "core/result.h"

namespace orrery::cli {

struct Option {
  std::string_view names;     // "-o,--out": the last one is what Arguments calls it, without dashes
  std::string_view value;     // placeholder of its value; empty: a flag
  std::string_view help;      // one line
  std::string_view fallback;  // its value where it is not given
  bool required = false;
  bool many = false;  // may be given several times
};

struct Positional {
  std::string_view name;
  std::string_view help;
  bool required = true;
  bool many = false;  // takes all that follow
};

// The words of one call, as text.
class Arguments {
 public:
  bool has(std::string_view name) const;  // given on the command line
  bool flag(std::string_view name) const { return has(name); }
  // The value, else the fallback, else "".
  std::string text(std::string_view name) const;
  std::vector<std::string> all(std::string_view name) const;
  // A whole number in [min, max]; kUsage for anything else.
  Result<std::int64_t> integer(std::string_view name, std::int64_t min, std::int64_t max) const;

  void set(std::string name, std::vector<std::string> values, bool given);

 private:
  struct Entry {
    std::vector<std::string> values;
    bool given = false;
  };
  std::map<std::string, Entry, std::less<>> entries_;
};

struct Command {
  std::string_view name;
  std::string_view summary;  // one line, for `orrery --help`
  std::string_view about;    // what it does, for its own --help; may have several lines
  std::string_view example;  // command lines that run
  std::vector<Positional> positionals;
  std::vector<Option> options;  // --json and --help come by themselves
  // Returns the exit code: 0, or 1 where the answer is no.
  Result<int> (*run)(const Arguments& arguments, Output& out);
};

// The words after the command's name. kUsage names every unknown option and its nearest.
Result<Arguments> parse_arguments(const Command& command, const std::vector<std::string>& words);

std::string help_of(const Command& command);

}  // namespace orrery::cli
