// Peak memory in closed form: states of the stage, what its cells in flight keep, and the fullest
// point of a chunk's backward. See memory.h.
#include "simulator/stages/memory.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "simulator/stages/pipeline.h"
#include "simulator/stages/units.h"

namespace orrery::simulator {
namespace {

// Of ln(predicted / measured) over the published rows of sources that no fit had seen: what has to
// be allowed for, and so the deviation of the probability to fit.
constexpr double kSpread = 0.1;

// Bytes a parameter.
struct States {
  double weights = 2;  // what products read
  double sums = 4;     // gradients, summed over micro-batches
  double own = 12;     // master weights and moments of what a rank updates
  double shards = 4;   // beside them, where parameters are sharded: gradients, 16 bit weights
  double scratch = 0;  // of what a rank updates, while it does
};

bool is_fp32(const Job& job) {
  return job.precision == Precision::kFp32 || job.precision == Precision::kTf32;
}

// Mixed precision (Micikevicius 2018; Rajbhandari 2020): 16 bit weights, fp32 master weights and
// two moments. FSDP's shards are fp32 themselves: no 16 bit copy is kept.
States states_of(const Job& job) {
  States s;
  if (is_fp32(job)) {
    s.weights = 4;
    s.own = 8;
    s.shards = 4 + 4;
  } else {
    s.sums = job.stack.fp32_gradients ? 4 : 2;
    if (job.stack.copies_gradients) {
      s.shards = 2 + 2;
      // Sums in fp32 beside the 16 bit gradients are read as they are; else the gradients are
      // flattened, which those of sharded parameters are already, and copied to fp32.
      const double flat = job.sharding == Sharding::kParameters ? 0 : 2;
      s.scratch = job.stack.fp32_gradients ? 0 : flat + 4;
      if (job.stack.fp32_gradients) s.sums += 2;
    }
  }
  if (!job.stack.fused_optimizer) s.scratch += 2 * 4;
  if (job.trains_adapters) {
    s = {};
    // Frozen weights stay in what products read.
    s.weights = job.precision == Precision::kFp8 ? 1 : 2;
    s.sums = s.own = s.shards = 0;
  }
  return s;
}

// The same for weights, gradients and what the optimizer has alone: they add up to states_of.
struct StateShares {
  States weights, gradients, optimizer;
};

StateShares shares_of(const Job& job) {
  constexpr double kMoments = 2 * 4;
  const States s = states_of(job);
  const States none{0, 0, 0, 0, 0};
  StateShares out{none, none, none};
  out.weights.weights = s.weights;
  out.gradients.sums = s.sums;
  const double halves = job.stack.copies_gradients && !is_fp32(job) ? 2 : 4;
  out.gradients.shards = std::min(s.shards, halves);
  out.weights.shards = s.shards - out.gradients.shards;
  // The shards of FSDP are themselves what others call master weights.
  const bool fsdp = job.sharding == Sharding::kParameters;
  const double masters = std::max(0.0, s.own - kMoments);
  (fsdp ? out.weights : out.optimizer).own = masters;
  out.optimizer.own += s.own - masters;
  return out;
}

double largest_unit(const Chunk& chunk) {
  double most = 0;
  for (const UnitMemory& u : chunk.units) most = std::max(most, u.parameters);
  return most;
}

// What is there all through a step, in proportion to the fields of `s`.
double state_bytes(const Job& job, const States& s, double parameters, double shards, double unit) {
  const double full = parameters * s.sums;
  switch (job.sharding) {
    case Sharding::kNone:
      return parameters * (s.weights + s.own) + full;
    case Sharding::kOptimizer:
      return parameters * (s.weights + s.own / shards) + full;
    case Sharding::kGradients:
      // A bucket waits for its reduction while the next one is filled.
      return parameters * (s.weights + s.own / shards) +
             std::min(full, full / shards + 2 * unit * s.sums);
    case Sharding::kParameters:
      return parameters * (job.trains_adapters ? s.weights : s.own + s.shards) / shards;
  }
  return 0;
}

// Ranks that share what is sharded of an expert.
double expert_shards_of(const Job& job) {
  const Layout& l = job.layout;
  return std::max(
      1.0, static_cast<double>(l.tp * l.cp * l.sp * l.dp) / static_cast<double>(l.ep * l.etp));
}

double scratch_bytes(const Job& job, double parameters, double shards) {
  return parameters * states_of(job).scratch / (job.sharding == Sharding::kNone ? 1 : shards);
}

// What stays whole of sharded parameters all through a step: see gathers_once.
double whole_bytes(const Job& job, double parameters) {
  if (job.sharding != Sharding::kParameters || !gathers_once(job)) return 0;
  const States s = states_of(job);
  return parameters * (s.weights + s.sums);
}

// Weights that are gathered, and gradients that are not in their place yet, while unit `i` goes
// backward: of it, of the one that is gathered ahead, and of the one behind.
double unit_bytes(const Job& job, const Chunk& chunk, std::size_t i) {
  const States s = states_of(job);
  const double own = chunk.units[i].parameters;
  const double behind = i + 1 < chunk.units.size() ? chunk.units[i + 1].parameters : 0;
  if (job.trains_adapters && gathers_once(job)) return 0;
  if (job.sharding != Sharding::kParameters) {
    return job.stack.fused_sums || s.sums <= 2 ? 0 : 2 * (own + behind);
  }
  // Before it is added; and, in the last micro-batch, copied to be reduced.
  if (gathers_once(job)) return own * (s.weights + s.sums);
  const auto live = [&](double parameters) {
    const auto most = static_cast<double>(job.stack.live_parameters);
    return most > 0 ? std::min(parameters, most) : parameters;
  };
  double whole = own;
  if (job.keeps_gathered) {
    for (std::size_t k = 0; k < i; ++k) whole += chunk.units[k].parameters;
  } else if (i > 0) {
    whole += chunk.units[i - 1].parameters;
  }
  if (job.trains_adapters) return live(whole) * s.weights;
  return (live(whole) + live(own)) * s.weights + live(behind) * s.sums;
}

// The fullest point of a chunk's last cell, in the backward of a unit: units behind it have given
// back what they kept.
struct CellPeak {
  double bytes = 0;
  std::size_t unit = 0;
};

CellPeak cell_peak(const Job& job, const Chunk& chunk) {
  CellPeak peak;
  double kept = 0;
  for (std::size_t i = 0; i < chunk.units.size(); ++i) {
    const UnitMemory& u = chunk.units[i];
    kept += u.saves;
    const double now = kept + u.worst + u.transient + unit_bytes(job, chunk, i);
    if (now > peak.bytes) peak = {now, i};
  }
  return peak;
}

double saves_of(const Chunk& chunk) {
  double sum = 0;
  for (const UnitMemory& u : chunk.units) sum += u.saves;
  return sum;
}

// What a cell has sent to the next stage, where that is kept until the gradient comes back.
double output_bytes(const Job& job) {
  if (job.layout.pp == 1 || !job.stack.keeps_stage_outputs) return 0;
  const double parts = job.sequence_parallel ? static_cast<double>(job.layout.tp) : 1;
  const double width = is_fp32(job) ? 4 : 2;
  return outline::rows_of(job) * static_cast<double>(job.model.hidden) * width / parts;
}

// Bytes of one stage, of its cells and its states.
struct Stage {
  double alive = 0;  // at the fullest moment
  double taken = 0;  // by the allocator
};

// The moment when a rank's cells hold most, one after the other in its schedule's order.
struct CellsPeak {
  double bytes = 0;
  std::size_t cell = 0;  // its place in that order
};

CellsPeak cells_peak(const Job& job, const Chunk* chunks, const std::vector<Cell>& order) {
  const double output = output_bytes(job);
  std::vector<double> saves, peaks;
  for (std::int64_t c = 0; c < job.virtual_stages; ++c) {
    const double sent = chunks[c].last ? 0 : output;
    saves.push_back(saves_of(chunks[c]) + sent);
    peaks.push_back(cell_peak(job, chunks[c]).bytes + sent);
  }
  CellsPeak most;
  double now = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const auto c = static_cast<std::size_t>(order[i].chunk);
    double here = 0;
    if (order[i].backward()) {
      here = now - saves[c] + peaks[c];
      // What was kept goes with the last part of backward.
      if (order[i].kind != CellKind::kInputGradient) now -= saves[c];
    } else {
      now += saves[c];
      here = now;
    }
    if (here > most.bytes) most = {here, i};
  }
  return most;
}

std::vector<Cell> order_of(const Job& job, std::int32_t stage) {
  const auto micro_batches =
      static_cast<std::int32_t>(std::max<std::int64_t>(1, job.micro_batches()));
  return cells_of(job.schedule, stage, static_cast<std::int32_t>(job.layout.pp),
                  static_cast<std::int32_t>(job.virtual_stages), micro_batches);
}

Stage stage_memory(const Job& job, const Chunk* chunks, std::int32_t stage) {
  double states = 0, scratch = 0;
  for (std::int64_t c = 0; c < job.virtual_stages; ++c) {
    const Chunk& chunk = chunks[c];
    const ChunkStates own = chunk_states(job, chunk.dense, chunk.expert, largest_unit(chunk));
    states += own.states;
    scratch += own.scratch;
  }
  const double cells = cells_peak(job, chunks, order_of(job, stage)).bytes;
  // States come once and stay; what the update needs has other sizes than what the cells leave.
  return {states + std::max(cells, scratch), states + cells * job.stack.fragmentation + scratch};
}

// What stage_memory adds up, class by class.
class Parts {
 public:
  Parts(const Job& job, const Chunk* chunks, const ChunkUnits* units)
      : job_(job), chunks_(chunks), units_(units) {}

