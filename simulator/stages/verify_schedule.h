// The verifier of schedules: what the cells of all ranks must keep, whichever schedule made them.
#pragma once

#include <cstdint>
#include <vector>

#include "core/job.h"
#include "simulator/stages/pipeline.h"

namespace orrery::simulator {

struct PipelineShape {
  PipelineSchedule schedule = PipelineSchedule::kOneForwardOneBackward;
  std::int32_t stages = 1, chunks = 1, micro_batches = 1;
};

// The cells of every rank, as cells_of makes them.
std::vector<std::vector<Cell>> schedule_of(const PipelineShape& shape);

// All violations in a fixed order, with rank and cell; empty when sound.
//
//   cell_once               a micro-batch that does not go once forward and once backward (in one
//                           cell or two) through a chunk of a rank, or a cell of none
//   backward_after_forward  backward before its own forward, gradients of weights before those of
//                           inputs, or a forward beside its own backward
//   order_possible          ranks that wait for each other for ever
//   in_flight               more or fewer micro-batches held than the schedule's paper says, or
//                           than in_flight() says
std::vector<Violation> verify(const PipelineShape& shape,
                              const std::vector<std::vector<Cell>>& ranks);

}  // namespace orrery::simulator
