// orrery-engine: what `orrery train` and `orrery doctor --probe` start under mpirun.
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <map>
#include <string>

#include "core/quantity.h"
#include "core/result.h"
#include "engine/comm/communicator.h"
#include "engine/cores.h"
#include "engine/run.h"
#include "engine/torch/probe.h"

namespace {

using orrery::Error;
using orrery::ErrorCode;
using orrery::Result;
using orrery::Status;

constexpr const char* kUsage =
    "usage: orrery-engine run PLAN --data FILE_OR_DIR --out RUN.db [--steps N] [--seed S]\n"
    "                         [--predicted-ns NS] [--no-trace] [--skip-limit N]\n"
    "                         [--device cpu|cuda|npu]\n"
    "                         [--stall-limit TIME] [--memory-limit BYTES]\n"
    "                         [--emulate-link RATE,LATENCY[,shared][,LANE_OR_GROUP...]]\n"
    "                         [--inject FAULT] (else $ORRERY_INJECT; docs/faults.md)\n"
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
      {"--data", 0},         {"--out", 0},          {"--steps", 0},      {"--seed", 0},
      {"--predicted-ns", 0}, {"--no-trace", 0},     {"--skip-limit", 0}, {"--stall-limit", 0},
      {"--memory-limit", 0}, {"--emulate-link", 0}, {"--inject", 0},     {"--device", 0}};
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

// A quantity above zero, `fallback` where it is not given.
Result<double> quantity(const Arguments& a, const std::string& name, const char* dimension,
                        double fallback, double largest) {
  const std::string words = text(a, name);
  if (words.empty()) return fallback;
  const auto value = orrery::parse_quantity(words, dimension, name);
  if (!value.ok()) return Error{ErrorCode::kUsage, value.error().problems};
  if (value.value() <= 0 || value.value() > largest) return usage(name + " is out of range");
  return value.value();
}

// What a run does where it goes wrong, and what is made to go wrong.
Status read_faults(const Arguments& a, orrery::engine::RunArguments& run) {
  TRY(const double stall, quantity(a, "--stall-limit", "s", 600, 1e6));
  TRY(const double memory, quantity(a, "--memory-limit", "bytes", 0, 1e18));
  TRY(const std::int64_t skips,
      number(a, "--skip-limit", run.skip_limit, std::numeric_limits<std::int32_t>::max()));
  if (skips == 0) return usage("--skip-limit is at least 1");
  run.stall_limit = std::chrono::nanoseconds(static_cast<std::int64_t>(stall * 1e9));
  run.memory_limit = static_cast<std::int64_t>(memory);
  run.skip_limit = static_cast<std::int32_t>(skips);
  if (a.options.count("--emulate-link") != 0) {
    TRY(run.link, orrery::engine::parse_link(text(a, "--emulate-link"), "--emulate-link"));
  }
  const char* environment = std::getenv("ORRERY_INJECT");
  std::string fault = text(a, "--inject");
  if (fault.empty() && environment != nullptr) fault = environment;
  if (!fault.empty()) {
    TRY(run.fault, orrery::engine::parse_fault(fault, "--inject"));
  }
  return orrery::Ok{};
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
  TRY_OK(read_faults(a, run));
  if (run.device == "cpu") (void)orrery::engine::hold_to_cores(orrery::engine::local_rank());
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
