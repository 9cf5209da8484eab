// Bounds of a step and of memory. See bound.h.
#include "planner/jobs/bound.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "simulator/stages/pipeline.h"
#include "simulator/stages/stage.h"
#include "simulator/stages/step.h"

namespace orrery::planner::jobs {
namespace {

using P = PipelineSchedule;

// Sums in another order than the simulator's differ in their last bits.
constexpr double kRounding = 1 - 1e-9;

// One chunk, seconds of a micro-batch; see Lanes in simulator/stages/stage.cpp.
struct ChunkSeconds {
  double forward = 0, backward = 0, weight = 0, forward_hides = 0, backward_hides = 0;
};

ChunkSeconds plain_seconds(const ChunkShape& chunk, const PriceTable& table) {
  ChunkSeconds out;
  for (const auto& [unit, count] : chunk.counts) {
    const UnitPrice& u = table[static_cast<std::size_t>(unit)];
    out.forward += count * u.forward;
    out.backward += count * u.backward;
    out.weight += count * u.weight;
    out.forward_hides += count * u.forward_hides;
    out.backward_hides += count * u.backward_hides;
  }
  return out;
}

ChunkParameters parameters_of(const ChunkShape& chunk, const PriceTable& table) {
  ChunkParameters out;
  for (const auto& [unit, count] : chunk.counts) {
    const UnitPrice& u = table[static_cast<std::size_t>(unit)];
    out.dense += count * u.dense;
    out.expert += count * u.expert;
    out.largest = std::max(out.largest, u.dense + u.expert);
  }
  const UnitPrice& back = table[static_cast<std::size_t>(chunk.back)];
  out.dense -= chunk.shared_tables * (back.dense - back.replicated);
  return out;
}

}  // namespace

Bound::Bound(const Job& base, const Space& space, const UnitNumbers& units, const Shapes& shapes)
    : space_(space), units_(units), shapes_(shapes), prices_(base, space.choices, units) {}

void Bound::enter(const Block& block) {
  block_ = block;
  prices_.enter(block);
  const Job& job = prices_.job();
  micro_batches_ = std::max<std::int64_t>(1, job.micro_batches());
  send_ = simulator::send_seconds(job, prices_.price());
  straggle_ = simulator::straggle_of(job);
  const std::int64_t data = block.data();
  const auto [found, fresh] = all_shardings_.try_emplace({data, block.pp == 1});
  if (fresh) found->second = shardings_of(space_.choices, data, block.pp);
  shardings_ = found->second;
  for (auto& [key, shares] : once_) shares.once.clear();
  balanced_.clear();
  links_.assign(shardings_.size(), {});
}

void Bound::set_sharding(const ShardingChoice& choice) {
  Job& job = prices_.job();
  job.sharding = choice.sharding;
  job.keeps_gathered = choice.keeps_gathered;
  job.layout.fsdp_d = choice.fsdp_d;
  job.layout.replicate_d = block_.data() / choice.fsdp_d;
}

const std::vector<std::int64_t>& Bound::stage_layers(std::int64_t virtual_stages, Deal deal) {
  static const std::vector<std::int64_t> kEven;
  if (deal == Deal::kEven) return kEven;
  const std::int64_t pp = block_.pp, layers = prices_.job().model.layers;
  if (deal != Deal::kBalanced) {
    const auto [found, fresh] = dealt_.try_emplace({pp, virtual_stages, deal});
    if (fresh) found->second = dealt(deal, layers, pp * virtual_stages);
    return found->second;
  }
  const auto [found, fresh] = balanced_.try_emplace(virtual_stages);
  if (!fresh) return found->second;
  const PriceTable& table = prices_.table(0);
  const auto seconds = [&](std::int32_t unit) {
    const UnitPrice& u = table[static_cast<std::size_t>(unit)];
    return u.forward + u.backward;
  };
  double all = 0, last = 0;
  for (const auto& [unit, count] : units_.whole()) all += count * seconds(unit);
  for (const std::int32_t unit : units_.ends()) last += seconds(unit);
  const double first = seconds(units_.of({simulator::UnitKind::kEmbedding}));
  const double layer = (all - first - last) / static_cast<double>(layers);
  found->second = balanced(layers, pp, virtual_stages, layer, first, last);
  return found->second;
}

bool Bound::repeats(const std::vector<Deal>& deals, std::int64_t virtual_stages, Deal deal) {
  if (deal != Deal::kBalanced) return false;
  const std::int64_t layers = prices_.job().model.layers, stages = block_.pp * virtual_stages;
  const std::vector<std::int64_t>& own = stage_layers(virtual_stages, deal);
  return std::any_of(deals.begin(), deals.end(), [&](Deal other) {
    if (other == deal) return false;
    return own == (other == Deal::kEven ? simulator::even_layers(layers, stages)
                                        : stage_layers(virtual_stages, other));
  });
}

const Shape& Bound::shape_of(std::int64_t virtual_stages, std::int64_t full_layers, Deal deal) {
  if (deal == Deal::kEven) return shapes_.of(block_.pp, virtual_stages, full_layers);
  const std::vector<std::int64_t>& layers = stage_layers(virtual_stages, deal);
  const auto found = uneven_.find({block_.pp, full_layers, layers});
  if (found != uneven_.end()) return found->second;
  Job job = prices_.job();
  job.virtual_stages = virtual_stages;
  job.stage_layers = layers;
  job.recompute = {};
  const Shape* plain = nullptr;
  if (full_layers >= 0) {
    plain = &shape_of(virtual_stages, -1, deal);
    job.recompute.full = true;
    job.recompute.full_layers = full_layers;
  }
  return uneven_.try_emplace({block_.pp, full_layers, layers}, units_.shape_of(job, plain))
      .first->second;
}

Line Bound::line(std::int64_t virtual_stages, std::size_t recompute, std::int64_t full_layers,
                 Deal deal) {
  Line line;
  line.deal = deal;
  line.virtual_stages = virtual_stages;
  line.recompute = recompute;
  line.full_layers = full_layers;
  const bool full = space_.choices.recompute[recompute].full();
  line.plain = &shape_of(virtual_stages, -1, deal);
  line.shape = full ? &shape_of(virtual_stages, full_layers, deal) : line.plain;
  line.table = &prices_.table(recompute);
  sum_chunks(line, nullptr, nullptr, line.kinds);
  const Shape& shape = *line.shape;
  for (const std::vector<std::int32_t>& rank : shape.ranks) {
    double saves = HUGE_VAL, extra = HUGE_VAL;
    for (const std::int32_t c : rank) {
      const ChunkShape& chunk = shape.chunks[static_cast<std::size_t>(c)];
      double sum = 0;
      for (const auto& [unit, count] : chunk.counts) {
        sum += count * (*line.table)[static_cast<std::size_t>(unit)].saves;
      }
      saves = std::min(saves, sum);
      extra = std::min(extra, (*line.table)[static_cast<std::size_t>(chunk.back)].extra);
    }
    line.saves.push_back(saves);
    line.extra.push_back(extra);
  }
  for (const std::int32_t kind : shape.kind) {
    for (const std::int32_t c : shape.ranks[static_cast<std::size_t>(kind)]) {
      const ChunkSeconds s = plain_seconds(shape.chunks[static_cast<std::size_t>(c)], *line.table);
      line.path += s.forward + s.backward;
      line.path_weight += s.weight;
      line.slowest_forward = std::max(line.slowest_forward, s.forward);
      line.slowest_backward = std::max(line.slowest_backward, s.backward);
    }
  }
  return line;
}

// What the links of sharded parameters make of a chunk: gathers and reductions one after the other,
// or compute, slower beside them, behind the first gather and before the last reduction.
void Bound::sum_chunks(const Line& line, const ShardingChoice* choice,
                       const std::vector<simulator::ShardingSeconds>* links,
                       std::vector<KindSeconds>& out) const {
  const Shape& shape = *line.shape;
  const PriceTable& table = *line.table;
  const Job& job = prices_.job();
  const double slower = job.cluster.compute_slowdown - 1 + job.stack.exposed_share;
  const bool once = block_.pp > 1;  // gathers_once
  std::vector<ChunkSeconds> chunks;
  for (const ChunkShape& chunk : shape.chunks) {
    ChunkSeconds s = plain_seconds(chunk, table);
    if (links != nullptr) {
      double gathers = 0, sums = 0, slow_forward = 0, slow_backward = 0;
      const bool again = !once && !choice->keeps_gathered;
      for (const auto& [unit, count] : chunk.counts) {
        const auto i = static_cast<std::size_t>(unit);
        const UnitPrice& u = table[i];
        const double gather = once ? 0 : (*links)[i].gather;
        const double back = (again ? (*links)[i].gather : 0) + (*links)[i].reduce;
        gathers += count * gather;
        sums += count * back;
        slow_forward += count * slower * std::min(u.forward, gather);
        slow_backward += count * slower * std::min(u.backward, back);
      }
      const auto front = static_cast<std::size_t>(chunk.front);
      const auto back = static_cast<std::size_t>(chunk.back);
      const double first = once ? 0 : (*links)[front].gather;
      s.forward = std::max(s.forward + slow_forward + first, gathers + table[back].forward);
      const double first_back = again ? (*links)[back].gather : 0;
      s.backward = std::max(s.backward + slow_backward + first_back + (*links)[front].reduce, sums);
    }
    chunks.push_back(s);
  }
  out.clear();
  for (const std::vector<std::int32_t>& rank : shape.ranks) {
    KindSeconds k;
    double forward_hides = 0, backward_hides = 0;
    for (const std::int32_t c : rank) {
      const ChunkSeconds& s = chunks[static_cast<std::size_t>(c)];
      k.forward += s.forward;
      k.backward += s.backward;
      k.weight += s.weight;
      k.hides += s.forward_hides + s.backward_hides;
      forward_hides = std::max(forward_hides, s.forward_hides);
      backward_hides = std::max(backward_hides, s.backward_hides);
    }
    k.pair_hides = forward_hides + backward_hides;
    const ChunkSeconds& front = chunks[static_cast<std::size_t>(rank.front())];
    k.front_forward = front.forward;
    k.front_backward = front.backward;
    k.front_weight = front.weight;
    out.push_back(k);
  }
}

const std::vector<KindSeconds>& Bound::kinds_of(const Line& line, std::size_t sharding) {
  const ShardingChoice& choice = shardings_[sharding];
  if (choice.sharding != Sharding::kParameters) return line.kinds;
  std::vector<simulator::ShardingSeconds>& links = links_[sharding];
  if (links.size() < line.table->size()) {
    set_sharding(choice);
    prices_.sharding(*line.table, links);
  }
  sum_chunks(line, &choice, &links, scratch_);
  return scratch_;
}

const Bound::Once& Bound::once_of(std::int64_t virtual_stages, Deal deal, std::size_t sharding) {
  Shares& shares = once_[{virtual_stages, deal}];
  if (shares.once.empty()) {
    shares.once.resize(shardings_.size());
    const PriceTable& table = prices_.table(0);
    const Shape& shape = shape_of(virtual_stages, -1, deal);
    shares.ranks.clear();
    for (const std::vector<std::int32_t>& rank : shape.ranks) {
      std::vector<ChunkParameters>& chunks = shares.ranks.emplace_back();
      for (const std::int32_t c : rank) {
        chunks.push_back(parameters_of(shape.chunks[static_cast<std::size_t>(c)], table));
      }
    }
  }
  Once& once = shares.once[sharding];
  if (once.made) return once;
  once.made = true;
  set_sharding(shardings_[sharding]);
  for (const std::vector<ChunkParameters>& rank : shares.ranks) {
    double dense = 0, expert = 0;
    simulator::ChunkStates states;
    for (const ChunkParameters& p : rank) {
      dense += p.dense;
      expert += p.expert;
      const simulator::ChunkStates own =
          simulator::chunk_states(prices_.job(), p.dense, p.expert, p.largest);
      states.states += own.states;
      states.scratch += own.scratch;
    }
    once.once.push_back(simulator::once_per_step(prices_.job(), prices_.price(), dense, expert));
    once.states.push_back(states);
  }
  return once;
}

double Bound::hidden(const Line& line, const KindSeconds& kind, PipelineSchedule schedule,
                     std::int32_t rank) const {
  if (schedule != P::kOverlapped) return 0;
  const auto chunks = static_cast<std::int32_t>(line.virtual_stages);
  const auto m = static_cast<std::int32_t>(micro_batches_);
  const std::int32_t pairs = chunks * m - simulator::warm_up(schedule, rank, block_.pp, chunks, m);
  return std::min(static_cast<double>(m) * kind.hides,
                  static_cast<double>(pairs) * kind.pair_hides);
}

// `exact`: kinds are what predict() has, not less, so that what hides beside them is right on
// ranks other than the slowest too.
double Bound::ranks_end(const Line& line, const std::vector<KindSeconds>& kinds,
                        PipelineSchedule schedule, const Once* once, bool exact) const {
  const Job& job = prices_.job();
  const Shape& shape = *line.shape;
  const auto m = static_cast<double>(micro_batches_);
  const bool beside = job.stack.overlaps_stages;
  const bool parted = schedule == P::kZeroBubble, overlapped = schedule == P::kOverlapped;
  constexpr std::size_t kFewKinds = 32;
  double few[2 * kFewKinds] = {};
  std::vector<double> many(kinds.size() > kFewKinds ? 2 * kinds.size() : 0);
  double* const full = many.empty() ? few : many.data();
  double* const low = full + (many.empty() ? kFewKinds : kinds.size());
  for (std::size_t k = 0; once != nullptr && k < kinds.size(); ++k) {
    const auto& raw = once->once[static_cast<std::size_t>(shape.plain[k])];
    full[k] = simulator::not_hidden(job, raw, kinds[k].forward, kinds[k].backward).total();
    low[k] = exact ? full[k] : simulator::not_hidden(job, raw, HUGE_VAL, HUGE_VAL).total();
  }
  double fill = 0, back = 0, slowest = 0;
  const auto last = static_cast<std::int32_t>(shape.kind.size()) - 1;
  for (std::int32_t r = 0; r <= last; ++r) {
    const auto kind = static_cast<std::size_t>(shape.kind[static_cast<std::size_t>(r)]);
    const KindSeconds& k = kinds[kind];
    // Gradients of weights that come behind the last one of an input.
    const double tail = parted ? std::min(m, r + 1.0) * k.weight : 0;
    back = std::max(back, tail + low[kind]);
    double end = fill + m * (k.forward + k.backward) - hidden(line, k, schedule, r);
    double sent = 0;
    if (!beside && !overlapped && last > 0) {
      end += m * send_ * static_cast<double>(2 * line.virtual_stages - (r == 0) - (r == last));
      sent = r > 0 ? send_ : 0;
    }
    slowest = std::max({slowest, end + full[kind], end - tail - sent + back});
    back += k.front_backward - (parted ? k.front_weight : 0) + send_;
    fill += k.front_forward + send_;
  }
  return slowest;
}

// 1F1B with w stages behind stage s: B_s(i) lets F_s(i + w + 1) begin, which lets B_{s+1}(i + 2)
// run, and that B_s(i + 2): two micro-batches take the cells of two stages and two sends. Before
// it, the first micro-batch goes to the last stage and back to s; behind it, the last one.
double Bound::cycle(const Line& line, const std::vector<KindSeconds>& kinds) const {
  const Shape& shape = *line.shape;
  const auto last = static_cast<std::int64_t>(shape.kind.size()) - 1;
  const auto of = [&](std::int64_t r) -> const KindSeconds& {
    return kinds[static_cast<std::size_t>(shape.kind[static_cast<std::size_t>(r)])];
  };
  double forwards = 0, backwards = 0;
  for (std::int64_t r = 0; r <= last; ++r) {
    forwards += of(r).forward;
    backwards += of(r).backward;
  }
  double slowest = 0, forward_before = 0, backward_before = 0;
  for (std::int64_t s = 0; s < last; ++s) {
    const KindSeconds &own = of(s), &next = of(s + 1);
    const std::int64_t behind = last - s, cells = micro_batches_ - 2 - behind;
    if (cells >= 0) {
      const double sends = static_cast<double>(last + 2 * behind + last) * send_;
      const double pair = own.forward + own.backward + next.forward + next.backward + 2 * send_;
      const double turns =
          static_cast<double>(cells / 2) * pair + (cells % 2 == 1 ? own.forward + own.backward : 0);
      const double end = forwards + (backwards - backward_before) + turns + own.forward +
                         (forwards - forward_before - own.forward) + backwards + sends;
      slowest = std::max(slowest, end);
    }
    forward_before += own.forward;
    backward_before += own.backward;
  }
  return slowest;
}

double Bound::step_of(const Line& line, const std::vector<KindSeconds>& kinds,
                      PipelineSchedule schedule, const Once* once, bool exact) const {
  double slowest = ranks_end(line, kinds, schedule, once, exact);
  if (block_.pp > 1) {
    const Job& job = prices_.job();
    const auto virtual_stages = static_cast<double>(block_.pp * line.virtual_stages);
    const double sends = 2 * (virtual_stages - 1) * send_;
    double path = line.path + sends - (schedule == P::kZeroBubble ? line.path_weight : 0);
    // All forward before all backward: the last micro-batch waits for the others at the slowest.
    const bool parts =
        schedule == P::kGpipe || (line.virtual_stages > 1 && micro_batches_ <= block_.pp);
    if (parts) {
      path +=
          static_cast<double>(micro_batches_ - 1) * (line.slowest_forward + line.slowest_backward);
    }
    if (schedule == P::kOneForwardOneBackward) path = std::max(path, cycle(line, line.kinds));
    if (once != nullptr) {
      const auto first = static_cast<std::size_t>(line.plain->kind.front());
      path += exact ? simulator::not_hidden(
                          job, once->once[first],
                          kinds[static_cast<std::size_t>(line.shape->kind[0])].forward,
                          kinds[static_cast<std::size_t>(line.shape->kind[0])].backward)
                          .total()
                    : simulator::not_hidden(job, once->once[first], HUGE_VAL, HUGE_VAL).total();
    }
    slowest = std::max(slowest, path);
  }
  return (slowest * (1 + straggle_) + prices_.job().stack.step_s) * kRounding;
}

// A rank has its cells of every micro-batch, and all ranks together those of the whole model: the
// slowest has at least the mean. In 1F1B and GPipe rank s also waits for the ranks before it,
//   step >= sum of busy(p) for p < s + micro_batches * busy(s),
// so what they leave to the ranks behind shrinks by 1 - 1/micro_batches with each, and
//   step >= whole / (1 - (1 - 1/micro_batches)^ranks).
double Bound::ideal_seconds(std::int64_t virtual_stages, PipelineSchedule schedule) {
  const PriceTable& table = prices_.table(0);
  double forward = 0, backward = 0, weight = 0, hides = 0;
  for (const auto& [unit, count] : units_.whole()) {
    const UnitPrice& u = table[static_cast<std::size_t>(unit)];
    forward += count * u.forward;
    backward += count * u.backward;
    weight += count * u.weight;
    hides += count * (u.forward_hides + u.backward_hides);
  }
  const Job& job = prices_.job();
  const auto m = static_cast<double>(micro_batches_), ranks = static_cast<double>(block_.pp);
  const auto chunks = static_cast<double>(virtual_stages);
  const bool overlapped = schedule == P::kOverlapped;
  // One group of micro-batches through several chunks has no steady part.
  const bool parts = schedule == P::kGpipe || (virtual_stages > 1 && micro_batches_ <= block_.pp);
  double slowest = m * (forward + backward - (overlapped && !parts ? hides : 0)) / ranks;
  if (block_.pp > 1) {
    if (!job.stack.overlaps_stages && !overlapped) slowest += m * send_ * 2 * (chunks - 1 / ranks);
    if (schedule == P::kOneForwardOneBackward || schedule == P::kGpipe) {
      const double shared = 1 - std::pow(1 - 1 / m, ranks);
      slowest = std::max(slowest, (forward + backward) / shared);
    }
    double path = forward + backward + 2 * (ranks * chunks - 1) * send_;
    if (schedule == P::kZeroBubble) path -= weight;
    if (parts) path += (m - 1) * (forward + backward) / (ranks * chunks);
    slowest = std::max(slowest, path);
  }
  return (slowest * (1 + straggle_) + job.stack.step_s) * kRounding;
}

double Bound::floor_seconds(const Line& line, PipelineSchedule schedule) {
  return step_of(line, line.kinds, schedule, nullptr, true);
}

double Bound::seconds(const Line& line, PipelineSchedule schedule, std::size_t sharding) {
  const Once& once = once_of(line.virtual_stages, line.deal, sharding);
  const bool exact = shardings_[sharding].sharding != Sharding::kParameters;
  return step_of(line, kinds_of(line, sharding), schedule, &once, exact);
}

const std::vector<std::int32_t>& Bound::in_flight(PipelineSchedule schedule,
                                                  std::int64_t virtual_stages) {
  // With more than a few rounds of micro-batches there are no more on their way at once, but where
  // all forward comes first.
  constexpr std::int64_t kRounds = 4;
  const bool all = schedule == P::kGpipe;
  const std::int64_t counted =
      all ? 1 : std::min(micro_batches_, kRounds * std::int64_t{block_.pp});
  const auto [found, fresh] =
      in_flight_.try_emplace({schedule, block_.pp, virtual_stages, all ? micro_batches_ : counted});
  if (fresh && all) {
    found->second.assign(static_cast<std::size_t>(block_.pp),
                         static_cast<std::int32_t>(micro_batches_));
  } else if (fresh) {
    for (std::int32_t r = 0; r < block_.pp; ++r) {
      found->second.push_back(simulator::in_flight(schedule, r, block_.pp,
                                                   static_cast<std::int32_t>(virtual_stages),
                                                   static_cast<std::int32_t>(counted)));
    }
  }
  return found->second;
}

double Bound::state_bytes(std::int64_t virtual_stages, Deal deal, std::size_t sharding) {
  double most = 0;
  for (const simulator::ChunkStates& kind : once_of(virtual_stages, deal, sharding).states) {
    most = std::max(most, kind.states);
  }
  return (most + prices_.job().stack.reserve_bytes) * kRounding;
}

double Bound::bytes(const Line& line, PipelineSchedule schedule, std::size_t sharding) {
  const Once& once = once_of(line.virtual_stages, line.deal, sharding);
  const std::vector<std::int32_t>& cells = in_flight(schedule, line.virtual_stages);
  double most = 0;
  for (std::size_t r = 0; r < line.shape->kind.size(); ++r) {
    const auto kind = static_cast<std::size_t>(line.shape->kind[r]);
    const auto& states = once.states[static_cast<std::size_t>(line.shape->plain[kind])];
    const double kept = static_cast<double>(cells[r]) * line.saves[kind] + line.extra[kind];
    most = std::max(most, states.states + std::max(kept, states.scratch));
  }
  return (most + prices_.job().stack.reserve_bytes) * kRounding;
}

std::size_t Bound::index_of(const ShardingChoice& choice) const {
  for (std::size_t i = 0; i < shardings_.size(); ++i) {
    const ShardingChoice& s = shardings_[i];
    if (s.sharding == choice.sharding && s.fsdp_d == choice.fsdp_d &&
        s.keeps_gathered == choice.keeps_gathered) {
      return i;
    }
  }
  CHECK(false, "a sharding that is not in the space");
}

double Bound::seconds_of(const Block& block, const Member& m) {
  enter(block);
  const Line own = line(m.virtual_stages, m.recompute, m.full_layers, m.deal);
  return seconds(own, m.schedule, index_of({m.sharding, m.fsdp_d, m.keeps_gathered}));
}

double Bound::bytes_of(const Block& block, const Member& m) {
  enter(block);
  const Line own = line(m.virtual_stages, m.recompute, m.full_layers, m.deal);
  return bytes(own, m.schedule, index_of({m.sharding, m.fsdp_d, m.keeps_gathered}));
}

}  // namespace orrery::planner::jobs
