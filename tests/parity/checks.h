// What program parity holds against each other: the events of a run and of its simulation, or of
// the program itself. Each adds test failures of its own.
#pragma once

#include <cstdint>

#include "core/program/program.h"
#include "core/trace_events.h"

namespace orrery::parity {

// The events of one rank and step; collectives are numbered from the step's first (in a run the
// numbers go on over steps).
TraceEvents of_step(const TraceEvents& events, const Program& program, std::int32_t rank,
                    std::int32_t step);

// `run` is of one rank and step, as of_step() gives it; `sim` may hold all ranks.
void expect_same_structure(const TraceEvents& run, const TraceEvents& sim, std::int32_t rank,
                           const Role& role);
// Returns how many collectives had bytes that depend on routing.
int expect_same_bytes(const TraceEvents& run, const TraceEvents& sim, std::int32_t rank,
                      const Role& role);
void expect_same_peaks(const TraceEvents& run, const TraceEvents& sim, std::int32_t rank);
// The peak of all memory within a share of the simulated, the peak of each class within another;
// that of workspace also within some bytes: a block's declared one holds within 64 KiB (design,
// section 4), which counts where plans are small.
inline constexpr std::int64_t kWorkspaceSlack = 64 * 1024;
void expect_peaks_within(const TraceEvents& run, const TraceEvents& sim, std::int32_t rank,
                         double all, double one_class,
                         std::int64_t workspace_slack = kWorkspaceSlack);

// Experts of the rank that got no row, over all layers and micro-batches.
int empty_experts(const Binding& binding, const Role& role);

}  // namespace orrery::parity
