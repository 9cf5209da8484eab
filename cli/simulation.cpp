// See simulation.h.
#include "cli/simulation.h"

#include <fmt/format.h>

#include <map>
#include <utility>

#include "cli/files.h"
#include "cli/inputs.h"
#include "core/program/lower.h"
#include "core/program/verify.h"

namespace orrery::cli {
namespace {

std::string text_of(const std::vector<Finding>& findings) {
  std::string text = "the lowered program does not verify:";
  for (const Finding& finding : findings) text += "\n  " + finding.rule + ": " + finding.message;
  return text;
}

Status fill(TraceWriter& writer, const Simulated& simulated) {
  TRY_OK(writer.write_program(simulated.program));
  return writer.write(simulated.result.events);
}

}  // namespace

Program lower_verified(const Plan& plan) {
  Program program = lower(plan);
  const std::vector<Finding> findings = verify(program);
  CHECK(findings.empty(), text_of(findings));
  return program;
}

Result<Simulated> simulate_plan(Plan plan, std::vector<Binding> bindings, bool events) {
  Program program = lower_verified(plan);
  simulator::Options options;
  options.bindings = std::move(bindings);
  options.events = events;
  TRY(simulator::Simulation result, simulator::simulate(plan, program, options));
  return Simulated{std::move(plan), std::move(program), std::move(result)};
}

RunInfo run_info(RunKind kind, const Plan& plan, const Program& program) {
  RunInfo info;
  info.kind = kind;
  info.program_hash = program.hash();
  info.stack = "orrery";
  info.plan_json = to_json(plan).dump(-1);
  info.inputs = Json::object()
                    .set("model", plan.model.sha256)
                    .set("cluster", plan.cluster.sha256)
                    .set("workload", plan.workload.sha256)
                    .set("plan", plan.sha256)
                    .dump(-1);
  return info;
}

Status write_simulation(const Simulated& simulated, const std::string& path) {
  TRY_OK(check_output(path));
  const SignalShelter shelter;
  TRY(TraceWriter writer,
      TraceWriter::create(path, run_info(RunKind::kSim, simulated.plan, simulated.program)));
  Status status = fill(writer, simulated);
  if (!status.ok()) {
    writer.discard();
    return status;
  }
  return writer.finish(RunStatus::kOk);
}

Result<TraceReader> open_simulated(const Simulated& simulated) {
  const SignalShelter shelter;
  TRY(const TemporaryFolder folder, TemporaryFolder::create());
  const std::string file = folder.path() + "/sim.db";
  TRY_OK(write_simulation(simulated, file));
  return TraceReader::open(file);  // an open file outlives its folder
}

Result<std::vector<Binding>> read_bindings(const std::string& path, const Program& program,
                                           std::int64_t step) {
  TRY(TraceReader trace, open_trace(path));
  if (trace.run().program_hash != program.hash()) {
    return Error::of(ErrorCode::kInvalid, path,
                     fmt::format("is a run of program {:016x}, but the plan's is {:016x}",
                                 trace.run().program_hash, program.hash()),
                     "bind a run of the same plan");
  }
  TRY(std::vector<Binding> all, trace.bindings());
  std::map<std::int64_t, std::vector<Binding>> by_step;
  for (Binding& binding : all) by_step[binding.step].push_back(std::move(binding));
  const auto world = static_cast<std::size_t>(program.world);
  for (auto found = by_step.rbegin(); found != by_step.rend(); ++found) {
    const bool wanted = step < 0 || found->first == step;
    if (wanted && found->second.size() == world) return std::move(found->second);
    if (wanted && trace.run().kind == RunKind::kSim) {
      return Error::of(ErrorCode::kInvalid, path,
                       fmt::format("holds representatives only, {} of {} ranks: the simulation of "
                                   "a large world replays those that stand for the others",
                                   found->second.size(), world),
                       "bind a measured run, or simulate without --bind");
    }
  }
  const std::string which = step < 0 ? "a step" : fmt::format("step {}", step);
  return Error::of(ErrorCode::kInvalid, path,
                   fmt::format("does not hold the bindings of all {} ranks for {}", world, which),
                   "`orrery analyze " + path + " steps` shows which steps there are");
}

}  // namespace orrery::cli
