// Schedules of Huang 2018 (GPipe), Narayanan 2019 (1F1B) and 2021 (interleaved). See pipeline.h.
#include "simulator/stages/pipeline.h"

#include <algorithm>

#include "core/check.h"

namespace orrery::simulator {
namespace {

// Micro-batches go through the chunks in groups of `stages`: group, chunk, micro-batch. The k-th
// forward (or, with the chunks turned around, backward) of a rank.
struct Order {
  std::int32_t stages, chunks, micro_batches;
  Cell at(std::int32_t k, bool backward) const {
    const std::int32_t group_cells = stages * chunks;
    const std::int32_t group = k / group_cells;
    const std::int32_t first = group * stages;
    const std::int32_t width = std::min(stages, micro_batches - first);
    const std::int32_t inside = k - group * group_cells;
    const std::int32_t chunk = inside / width;
    return {backward ? chunks - 1 - chunk : chunk, first + inside % width, backward};
  }
};

// Forward cells before the first backward.
std::int32_t warm_up(PipelineSchedule schedule, std::int32_t stage, std::int32_t stages,
                     std::int32_t chunks, std::int32_t micro_batches) {
  const std::int32_t all = chunks * micro_batches;
  switch (schedule) {
    case PipelineSchedule::kGpipe:
      return all;
    case PipelineSchedule::kOneForwardOneBackward:
      return std::min(all, stages - stage - 1);
    case PipelineSchedule::kInterleaved:
      if (chunks == 1) return std::min(all, stages - stage - 1);
      // As many again as all later chunks need; one group alone has no steady part.
      if (micro_batches <= stages) return all;
      return std::min(all, 2 * (stages - stage - 1) + (chunks - 1) * stages);
  }
  CHECK(false, "a schedule of no kind");
}

}  // namespace

std::vector<Cell> cells_of(PipelineSchedule schedule, std::int32_t stage, std::int32_t stages,
                           std::int32_t chunks, std::int32_t micro_batches) {
  CHECK(stages > 0 && stage >= 0 && stage < stages && chunks > 0 && micro_batches > 0,
        "a schedule of nothing");
  CHECK(schedule != PipelineSchedule::kInterleaved || chunks == 1 || micro_batches <= stages ||
            micro_batches % stages == 0,
        "an interleaved schedule with a part of a group");
  const Order order{schedule == PipelineSchedule::kInterleaved ? stages : micro_batches, chunks,
                    micro_batches};
  const std::int32_t all = chunks * micro_batches;
  const std::int32_t warm = warm_up(schedule, stage, stages, chunks, micro_batches);
  std::vector<Cell> cells;
  cells.reserve(static_cast<std::size_t>(2 * all));
  for (std::int32_t k = 0; k < warm; ++k) cells.push_back(order.at(k, false));
  for (std::int32_t k = warm; k < all; ++k) {
    cells.push_back(order.at(k, false));
    cells.push_back(order.at(k - warm, true));
  }
  for (std::int32_t k = all - warm; k < all; ++k) cells.push_back(order.at(k, true));
  return cells;
}

Pipeline::Pipeline(PipelineSchedule schedule, std::int32_t stages, std::int32_t chunks,
                   std::int32_t micro_batches)
    : stages_(stages), cells_(stages * chunks) {
  std::vector<std::vector<Cell>> cells;
  for (std::int32_t s = 0; s < stages; ++s) {
    cells.push_back(cells_of(schedule, s, stages, chunks, micro_batches));
  }
  // A slot holds when rows (or gradients) for a virtual stage are there. The last is written by
  // cells that nobody waits for, the one before it is there from the beginning.
  const std::int32_t free_in = 2 * cells_ * micro_batches, free_out = free_in + 1;
  slots_ = free_out + 1;
  const auto slot = [&](bool backward, std::int32_t stage, std::int32_t mb) {
    if (!backward && stage == 0) return free_in;
    if (backward && stage < 0) return free_out;
    return ((backward ? cells_ : 0) + stage) * micro_batches + mb;
  };
  std::vector<bool> there(static_cast<std::size_t>(slots_), false);
  there[static_cast<std::size_t>(free_in)] = true;
  std::vector<std::size_t> next(static_cast<std::size_t>(stages), 0);
  const auto advance = [&](std::int32_t rank) {
    std::size_t& at = next[static_cast<std::size_t>(rank)];
    const std::vector<Cell>& own = cells[static_cast<std::size_t>(rank)];
    const std::size_t before = at;
    for (; at < own.size(); ++at) {
      const Cell& c = own[at];
      const std::int32_t stage = c.chunk * stages + rank;  // of all virtual ones
      const bool turns = !c.backward && stage + 1 == cells_;
      Step step;
      step.rank = rank;
      step.cell = (c.backward ? cells_ : 0) + rank * chunks + c.chunk;
      step.in = slot(c.backward, stage, c.micro_batch);
      step.out = turns ? slot(true, stage, c.micro_batch)
                       : slot(c.backward, stage + (c.backward ? -1 : 1), c.micro_batch);
      step.sends = stages > 1 && !turns && step.out != free_out;
      if (!there[static_cast<std::size_t>(step.in)]) break;
      there[static_cast<std::size_t>(step.out)] = true;
      steps_.push_back(step);
    }
    return at > before;
  };
  for (bool moved = true; moved;) {
    moved = false;
    for (std::int32_t s = 0; s < stages; ++s) moved = advance(s) || moved;
  }
  for (std::int32_t s = 0; s < stages; ++s) {
    const auto r = static_cast<std::size_t>(s);
    CHECK(next[r] == cells[r].size(), "a schedule that stops");
  }
}

PipelineReplay Pipeline::replay(const CellTimes& times) const {
  const auto cells = static_cast<std::size_t>(cells_);
  CHECK(times.forward.size() == cells && times.backward.size() == cells, "one time a cell");
  std::vector<double> duration = times.forward;
  duration.insert(duration.end(), times.backward.begin(), times.backward.end());
  std::vector<double> there(static_cast<std::size_t>(slots_), 0);
  PipelineReplay result;
  result.end.assign(static_cast<std::size_t>(stages_), 0);
  result.busy.assign(static_cast<std::size_t>(stages_), 0);
  for (const Step& step : steps_) {
    double& end = result.end[static_cast<std::size_t>(step.rank)];
    const double time = duration[static_cast<std::size_t>(step.cell)];
    const double done = std::max(end, there[static_cast<std::size_t>(step.in)]) + time;
    const double arrives = step.sends ? done + times.send : done;
    there[static_cast<std::size_t>(step.out)] = arrives;
    end = times.beside ? done : arrives;
    result.busy[static_cast<std::size_t>(step.rank)] += time;
  }
  return result;
}

std::int32_t in_flight(PipelineSchedule schedule, std::int32_t stage, std::int32_t stages,
                       std::int32_t chunks, std::int32_t micro_batches) {
  std::int32_t now = 0, most = 0;
  for (const Cell& cell : cells_of(schedule, stage, stages, chunks, micro_batches)) {
    now += cell.backward ? -1 : 1;
    most = std::max(most, now);
  }
  return most;
}

}  // namespace orrery::simulator