  MemoryParts of(std::int32_t stage) {
    out_.stage = stage;
    double scratch = 0;
    for (std::int64_t c = 0; c < job_.virtual_stages; ++c) {
      states(chunks_[c]);
      scratch += chunk_states(job_, chunks_[c].dense, chunks_[c].expert, 0).scratch;
    }
    const std::vector<Cell> order = order_of(job_, stage);
    const CellsPeak peak = cells_peak(job_, chunks_, order);
    out_.in_update = scratch >= peak.bytes;
    if (out_.in_update) {
      out_.bytes[kUpdateTemporaries] = scratch;
    } else {
      cells(order, peak.cell);
    }
    out_.bytes[kReserve] = job_.stack.reserve_bytes;
    return out_;
  }

 private:
  void states(const Chunk& chunk) {
    const StateShares shares = shares_of(job_);
    const auto d = static_cast<double>(job_.layout.fsdp_d);
    const double e = expert_shards_of(job_), unit = largest_unit(chunk);
    const auto bytes = [&](const States& s) {
      return state_bytes(job_, s, chunk.dense, d, unit) +
             state_bytes(job_, s, chunk.expert, e, unit);
    };
    out_.bytes[kWeights] += bytes(shares.weights);
    out_.bytes[kGradients] += bytes(shares.gradients);
    out_.bytes[kOptimizerStates] += bytes(shares.optimizer);
    out_.bytes[kGathered] += whole_bytes(job_, chunk.dense + chunk.expert);
  }

