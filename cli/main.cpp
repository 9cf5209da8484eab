// The binary `orrery`: the table of commands, and what is common to all of them.
#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/files.h"
#include "cli/output.h"
#include "core/quantity.h"

namespace orrery::cli {
namespace {

constexpr const char* kVersion = ORRERY_VERSION;

const std::vector<const Command*>& commands() {
  static const std::vector<const Command*> rows = {
      &plan_command(),      &simulate_command(), &train_command(),  &compare_command(),
      &calibrate_command(), &analyze_command(),  &export_command(), &explain_command(),
      &list_command(),      &check_command(),    &doctor_command(), &validate_command(),
  };
  return rows;
}

std::string general_help() {
  std::string text =
      "orrery: a working model of a training cluster, and the engine that follows it\n\n"
      "usage: orrery COMMAND [options]\n\n";
  for (const Command* command : commands()) {
    std::string name(command->name);
    name.resize(12, ' ');
    text += "  " + name + std::string(command->summary) + "\n";
  }
  return text +
         "\n  --version   the version\n"
         "  --help      this page; `orrery COMMAND --help` explains one command\n\n"
         "exit codes: 0 ok, 1 the answer is no, 2 usage, 3 invalid input, 4 infeasible,\n"
         "            5 I/O or a missing part, 6 a run failed, 70 a bug, 130 interrupted\n\n"
         "example:\n"
         "  orrery plan --model qwen3-moe-10m --cluster local-cpu --workload demo-local\n";
}

Error unknown_command(const std::string& word) {
  std::vector<std::string> names;
  for (const Command* command : commands()) names.emplace_back(command->name);
  const std::string near = nearest(word, names);
  return Error::of(
      ErrorCode::kUsage, "orrery",
      (word.starts_with('-') ? "unknown option '" : "unknown command '") + word + "'",
      near.empty() ? "`orrery --help` lists the commands" : "did you mean 'orrery " + near + "'?");
}

// True where one of the words before "--" asks for help.
bool asks_help(const std::vector<std::string>& words) {
  const auto end = std::find(words.begin(), words.end(), "--");
  return std::any_of(words.begin(), end,
                     [](const std::string& word) { return word == "--help" || word == "-h"; });
}

Result<int> run(const std::vector<std::string>& words, Output& out) {
  if (words.empty()) {
    out.note(general_help());
    return static_cast<int>(ErrorCode::kUsage);
  }
  const std::string& name = words.front();
  if (name == "--help" || name == "-h" || name == "help") {
    Output(false).line(general_help());
    return 0;
  }
  if (name == "--version") {
    out.line(std::string("orrery ") + kVersion);
    out.document(versioned().set("version", kVersion));
    return 0;
  }
  const auto found = std::find_if(commands().begin(), commands().end(),
                                  [&](const Command* command) { return command->name == name; });
  if (found == commands().end()) return unknown_command(name);
  const std::vector<std::string> rest(words.begin() + 1, words.end());
  if (asks_help(rest)) {
    Output(false).line(help_of(**found));
    return 0;
  }
  TRY(const Arguments arguments, parse_arguments(**found, rest));
  return (*found)->run(arguments, out);
}

// Who reads --json gets one document of a failure, too.
Json error_json(const Error& error) {
  return versioned().set("error", Json::object()
                                      .set("code", static_cast<int>(error.code))
                                      .set("problems", problems_json(error)));
}

int main_of(const std::vector<std::string>& words) {
  exit_on_signals();
  Output out(std::find(words.begin(), words.end(), "--json") != words.end());
  const Result<int> code = run(words, out);
  if (!code.ok()) {
    if (!out.documented()) out.document(error_json(code.error()));
    out.error(code.error());
    return static_cast<int>(code.error().code);
  }
  if (const Status flushed = out.flush(); !flushed.ok()) {
    out.error(flushed.error());
    return static_cast<int>(flushed.error().code);
  }
  return code.value();
}

}  // namespace
}  // namespace orrery::cli

int main(int argc, char** argv) {
  return orrery::cli::main_of(std::vector<std::string>(argv + 1, argv + argc));
}
