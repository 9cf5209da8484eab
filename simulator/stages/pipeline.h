// Pipeline schedules as data, and their replay: what the ranks of all stages do with all
// micro-batches of a step, cell by cell.
#pragma once

#include <cstdint>
#include <vector>

#include "core/job.h"

namespace orrery::simulator {

// One cell: forward or backward of one micro-batch in one chunk of layers.
struct Cell {
  std::int32_t chunk = 0;  // of the rank's virtual stages
  std::int32_t micro_batch = 0;
  bool backward = false;
};

// The cells of one rank in the order that it runs them. GPipe: all forward, all backward (Huang
// 2018). 1F1B: as many forward as there are stages after it, then one of each in turns (Narayanan
// 2019). Interleaved: the same over groups of `stages` micro-batches through several chunks
// (Narayanan 2021): these are a multiple of `stages`, or fewer.
std::vector<Cell> cells_of(PipelineSchedule schedule, std::int32_t stage, std::int32_t stages,
                           std::int32_t chunks, std::int32_t micro_batches);

// Seconds of a cell, by [stage * chunks + chunk].
struct CellTimes {
  std::vector<double> forward, backward;
  double send = 0;     // of rows to the next stage, or gradients to the one before
  bool beside = true;  // a rank computes while it sends
};

struct PipelineReplay {
  std::vector<double> end;   // of each rank, from the beginning of the first
  std::vector<double> busy;  // that it computes
};

// The cells of all ranks in an order in which each comes after what it needs: made once for a shape
// of pipeline, replayed with the times of many jobs.
class Pipeline {
 public:
  Pipeline(PipelineSchedule schedule, std::int32_t stages, std::int32_t chunks,
           std::int32_t micro_batches);
  PipelineReplay replay(const CellTimes& times) const;

 private:
  struct Step {
    std::int32_t rank = 0;
    std::int32_t cell = 0;         // into CellTimes; backward ones after all forward ones
    std::int32_t in = 0, out = 0;  // slots of what the cell needs and makes
    bool sends = false;            // to another rank
  };
  std::int32_t stages_, cells_, slots_ = 0;
  std::vector<Step> steps_;
};

// The largest number of micro-batches of a chunk (counted over all chunks of the rank) that are
// between their forward and their backward at once.
std::int32_t in_flight(PipelineSchedule schedule, std::int32_t stage, std::int32_t stages,
                       std::int32_t chunks, std::int32_t micro_batches);

}  // namespace orrery::simulator
