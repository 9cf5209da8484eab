// From a plan to its simulation, and from that to a trace: what simulate, train and compare share.
#pragma once

#include <string>
#include <vector>

#include "core/plan.h"
#include "core/program/program.h"
#include "core/result.h"
#include "simulator/simulator.h"
#include "tracer/trace_db.h"

namespace orrery::cli {

struct Simulated {
  Plan plan;
  Program program;
  simulator::Simulation result;
};

// Lowers and verifies; a program that does not verify is a bug (exit code 70).
Program lower_verified(const Plan& plan);

// `bindings` as simulator::Options has them.
Result<Simulated> simulate_plan(Plan plan, std::vector<Binding> bindings, bool events);

// The same simulation gives the same bytes. Appears by rename only; kIo.
Status write_simulation(const Simulated& simulated, const std::string& path);

// The same as a trace to read, in a file of its own that is gone with the reader. kIo.
Result<TraceReader> open_simulated(const Simulated& simulated);

// What a trace says of the run it holds; `created` is empty.
RunInfo run_info(RunKind kind, const Plan& plan, const Program& program);

// Every rank's binding of one step of a measured run (`step` < 0: the last that all ranks have).
// kInvalid where the run is of another program.
Result<std::vector<Binding>> read_bindings(const std::string& path, const Program& program,
                                           std::int64_t step);

}  // namespace orrery::cli
