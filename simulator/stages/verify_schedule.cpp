// Rules over schedules. See verify_schedule.h.
#include "simulator/stages/verify_schedule.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <tuple>

namespace orrery::simulator {
namespace {

std::string words_of(const Cell& c) {
  return std::string(name_of(c.kind)) + " of micro-batch " + std::to_string(c.micro_batch) +
         " in chunk " + std::to_string(c.chunk);
}

class Verifier {
 public:
  Verifier(const PipelineShape& shape, const std::vector<std::vector<Cell>>& ranks)
      : shape_(shape), ranks_(ranks) {}

  std::vector<Violation> run() {
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      once(r);
      after_forward(r);
      held(r);
    }
    if (ranks_.size() != static_cast<std::size_t>(shape_.stages)) {
      note("cell_once", 0, std::to_string(ranks_.size()) + " ranks are here");
    } else if (std::none_of(found_.begin(), found_.end(), [](const Violation& v) {
                 return v.rule == std::string("cell_once");
               })) {
      possible();
    }
    return std::move(found_);
  }

 private:
  using Place = std::tuple<std::int32_t, std::int32_t, CellKind>;

  void note(const char* rule, std::size_t rank, const std::string& reason) {
    found_.push_back({rule, "rank " + std::to_string(rank) + ": " + reason});
  }
  void once(std::size_t rank);
  void after_forward(std::size_t rank);
  void held(std::size_t rank);
  void possible();
  std::int32_t papers_in_flight(std::int32_t stage) const;