  // What cells hold in the one at `last` of the order.
  void cells(const std::vector<Cell>& order, std::size_t last) {
    std::vector<double> alive(static_cast<std::size_t>(job_.virtual_stages), 0);
    for (std::size_t i = 0; i < last; ++i) {
      double& count = alive[static_cast<std::size_t>(order[i].chunk)];
      if (!order[i].backward()) ++count;
      if (order[i].backward() && order[i].kind != CellKind::kInputGradient) --count;
    }
    const auto now = static_cast<std::size_t>(order[last].chunk);
    const Chunk& chunk = chunks_[now];
    const std::size_t at = order[last].backward() ? cell_peak(job_, chunk).unit : 0;
    if (order[last].backward()) {
      --alive[now];
      for (std::size_t i = 0; i <= at; ++i) kept(now, i, 1);
      out_.bytes[units_[now].units[at].kind == UnitKind::kHead ? kLogits : kRunning] +=
          chunk.units[at].worst + chunk.units[at].transient;
      out_.bytes[kGathered] += unit_bytes(job_, chunk, at);
      sent(now, 1);
    } else {
      ++alive[now];
    }
    for (std::size_t c = 0; c < alive.size(); ++c) {
      for (std::size_t i = 0; i < chunks_[c].units.size(); ++i) kept(c, i, alive[c]);
      sent(c, alive[c]);
      out_.cells += static_cast<std::int64_t>(alive[c]);
    }
    out_.cells += order[last].backward() ? 1 : 0;
  }

