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

PipelineReplay replay_pipeline(PipelineSchedule schedule, std::int32_t stages, std::int32_t chunks,
                               std::int32_t micro_batches, const CellTimes& times) {
  const auto p = static_cast<std::size_t>(stages), v = static_cast<std::size_t>(chunks);
  const auto m = static_cast<std::size_t>(micro_batches);
  CHECK(times.forward.size() == p * v && times.backward.size() == p * v, "one time a cell");
  PipelineReplay result;
  result.end.assign(p, 0);
  result.busy.assign(p, 0);
  result.last_backward.assign(p, 0);
  std::vector<std::vector<Cell>> cells;
  for (std::int32_t s = 0; s < stages; ++s) {
    cells.push_back(cells_of(schedule, s, stages, chunks, micro_batches));
  }
  // When a cell's rows (or gradients) are there; below zero: not yet. By [backward][virtual stage].
  std::vector<double> there(2 * p * v * m, -1);
  const auto slot = [&](bool backward, std::size_t chunk, std::size_t stage, std::size_t mb) {
    return ((backward ? p * v : 0) + chunk * p + stage) * m + mb;
  };
  for (std::size_t b = 0; b < m; ++b) there[slot(false, 0, 0, b)] = 0;
  std::vector<std::size_t> next(p, 0);
  const auto move = [&](std::size_t s) {
    bool moved = false;
    while (next[s] < cells[s].size()) {
      const Cell& cell = cells[s][next[s]];
      const auto chunk = static_cast<std::size_t>(cell.chunk);
      const auto mb = static_cast<std::size_t>(cell.micro_batch);
      const double ready = there[slot(cell.backward, chunk, s, mb)];
      if (ready < 0) return moved;
      const double begin = std::max(ready, result.end[s]);
      const double time = (cell.backward ? times.backward : times.forward)[s * v + chunk];
      double end = begin + time;
      result.busy[s] += time;
      if (cell.backward) result.last_backward[s] = begin;
      const std::size_t stage = chunk * p + s;  // of all virtual ones
      const bool last = stage + 1 == p * v, first = stage == 0;
      const double sent = end + times.send;
      if (!cell.backward) {
        const std::size_t to = stage + 1;
        if (last) {
          there[slot(true, chunk, s, mb)] = end;
        } else {
          there[slot(false, to / p, to % p, mb)] = p == 1 ? end : sent;
        }
      } else if (!first) {
        const std::size_t to = stage - 1;
        there[slot(true, to / p, to % p, mb)] = p == 1 ? end : sent;
      }
      if (!times.beside && p > 1 && !(cell.backward ? first : last)) end = sent;
      result.end[s] = end;
      ++next[s];
      moved = true;
    }
    return moved;
  };
  for (bool moved = true; moved;) {
    moved = false;
    for (std::size_t s = 0; s < p; ++s) moved = move(s) || moved;
    for (std::size_t s = p; s-- > 0;) moved = move(s) || moved;
  }
  for (std::size_t s = 0; s < p; ++s) CHECK(next[s] == cells[s].size(), "a schedule that stops");
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