  const PipelineShape& shape_;
  const std::vector<std::vector<Cell>>& ranks_;
  std::vector<Violation> found_;
};

void Verifier::once(std::size_t rank) {
  std::map<Place, int> count;
  for (const Cell& c : ranks_[rank]) {
    if (c.chunk < 0 || c.chunk >= shape_.chunks || c.micro_batch < 0 ||
        c.micro_batch >= shape_.micro_batches) {
      note("cell_once", rank, words_of(c) + " is none of the step");
      continue;
    }
    if (++count[{c.chunk, c.micro_batch, c.kind}] == 2) {
      note("cell_once", rank, words_of(c) + " runs twice");
    }
  }
  for (std::int32_t chunk = 0; chunk < shape_.chunks; ++chunk) {
    for (std::int32_t mb = 0; mb < shape_.micro_batches; ++mb) {
      const auto has = [&](CellKind kind) { return count.count({chunk, mb, kind}) > 0; };
      const std::string where =
          " of micro-batch " + std::to_string(mb) + " in chunk " + std::to_string(chunk);
      if (!has(CellKind::kForward)) note("cell_once", rank, "no forward" + where);
      const bool input = has(CellKind::kInputGradient), weight = has(CellKind::kWeightGradient);
      const bool sound = has(CellKind::kBackward) ? !input && !weight : input && weight;
      if (!sound) note("cell_once", rank, "not one backward" + where);
    }
  }
}

void Verifier::after_forward(std::size_t rank) {
  std::set<Place> done;
  const std::vector<Cell>& cells = ranks_[rank];
  const auto ran = [&](const Cell& c, CellKind kind) {
    return done.count({c.chunk, c.micro_batch, kind}) > 0;
  };
  for (std::size_t i = 0; i < cells.size(); ++i) {
    const Cell& c = cells[i];
    if (c.backward() && !ran(c, CellKind::kForward)) {
      note("backward_after_forward", rank, words_of(c) + " comes before its forward");
    }
    if (c.kind == CellKind::kWeightGradient && !ran(c, CellKind::kInputGradient)) {
      note("backward_after_forward", rank, words_of(c) + " comes before the input's");
    }
    done.insert({c.chunk, c.micro_batch, c.kind});
    if (!c.with_next) continue;
    const bool pair = !c.backward() && i + 1 < cells.size() &&
                      cells[i + 1].kind == CellKind::kBackward && !cells[i + 1].with_next;
    const bool own =
        pair && cells[i + 1].chunk == c.chunk && cells[i + 1].micro_batch == c.micro_batch;
    if (!pair || own) {
      note("backward_after_forward", rank, words_of(c) + " has no other's backward beside it");
    }
  }
}

// What the schedules' papers say is held: Huang 2018, section 2.3; Narayanan 2021, section 2.2
// (Megatron's warm-up and the one that runs); Qi 2023, section 2.3 (ZB-H1: as 1F1B's first stage).
std::int32_t Verifier::papers_in_flight(std::int32_t stage) const {
  const std::int32_t p = shape_.stages, v = shape_.chunks, m = shape_.micro_batches;
  const std::int32_t interleaved = v == 1 ? p - stage : 2 * (p - stage - 1) + (v - 1) * p + 1;
  const std::int32_t steady = v > 1 && m <= p ? v * m : interleaved;
  switch (shape_.schedule) {
    case PipelineSchedule::kGpipe:
      return v * m;
    case PipelineSchedule::kOneForwardOneBackward:
      return std::min(m, p - stage);
    case PipelineSchedule::kZeroBubble:
      return std::min(m, p);
    case PipelineSchedule::kInterleaved:
      return std::min(v * m, steady);
    case PipelineSchedule::kOverlapped:
      return std::min(v * m, steady + 1);
  }
  return 0;
}

void Verifier::held(std::size_t rank) {
  std::int32_t now = 0, most = 0;
  for (const Cell& c : ranks_[rank]) {
    if (c.kind == CellKind::kForward) ++now;
    if (c.kind == CellKind::kBackward || c.kind == CellKind::kWeightGradient) --now;
    most = std::max(most, now);
  }
  const auto stage = static_cast<std::int32_t>(rank);
  const std::int32_t paper = papers_in_flight(stage);
  const std::int32_t said =
      in_flight(shape_.schedule, stage, shape_.stages, shape_.chunks, shape_.micro_batches);
  if (most != paper || most != said) {
    note("in_flight", rank,
         "holds " + std::to_string(most) + " micro-batches, the paper says " +
             std::to_string(paper) + ", in_flight() " + std::to_string(said));
  }
}

// Runs what can run until nothing can. Rows go up the virtual stages, gradients down.
void Verifier::possible() {
  const std::int32_t stages = shape_.stages * shape_.chunks;
  std::set<std::tuple<std::int32_t, std::int32_t, bool>> there;  // virtual stage, micro-batch
  std::vector<std::size_t> next(ranks_.size(), 0);
  const auto stage_of = [&](std::size_t rank, const Cell& c) {
    return c.chunk * shape_.stages + static_cast<std::int32_t>(rank);
  };
  const auto ready = [&](std::size_t rank, const Cell& c) {
    const std::int32_t stage = stage_of(rank, c);
    if (c.kind == CellKind::kForward) {
      return stage == 0 || there.count({stage - 1, c.micro_batch, false}) > 0;
    }
    if (c.kind == CellKind::kWeightGradient) return true;
    if (stage + 1 == stages) return there.count({stage, c.micro_batch, false}) > 0;
    return there.count({stage + 1, c.micro_batch, true}) > 0;
  };
  for (bool moved = true; moved;) {
    moved = false;
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      while (next[r] < ranks_[r].size()) {
        const std::size_t at = next[r], count = ranks_[r][at].with_next ? 2 : 1;
        bool can = true;
        for (std::size_t i = at; i < at + count; ++i) can = can && ready(r, ranks_[r][i]);
        if (!can) break;
        for (std::size_t i = at; i < at + count; ++i) {
          const Cell& c = ranks_[r][i];
          if (c.kind == CellKind::kWeightGradient) continue;
          there.insert({stage_of(r, c), c.micro_batch, c.backward()});
        }
        next[r] += count;
        moved = true;
      }
    }
  }
  for (std::size_t r = 0; r < ranks_.size(); ++r) {
    if (next[r] == ranks_[r].size()) continue;
    note("order_possible", r, words_of(ranks_[r][next[r]]) + " waits for ever");
  }
}

}  // namespace

std::vector<std::vector<Cell>> schedule_of(const PipelineShape& s) {
  std::vector<std::vector<Cell>> ranks;
  for (std::int32_t r = 0; r < s.stages; ++r) {
    ranks.push_back(cells_of(s.schedule, r, s.stages, s.chunks, s.micro_batches));
  }
  return ranks;
}

std::vector<Violation> verify(const PipelineShape& shape,
                              const std::vector<std::vector<Cell>>& ranks) {
  return Verifier(shape, ranks).run();
}

}  // namespace orrery::simulator
