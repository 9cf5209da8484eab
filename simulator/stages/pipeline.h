// Pipeline schedules as data, and their replay: what the ranks of all stages do with all
// micro-batches of a step, cell by cell.
#pragma once

#include <cstdint>
#include <vector>

#include "core/job.h"

namespace orrery::simulator {

// Backward is one cell, or two: gradients of the input, which the stage before waits for, and of
// the weights, which nobody does.
enum class CellKind : std::uint8_t { kForward, kBackward, kInputGradient, kWeightGradient };
const char* name_of(CellKind kind);

// One cell: a part of the pass of one micro-batch through one chunk of layers.
struct Cell {
  std::int32_t chunk = 0;  // of the rank's virtual stages
  std::int32_t micro_batch = 0;
  CellKind kind = CellKind::kForward;
  bool with_next =
      false;  // forward: runs beside the next cell, the backward of another micro-batch
  bool backward() const { return kind != CellKind::kForward; }
  bool operator==(const Cell&) const = default;
};

// The cells of one rank in the order that it runs them.
//   GPipe         all forward, all backward (Huang 2018)
//   1F1B          as many forward as there are stages after it, then one of each in turns
//                 (Narayanan 2019)
//   interleaved   the same over groups of `stages` micro-batches through several chunks (Narayanan
//                 2021): these are a multiple of `stages`, or fewer
//   zero bubble   ZB-H1 (Qi 2023, arXiv 2401.10241): 1F1B, gradients of weights put off by as many
//                 micro-batches as there are stages before it; one chunk
//   overlapped    interleaved with one more forward at the beginning, so that each forward has a
//                 backward that does not wait for it beside it (Megatron-Core's combined 1F1B; the
//                 steady part of DualPipe, DeepSeek-V3, arXiv 2412.19437)
std::vector<Cell> cells_of(PipelineSchedule schedule, std::int32_t stage, std::int32_t stages,
                           std::int32_t chunks, std::int32_t micro_batches);

// Forward cells of a rank before its first backward. The k-th backward follows the forward that
// comes so many later, beside it where the schedule is overlapped.
std::int32_t warm_up(PipelineSchedule schedule, std::int32_t stage, std::int32_t stages,
                     std::int32_t chunks, std::int32_t micro_batches);

// Seconds of a cell, by [stage * chunks + chunk].
struct CellTimes {
  std::vector<double> forward, backward;
  // Of backward, for the gradients of weights; empty where no schedule parts it.
  std::vector<double> weight;
  // Of forward and backward, exchanges that a cell beside can hide; empty: none.
  std::vector<double> forward_hides, backward_hides;
  double send = 0;     // of rows to the next stage, or gradients to the one before
  bool beside = true;  // a rank computes while it sends
};

struct PipelineReplay {
  std::vector<double> end;     // of each rank, from the beginning of the first
  std::vector<double> busy;    // that it computes
  std::vector<double> hidden;  // less than its cells one by one
};

// When a cell ran, seconds from the beginning of the first.
struct CellSpan {
  std::int32_t rank = 0;
  Cell cell;
  double begin = 0, end = 0;
};

// The cells of all ranks in an order in which each comes after what it needs: made once for a shape
// of pipeline, replayed with the times of many jobs.
class Pipeline {
 public:
  Pipeline(PipelineSchedule schedule, std::int32_t stages, std::int32_t chunks,
           std::int32_t micro_batches);
  // With `spans`, also when each cell ran, ranks mixed; two that run beside each other have one
  // time.
  PipelineReplay replay(const CellTimes& times, std::vector<CellSpan>* spans = nullptr) const;

 private:
  struct Step {
    std::int32_t rank = 0;
    std::int32_t cell = 0;  // into CellTimes; kinds one after the other
    std::int32_t micro_batch = 0;
    std::int32_t in = 0, out = 0;  // slots of what the cell needs and makes
    bool sends = false;            // to another rank
    bool with_next = false;        // beside the next step, of the same rank
  };
  CellSpan span_of(const Step& step, double begin, double end) const;
  std::int32_t stages_, cells_, slots_ = 0;
  std::vector<Step> steps_;
};

// The largest number of micro-batches of a chunk (counted over all chunks of the rank) that are
// between their forward and the end of their backward at once.
std::int32_t in_flight(PipelineSchedule schedule, std::int32_t stage, std::int32_t stages,
                       std::int32_t chunks, std::int32_t micro_batches);

}  // namespace orrery::simulator
