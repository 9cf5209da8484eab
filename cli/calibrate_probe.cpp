// See calibrate_probe.h. Each part is a call of this program, and its file the proof that it was
// done: a call that was broken off goes on where it stopped.
#include "cli/calibrate_probe.h"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>

#include "cli/engine_launch.h"
#include "cli/files.h"
#include "cli/process.h"
#include "core/cluster.h"

namespace orrery::cli {
namespace {

namespace fs = std::filesystem;

// A plan whose ops show what others do not: dense and routed, whole and sharded, run again or not.
struct Trial {
  const char* name;
  const char* model;
  std::vector<std::string> pins;
};

const std::vector<Trial>& trials() {
  static const std::vector<Trial> rows = {
      {"dense", "qwen3-dense-5m", {}},
      {"dense-sharded", "qwen3-dense-5m", {"replicate_d=1", "micro_batch=1"}},
      {"moe", "dots1-10m", {"replicate_d=1"}},
      {"moe-again", "dots1-10m", {"ep=1", "recompute_layers=all"}},
  };
  return rows;
}

// Words that a model can learn from: the same bytes everywhere.
Status write_text(const std::string& path) {
  std::string text;
  std::uint64_t state = 1;
  while (text.size() < 256 * 1024) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    static constexpr const char* kWords[] = {"plan ",  "step ", "rank ", "node ",
                                             "shard ", "lane ", "op ",   "span\n"};
    text += kWords[state >> 61U];
  }
  return write_whole(path, text);
}

class Prober {
 public:
  Prober(const ProbeJob& job, Output& out) : job_(job), out_(out), parts_(job.out + ".parts") {}

  Result<Probed> run() {
    TRY_OK(find_engine());
    TRY_OK(find_launcher());
    std::error_code ec;
    fs::create_directories(parts_, ec);
    if (ec) return Error::of(ErrorCode::kIo, parts_, "cannot be made: " + ec.message());
    TRY_OK(write_text(place("text")));
    Probed probed;
    TRY(probed.cluster, prior());
    for (const Trial& trial : trials()) {
      TRY(const bool legal, try_out(trial, probed.cluster));
      if (legal) probed.runs.push_back(place(std::string(trial.name) + ".db"));
    }
    return probed;
  }

 private:
  std::string place(const std::string& name) const { return parts_ + "/" + name; }

  // One line a part: done before, or how long it took.
  Result<ChildEnd> call(const std::string& what, const std::vector<std::string>& words) {
    ++part_;
    out_.note(fmt::format("{}/{} {}", part_, 1 + trials().size(), what));
    std::error_code ec;
    ChildSpec spec;
    spec.command = {fs::read_symlink("/proc/self/exe", ec).string()};
    spec.command.insert(spec.command.end(), words.begin(), words.end());
    std::string said;
    spec.on_out = [](std::string_view) {};
    spec.on_err = [&](std::string_view line) { said += std::string(line) + "\n"; };
    spec.straggle.reset();
    TRY(const ChildEnd end, run_child(spec));
    if (end.interrupted) return Error::of(ErrorCode::kInterrupted, "", "interrupted");
    if (end.code != 0) out_.note(said);
    return end;
  }

  bool done(const std::string& what, const std::string& file) {
    std::error_code ec;
    if (!fs::exists(file, ec)) return false;
    ++part_;
    out_.note(fmt::format("{}/{} {}: done before", part_, 1 + trials().size(), what));
    return true;
  }

  Result<std::string> prior() {
    if (!job_.cluster.empty()) {
      TRY(const Cluster cluster, load_cluster(job_.cluster));
      TRY_OK(write_whole(place("cluster.json"), to_json(cluster).dump() + "\n"));
      ++part_;
      return place("cluster.json");
    }
    const std::string file = place("probe.json");
    if (done("probe", file)) return file;
    TRY(const ChildEnd end,
        call("probe", {"doctor", "--probe", "--ranks", std::to_string(job_.ranks), "-o", file}));
    if (end.code == 0) return file;
    return Error::of(ErrorCode::kRun, "orrery calibrate", "the probe failed (see above)");
  }

  // False where no plan of this cluster is so.
  Result<bool> try_out(const Trial& trial, const std::string& cluster) {
    const std::string plan = place(std::string(trial.name) + ".json");
    const std::string run = place(std::string(trial.name) + ".db");
    if (done(trial.name, run)) return true;
    std::vector<std::string> words = {"plan",       "--model",    trial.model, "--cluster", cluster,
                                      "--workload", "demo-local", "-o",        plan};
    for (const std::string& pin : trial.pins) {
      words.push_back("--pin");
      words.push_back(pin);
    }
    TRY(const ChildEnd planned, call(std::string(trial.name) + ": plan", words));
    if (planned.code == static_cast<int>(ErrorCode::kInfeasible)) return false;
    if (planned.code != 0) {
      return Error::of(static_cast<ErrorCode>(planned.code), "orrery calibrate",
                       std::string("no plan of the trial ") + trial.name);
    }
    --part_;
    TRY(const ChildEnd end,
        call(std::string(trial.name) + ": run",
             {"train", plan, "--data", place("text"), "--steps", "6", "-o", run}));
    if (end.code == 0) return true;
    fs::remove(run);
    return Error::of(ErrorCode::kRun, "orrery calibrate",
                     std::string("the trial ") + trial.name + " failed (see above)",
                     "the same command goes on from here");
  }

  const ProbeJob& job_;
  Output& out_;
  const std::string parts_;
  std::size_t part_ = 0;
};

}  // namespace

Result<Probed> probe_by_running(const ProbeJob& job, Output& out) {
  return Prober(job, out).run();
}

void remove_parts_of(const std::string& out) {
  std::error_code ec;
  fs::remove_all(out + ".parts", ec);
}

}  // namespace orrery::cli
