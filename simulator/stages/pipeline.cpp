// Schedules of Huang 2018 (GPipe), Narayanan 2019 (1F1B) and 2021 (interleaved), Qi 2023 (zero
// bubble). See pipeline.h.
#include "simulator/stages/pipeline.h"

#include <algorithm>
#include <array>

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
    return {backward ? chunks - 1 - chunk : chunk, first + inside % width,
            backward ? CellKind::kBackward : CellKind::kForward};
  }
};

bool takes_chunks(PipelineSchedule schedule) {
  return schedule == PipelineSchedule::kInterleaved || schedule == PipelineSchedule::kOverlapped;
}

// Backward in two cells: the gradients of weights come `late` micro-batches behind those of inputs.
std::vector<Cell> part_backward(const std::vector<Cell>& cells, std::int32_t late) {
  std::vector<Cell> out, waiting;
  std::size_t done = 0;
  for (Cell cell : cells) {
    if (!cell.backward()) {
      out.push_back(cell);
      continue;
    }
    cell.kind = CellKind::kInputGradient;
    out.push_back(cell);
    cell.kind = CellKind::kWeightGradient;
    waiting.push_back(cell);
    if (waiting.size() > done + static_cast<std::size_t>(late)) out.push_back(waiting[done++]);
  }
  out.insert(out.end(), waiting.begin() + static_cast<std::ptrdiff_t>(done), waiting.end());
  return out;
}

}  // namespace

std::int32_t warm_up(PipelineSchedule schedule, std::int32_t stage, std::int32_t stages,
                     std::int32_t chunks, std::int32_t micro_batches) {
  const std::int32_t all = chunks * micro_batches;
  switch (schedule) {
    case PipelineSchedule::kGpipe:
      return all;
    case PipelineSchedule::kOneForwardOneBackward:
    case PipelineSchedule::kZeroBubble:
      return std::min(all, stages - stage - 1);
    case PipelineSchedule::kOverlapped:
      return std::min(
          all, 1 + warm_up(PipelineSchedule::kInterleaved, stage, stages, chunks, micro_batches));
    case PipelineSchedule::kInterleaved:
      if (chunks == 1) return std::min(all, stages - stage - 1);
      // As many again as all later chunks need; one group alone has no steady part.
      if (micro_batches <= stages) return all;
      return std::min(all, 2 * (stages - stage - 1) + (chunks - 1) * stages);
  }
  CHECK(false, "a schedule of no kind");
}

const char* name_of(CellKind kind) {
  constexpr std::array<const char*, 4> names = {"forward", "backward", "input gradient",
                                                "weight gradient"};
  return names[static_cast<std::size_t>(kind)];
}