  // Of `cells` micro-batches, what one unit keeps.
  void kept(std::size_t chunk, std::size_t unit, double cells) {
    const UnitName& name = units_[chunk].units[unit];
    const MemoryClass moe = name.moe ? kMoeLayers : kDenseLayers;
    const bool layer = name.kind == UnitKind::kLayer || name.kind == UnitKind::kFurther;
    const MemoryClass end = name.kind == UnitKind::kHead ? kLogits : kDenseLayers;
    out_.bytes[layer ? moe : end] += cells * chunks_[chunk].units[unit].saves;
  }
  void sent(std::size_t chunk, double cells) {
    if (!chunks_[chunk].last) out_.bytes[kStageOutputs] += cells * output_bytes(job_);
  }

  const Job& job_;
  const Chunk* chunks_;
  const ChunkUnits* units_;
  MemoryParts out_;
};

}  // namespace

const char* name_of(MemoryClass cls) {
  static constexpr const char* kNames[kNumMemoryClasses] = {
      "weights", "gradients",         "optimizer states", "gathered", "dense layers", "MoE layers",
      "logits",  "layer in backward", "stage outputs",    "update",   "reserve"};
  return kNames[cls];
}

double MemoryParts::total() const {
  double sum = 0;
  for (const double b : bytes) sum += b;
  return sum;
}

MemoryParts memory_parts(const Job& job) {
  const Price price(job);
  const std::vector<Chunk> chunks = make_chunks(job, price);
  const std::vector<ChunkUnits> units = units_of_chunks(job);
  MemoryParts fullest;
  std::vector<double> totals;
  for (std::int64_t s = 0; s < job.layout.pp; ++s) {
    const auto first = static_cast<std::size_t>(s * job.virtual_stages);
    const MemoryParts parts =
        Parts(job, &chunks[first], &units[first]).of(static_cast<std::int32_t>(s));
    totals.push_back(parts.total());
    if (s == 0 || parts.total() > fullest.total()) fullest = parts;
  }
  fullest.stage_bytes = std::move(totals);
  return fullest;
}

ChunkStates chunk_states(const Job& job, double dense, double expert, double unit) {
  const auto shards = static_cast<double>(job.layout.fsdp_d);
  const double expert_shards = expert_shards_of(job);
  const States s = states_of(job);
  return {state_bytes(job, s, dense, shards, unit) +
              state_bytes(job, s, expert, expert_shards, unit) + whole_bytes(job, dense + expert),
          scratch_bytes(job, dense, shards) + scratch_bytes(job, expert, expert_shards)};
}

double probability_fits(double needed, double usable) {
  const double deviations = std::log(usable / needed) / kSpread;
  return 0.5 * std::erfc(-deviations / std::sqrt(2.0));
}

void predict_memory(const Job& job, const std::vector<Chunk>& chunks, JobPrediction& out) {
  const Stack& stack = job.stack;
  double alive = 0, taken = stack.reserve_bytes;
  for (std::int64_t s = 0; s < job.layout.pp; ++s) {
    const Stage stage = stage_memory(job, &chunks[static_cast<std::size_t>(s * job.virtual_stages)],
                                     static_cast<std::int32_t>(s));
    alive = std::max(alive, stage.alive);
    taken = std::max(taken, stage.taken + stack.reserve_bytes);
  }
  out.allocated_bytes = alive;
  out.usable_bytes = static_cast<double>(job.cluster.device.memory.value());
  // Where memory ends the allocator gives back what it holds unused: a job fits as long as what is
  // alive does.
  const double needed = alive + stack.reserve_bytes;
  out.peak_bytes = std::max(needed, std::min(taken, out.usable_bytes));
  out.fits = needed <= out.usable_bytes;
  out.probability_fits = probability_fits(needed, out.usable_bytes);
}

}  // namespace orrery::simulator
