// orrery doctor: what this machine has for planning and training; --probe measures it.
#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <filesystem>

#include "cli/commands.h"
#include "cli/engine_launch.h"
#include "cli/files.h"
#include "cli/table.h"
#include "core/cluster.h"
#include "core/configs.h"
#include "core/quantity.h"

namespace orrery::cli {
namespace {

namespace fs = std::filesystem;

struct Finding {
  std::string what;
  bool good = true;
  std::string value;
  std::string remark;  // why it matters, what to do
};

// Cores that this process may use: a container may have fewer than the machine.
int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
}

Finding cores() {
  const int count = usable_cores();
  return {"cores", true, fmt::format("{}", count), "ranks share them"};
}

Finding memory() {
  const auto page = static_cast<std::int64_t>(::sysconf(_SC_PAGESIZE));
  const Bytes all(page * static_cast<std::int64_t>(::sysconf(_SC_PHYS_PAGES)));
  const Bytes free(page * static_cast<std::int64_t>(::sysconf(_SC_AVPHYS_PAGES)));
  return {"memory", true, format_bytes(all), format_bytes(free) + " unused"};
}

Finding configs() {
  const std::size_t count = list_configs("models").size();
  if (count == 0) return {"configs", false, "not found", "set ORRERY_CONFIGS to the folder"};
  return {"configs", true, fmt::format("{} models", count), "orrery list models"};
}

Finding part(const std::string& what, const Result<std::string>& found) {
  if (found.ok()) return {what, true, found.value(), ""};
  return {what, false, "missing", found.error().problems.front().hint};
}

// Which BLAS libtorch would load. libopenblas0-openmp obeys OMP_NUM_THREADS, the pthread flavour
// only OPENBLAS_NUM_THREADS, and the reference BLAS is some twenty times slower.
Finding blas() {
  std::error_code ec;
  for (const char* link : {"/etc/alternatives/libblas.so.3-x86_64-linux-gnu",
                           "/etc/alternatives/libblas.so.3-aarch64-linux-gnu"}) {
    const fs::path target = fs::read_symlink(link, ec);
    if (ec) continue;
    const std::string path = target.string();
    if (path.find("openblas-openmp") != std::string::npos) return {"BLAS", true, path, ""};
    if (path.find("openblas") != std::string::npos) {
      return {"BLAS", true, path, "it obeys OPENBLAS_NUM_THREADS only; `orrery train` sets that"};
    }
    return {"BLAS", false, path, "slow: apt-get install libopenblas0-openmp"};
  }
  return {"BLAS", false, "not found", "apt-get install libopenblas0-openmp"};
}

Result<int> examine(Output& out) {
  const std::vector<Finding> findings = {cores(),
                                         memory(),
                                         configs(),
                                         part("engine", find_engine()),
                                         part("launcher", find_launcher()),
                                         blas()};
  TextTable table({{""}, {""}, {""}, {""}});
  Json rows = Json::array();
  bool trains = true;
  for (const Finding& finding : findings) {
    trains = trains && (finding.good || finding.what == "BLAS");
    table.row({finding.good ? "ok" : "--", finding.what, finding.value, finding.remark});
    rows.push(Json::object()
                  .set("what", finding.what)
                  .set("ok", finding.good)
                  .set("value", finding.value)
                  .set("remark", finding.remark));
  }
  out.line(table.text(0));
  out.line(trains ? "\nThis machine plans, simulates and trains."
                  : "\nThis machine plans and simulates; to train it lacks what is marked --.");
  out.document(versioned().set("can_train", trains).set("findings", std::move(rows)));
  if (trains) {
    out.next({"orrery", "doctor", "--probe", "-o", "local.json"}, "measure it as a cluster");
  }
  return 0;
}

void print_cluster(const Cluster& cluster, Output& out) {
  out.heading(fmt::format("{}: {} ranks on {} cores", cluster.name, cluster.devices,
                          cluster.cores_per_node));
  const DeviceProfile& device = cluster.device;
  TextTable table({{""}, {""}});
  table.row(
      {"a rank", fmt::format("{} fp32, {} bf16 FLOP/s", format_count(device.peak_fp32.value()),
                             format_count(device.peak_bf16.value()))});
  table.row({"memory", fmt::format("{} at {}", format_bytes(device.memory),
                                   format_rate(device.memory_bandwidth))});
  for (const LinkTier& tier : cluster.tiers) {
    table.row({"link " + tier.name,
               fmt::format("{}, {}", format_rate(tier.bandwidth), format_seconds(tier.latency))});
  }
  out.line(table.text());
}

Result<int> probe(const Arguments& arguments, Output& out) {
  const std::string path = arguments.text("out");
  if (path.empty()) {
    return Error::of(ErrorCode::kUsage, "orrery doctor", "--probe needs a place for its result",
                     "orrery doctor --probe -o local.json");
  }
  TRY(const std::int64_t ranks, arguments.integer("ranks", 1, 1024));
  TRY_OK(check_output(path));
  TRY(const std::string engine, find_engine());
  TRY(const std::string launcher, find_launcher());
  TRY(const TemporaryFolder folder, TemporaryFolder::create());
  const std::string file = folder.path() + "/" + fs::path(path).filename().string();
  TRY(const EngineEnd end,
      run_engine(launch_line(launcher, engine, ranks, {"probe", "--out", file}), out));
  if (end.child.interrupted) return Error::of(ErrorCode::kInterrupted, "", "interrupted");
  if (end.child.code != 0) {
    return Error::of(static_cast<ErrorCode>(exit_code_of(end.child)), "orrery doctor",
                     fmt::format("the probe failed with code {}", end.child.code));
  }
  TRY(const std::string text, read_file(file));
  TRY(const Cluster cluster, parse_cluster(text, path, 0));
  TRY_OK(write_whole(path, text));
  print_cluster(cluster, out);
  out.document(versioned().set("file", path).set("cluster", to_json(cluster)));
  out.note("wrote " + path);
  out.next(
      {"orrery", "plan", "--model", "qwen3-moe-10m", "--cluster", path, "--workload", "demo-local"},
      "plan for this machine");
  return 0;
}

Result<int> run(const Arguments& arguments, Output& out) {
  if (arguments.flag("probe")) return probe(arguments, out);
  for (const char* name : {"out", "ranks"}) {
    if (!arguments.has(name)) continue;
    return Error::of(ErrorCode::kUsage, "orrery doctor",
                     std::string("--") + name + " belongs to --probe",
                     "orrery doctor --probe -o local.json");
  }
  return examine(out);
}

}  // namespace

const Command& doctor_command() {
  static const Command command = {
      "doctor",
      "what this machine has, and a measured cluster file of it",
      "Says what this machine has for planning and training, and what is slow and why. With\n"
      "--probe, ranks measure it and a cluster file comes out.",
      "orrery doctor\n"
      "orrery doctor --probe --ranks 4 -o local.json",
      {},
      {{"--probe", "", "measure; needs the engine", ""},
       {"--ranks", "N", "ranks that share the cores while it is measured", "4"},
       {"-o,--out", "FILE", "the cluster file of --probe", ""}},
      run};
  return command;
}

}  // namespace orrery::cli
