// See inputs.h.
#include "cli/inputs.h"

#include "cli/files.h"
#include "cli/output.h"
#include "core/job_json.h"
#include "core/json.h"

namespace orrery::cli {

Result<Plan> open_plan(const std::string& path) {
  const Result<bool> trace = is_trace(path);
  if (trace.ok() && trace.value()) {
    return Error::of(ErrorCode::kInvalid, path, "is a trace, and this command wants a plan",
                     "`" + shell_line({"orrery", "analyze", path}) + "` reads it");
  }
  const Result<Json> json = Json::load(path);
  if (json.ok() && json.value().is_object() && json.value().find("job") != nullptr) {
    return Error::of(ErrorCode::kInvalid, path,
                     "is a job over all axes, and this command wants a plan of the engine",
                     "`" + shell_line({"orrery", "simulate", path}) + "` reads it");
  }
  return load_plan(path);
}

Result<Job> open_job(const std::string& path) {
  const Result<Json> json = Json::load(path);
  if (json.ok() && json.value().is_object() && json.value().find("layout") != nullptr) {
    return Error::of(ErrorCode::kInvalid, path,
                     "is a plan of the engine, and this wants a job over all axes",
                     "`orrery plan --for simulate -o FILE` writes one");
  }
  return load_job(path);
}

Result<TraceReader> open_trace(const std::string& path) {
  const Result<bool> trace = is_trace(path);
  if (trace.ok() && !trace.value()) {
    const Result<Json> json = Json::load(path);
    if (json.ok() && json.value().is_object() && json.value().find("layout") != nullptr) {
      return Error::of(
          ErrorCode::kInvalid, path, "is a plan, and this command wants a trace",
          "`" + shell_line({"orrery", "simulate", path, "-o", "sim.db"}) + "` makes one");
    }
  }
  return TraceReader::open(path);
}

}  // namespace orrery::cli