std::vector<Cell> cells_of(PipelineSchedule schedule, std::int32_t stage, std::int32_t stages,
                           std::int32_t chunks, std::int32_t micro_batches) {
  CHECK(stages > 0 && stage >= 0 && stage < stages && chunks > 0 && micro_batches > 0,
        "a schedule of nothing");
  CHECK(!takes_chunks(schedule) || chunks == 1 || micro_batches <= stages ||
            micro_batches % stages == 0,
        "an interleaved schedule with a part of a group");
  const bool overlapped = schedule == PipelineSchedule::kOverlapped;
  const Order order{takes_chunks(schedule) ? stages : micro_batches, chunks, micro_batches};
  const std::int32_t all = chunks * micro_batches;
  const std::int32_t warm = warm_up(schedule, stage, stages, chunks, micro_batches);
  std::vector<Cell> cells;
  cells.reserve(static_cast<std::size_t>(2 * all));
  for (std::int32_t k = 0; k < warm; ++k) cells.push_back(order.at(k, false));
  for (std::int32_t k = warm; k < all; ++k) {
    cells.push_back(order.at(k, false));
    cells.back().with_next = overlapped;
    cells.push_back(order.at(k - warm, true));
  }
  for (std::int32_t k = all - warm; k < all; ++k) cells.push_back(order.at(k, true));
  return schedule == PipelineSchedule::kZeroBubble ? part_backward(cells, stage) : cells;
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
  const auto step_of = [&](const Cell& c, std::int32_t rank) {
    const std::int32_t stage = c.chunk * stages + rank;  // of all virtual ones
    const bool turns = !c.backward() && stage + 1 == cells_;
    Step step;
    step.rank = rank;
    step.micro_batch = c.micro_batch;
    step.with_next = c.with_next;
    step.cell = static_cast<std::int32_t>(c.kind) * cells_ + rank * chunks + c.chunk;
    if (c.kind == CellKind::kWeightGradient) {  // behind its rank's own gradient of the input
      step.in = free_in;
      step.out = free_out;
      return step;
    }
    step.in = slot(c.backward(), stage, c.micro_batch);
    step.out = turns ? slot(true, stage, c.micro_batch)
                     : slot(c.backward(), stage + (c.backward() ? -1 : 1), c.micro_batch);
    step.sends = stages > 1 && !turns && step.out != free_out;
    return step;
  };
  std::vector<bool> there(static_cast<std::size_t>(slots_), false);
  there[static_cast<std::size_t>(free_in)] = true;
  std::vector<std::size_t> next(static_cast<std::size_t>(stages), 0);
  const auto advance = [&](std::int32_t rank) {
    std::size_t& at = next[static_cast<std::size_t>(rank)];
    const std::vector<Cell>& own = cells[static_cast<std::size_t>(rank)];
    const std::size_t before = at;
    while (at < own.size()) {
      const std::size_t count = own[at].with_next ? 2 : 1;
      std::array<Step, 2> steps;
      bool ready = true;
      for (std::size_t i = 0; i < count; ++i) {
        steps[i] = step_of(own.at(at + i), rank);
        ready = ready && there[static_cast<std::size_t>(steps[i].in)];
      }
      if (!ready) break;
      for (std::size_t i = 0; i < count; ++i) {
        there[static_cast<std::size_t>(steps[i].out)] = true;
        steps_.push_back(steps[i]);
      }
      at += count;
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

namespace {

// By kind, one after the other.
std::vector<double> durations_of(const CellTimes& times, std::size_t cells) {
  CHECK(times.forward.size() == cells && times.backward.size() == cells, "one time a cell");
  CHECK(times.weight.empty() || times.weight.size() == cells, "one time of weights a cell");
  std::vector<double> duration = times.forward;
  duration.insert(duration.end(), times.backward.begin(), times.backward.end());
  for (std::size_t i = 0; i < cells; ++i) {
    duration.push_back(times.backward[i] - (times.weight.empty() ? 0 : times.weight[i]));
  }
  duration.insert(duration.end(), times.weight.begin(), times.weight.end());
  duration.resize(4 * cells, 0);
  return duration;
}

// What a forward cell and a backward cell beside each other take less than one after the other:
// exchanges of each, as far as the other computes meanwhile.
double hidden_of(const CellTimes& t, std::size_t forward, std::size_t backward) {
  const double f = t.forward_hides.empty() ? 0 : t.forward_hides[forward];
  const double b = t.backward_hides.empty() ? 0 : t.backward_hides[backward];
  return std::min(f, t.backward[backward] - b) + std::min(b, t.forward[forward] - f);
}

}  // namespace

CellSpan Pipeline::span_of(const Step& step, double begin, double end) const {
  const std::int32_t chunks = cells_ / stages_, cell = step.cell % cells_;
  const auto kind = static_cast<CellKind>(step.cell / cells_);
  return {step.rank, {cell % chunks, step.micro_batch, kind, step.with_next}, begin, end};
}

PipelineReplay Pipeline::replay(const CellTimes& times, std::vector<CellSpan>* spans) const {
  const auto cells = static_cast<std::size_t>(cells_);
  const std::vector<double> duration = durations_of(times, cells);
  std::vector<double> there(static_cast<std::size_t>(slots_), 0);
  PipelineReplay result;
  result.end.assign(static_cast<std::size_t>(stages_), 0);
  result.busy.assign(static_cast<std::size_t>(stages_), 0);
  result.hidden.assign(static_cast<std::size_t>(stages_), 0);
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    const Step& step = steps_[i];
    const auto rank = static_cast<std::size_t>(step.rank);
    double& end = result.end[rank];
    double time = duration[static_cast<std::size_t>(step.cell)];
    double begin = std::max(end, there[static_cast<std::size_t>(step.in)]);
    const Step* beside = step.with_next ? &steps_[++i] : nullptr;
    if (beside != nullptr) {
      const auto cell = static_cast<std::size_t>(beside->cell);
      const double hidden = hidden_of(times, static_cast<std::size_t>(step.cell), cell - cells);
      begin = std::max(begin, there[static_cast<std::size_t>(beside->in)]);
      time += duration[cell] - hidden;
      result.hidden[rank] += hidden;
    }
    const double done = begin + time;
    if (spans != nullptr) {
      spans->push_back(span_of(step, begin, done));
      if (beside != nullptr) spans->push_back(span_of(*beside, begin, done));
    }
    const double arrives = step.sends ? done + times.send : done;
    there[static_cast<std::size_t>(step.out)] = arrives;
    end = times.beside ? done : arrives;
    if (beside != nullptr) {
      const double back = beside->sends ? done + times.send : done;
      there[static_cast<std::size_t>(beside->out)] = back;
      if (!times.beside) end = std::max(end, back);
    }
    result.busy[rank] += time;
  }
  return result;
}

std::int32_t in_flight(PipelineSchedule schedule, std::int32_t stage, std::int32_t stages,
                       std::int32_t chunks, std::int32_t micro_batches) {
  std::int32_t now = 0, most = 0;
  for (const Cell& cell : cells_of(schedule, stage, stages, chunks, micro_batches)) {
    // What was kept goes with the last part of backward.
    if (cell.kind != CellKind::kInputGradient) now += cell.backward() ? -1 : 1;
    most = std::max(most, now);
  }
  return most;
}

}  // namespace orrery::simulator
