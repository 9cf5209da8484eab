// orrery-engine: what `orrery train` and `orrery doctor --probe` start under mpirun.
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <map>
#include <string>

#include "core/result.h"
#include "engine/comm/communicator.h"
#include "engine/run.h"
#include "engine/torch/probe.h"

namespace {

using orrery::Error;
using orrery::ErrorCode;
using orrery::Result;
using orrery::Status;

constexpr const char* kUsage =
    "usage: orrery-engine run PLAN --data FILE_OR_DIR --out RUN.db [--steps N] [--seed S]\n"
    "                         [--predicted-ns NS] [--no-trace] [--device cpu|cuda|npu]\n"
    "       orrery-engine probe --out CLUSTER.json\n"
    "Each is started by mpirun, one process a rank; `orrery train PLAN` and `orrery doctor\n"
    "--probe` do that. Example: mpirun -np 4 orrery-engine run plan.json --data text --out "
    "run.db\n";

Error usage(const std::string& message) {
  return Error::of(ErrorCode::kUsage, "orrery-engine", message, "run orrery-engine --help");
}

struct Arguments {
  std::string command, plan;
  std::map<std::string, std::string> options;
};

Result<Arguments> parse(int argc, char** argv) {
  Arguments a;
  if (argc < 2) return usage("no command");
  a.command = argv[1];
  for (int i = 2; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--no-trace") {
      a.options[word] = "yes";
    } else if (word.rfind("--", 0) == 0) {
      if (i + 1 >= argc) return usage(word + " needs a value");
      a.options[word] = argv[++i];
    } else if (a.plan.empty() && a.command == "run") {
      a.plan = word;
    } else {
      return usage("unexpected argument " + word);
    }
  }
  const std::map<std::string, int> known = {
      {"--data", 0},         {"--out", 0},      {"--steps", 0}, {"--seed", 0},
      {"--predicted-ns", 0}, {"--no-trace", 0}, {"--device", 0}};
  for (const auto& [name, value] : a.options) {
    if (known.count(name) == 0) return usage("unknown option " + name);
  }
  return a;
}

Result<std::int64_t> number(const Arguments& a, const std::string& name, std::int64_t fallback,
                            std::int64_t largest = std::numeric_limits<std::int64_t>::max()) {
  const auto found = a.options.find(name);
  if (found == a.options.end()) return fallback;
  const std::string& digits = found->second;
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size() || value < 0 ||
      value > largest) {
    return usage(name + " takes an integer from 0 to " + std::to_string(largest) + ", got " +
                 digits);
  }
  return value;
}

std::string text(const Arguments& a, const std::string& name) {
  const auto found = a.options.find(name);
  return found == a.options.end() ? "" : found->second;
}

Status execute(int argc, char** argv) {
  TRY(const Arguments a, parse(argc, argv));
  if (a.command == "probe") {
    if (text(a, "--out").empty()) return usage("probe needs --out");
    return orrery::engine::probe_machine(text(a, "--out"));
  }
  if (a.command != "run") return usage("unknown command " + a.command);
  orrery::engine::RunArguments run;
  run.plan = a.plan;
  run.data = text(a, "--data");
  run.out = text(a, "--out");
  if (run.plan.empty() || run.data.empty() || run.out.empty()) {
    return usage("run needs a plan, --data and --out");
  }
  TRY(const std::int64_t steps, number(a, "--steps", 10, std::numeric_limits<std::int32_t>::max()));
  TRY(const std::int64_t seed, number(a, "--seed", 1));
  TRY(run.predicted_ns, number(a, "--predicted-ns", 0));
  run.steps = static_cast<std::int32_t>(steps);
  run.seed = static_cast<std::uint64_t>(seed);
  if (!text(a, "--device").empty()) run.device = text(a, "--device");
  if (run.device != "cpu" && run.device != "cuda" && run.device != "npu") {
    return usage("--device takes cpu, cuda or npu");
  }
  run.trace = a.options.count("--no-trace") == 0;
  return orrery::engine::run_rank(run);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && (std::string(argv[1]) == "--help" || std::string(argv[1]) == "help")) {
    std::fputs(kUsage, stdout);
    return 0;
  }
  // A file that may not grow is an error of its write, not the end of the process.
  std::signal(SIGXFSZ, SIG_IGN);
  const Status status = execute(argc, argv);
  if (!status.ok()) {
    std::fputs(status.error().text().c_str(), stderr);
    std::fflush(stderr);
  }
  orrery::engine::mpi_finish();
  return status.ok() ? 0 : static_cast<int>(status.error().code);
}
