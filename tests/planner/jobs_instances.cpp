// See jobs_instances.h.
#include "tests/planner/jobs_instances.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

namespace orrery::planner::jobs {
namespace {

std::int32_t narrow(std::int64_t value) {
  return static_cast<std::int32_t>(value);
}

template <class T>
const T& one_of(Draw& draw, const std::vector<T>& list) {
  return list[static_cast<std::size_t>(
      draw.between(0, static_cast<std::int64_t>(list.size()) - 1))];
}

void shorten(Model& m, std::int64_t layers) {
  m.layers = std::min(m.layers, layers);
  m.moe_layer.resize(static_cast<std::size_t>(m.layers));
  if (!m.window.empty()) m.window.resize(static_cast<std::size_t>(m.layers));
}

void draw_machine(Draw& draw, Job& job) {
  job.cluster.compute_slowdown = 1 + 0.1 * static_cast<double>(draw.between(0, 4));
  for (LinkTier& tier : job.cluster.tiers) {
    const double slower = std::pow(4.0, static_cast<double>(draw.between(0, 3)));
    tier.bandwidth = BytesPerSecond(tier.bandwidth.value() / slower);
    if (draw.coin()) tier.latency = Seconds(tier.latency.value() * 20);
  }
  Stack& s = job.stack;
  if (draw.coin()) s.overlaps_gradients = draw.coin();
  if (draw.coin()) s.overlaps_parameters = draw.coin();
  if (draw.coin()) s.overlaps_stages = draw.coin();
  if (draw.coin()) s.overlaps_tensor = draw.coin();
  if (draw.coin()) s.dispatcher = "deduplicated";
  s.exposed_share = 0.05 * static_cast<double>(draw.between(0, 10));
  s.straggle = 0.01 * static_cast<double>(draw.between(0, 5));
}

std::vector<std::pair<std::string, std::string>> draw_pins(Draw& draw, const Job& base) {
  std::vector<std::pair<std::string, std::string>> pins;
  const std::vector<std::string> recomputes = recompute_names();
  pins.emplace_back("recompute", one_of(draw, recomputes));
  if (draw.coin()) pins.emplace_back("sequence_parallel", "true");
  if (draw.coin()) pins.emplace_back("exchange", draw.coin() ? "ring" : "all_to_all");
  if (draw.coin()) pins.emplace_back("dispatcher", draw.coin() ? "all_to_all" : "deduplicated");
  if (draw.coin()) {
    pins.emplace_back("sharding", name_of(static_cast<Sharding>(draw.between(0, 3))));
  }
  if (draw.coin()) pins.emplace_back("virtual_stages", std::to_string(draw.between(1, 2)));
  if (draw.between(0, 3) == 0) {
    pins.emplace_back("pp", std::to_string(draw.divisor_of(base.cluster.devices)));
  }
  if (draw.coin()) pins.emplace_back("micro_batch", "1");
  if (draw.between(0, 3) == 0) pins.emplace_back("precision", "bf16,fp8");
  if (draw.coin()) {
    pins.emplace_back("stage_layers", name_of(static_cast<Deal>(draw.between(0, kNumDeals - 1))));
  }
  if (draw.between(0, 3) == 0) {
    pins.emplace_back("sp", std::to_string(draw.divisor_of(base.cluster.devices)));
  }
  return pins;
}

// What the lists leave out beyond violations().
bool outside(const Job& job, const Choices& c) {
  const Layout& l = job.layout;
  return l.tp > c.most_tensor || l.etp > c.most_tensor || l.micro_batch > c.most_micro_batch ||
         (l.cp * l.sp > 1 && job.sequence_tokens / (l.cp * l.sp) < c.least_rows) ||
         (job.virtual_stages > 1 && l.pp == 1);
}

// Layers of stages where nothing is known of prices yet: any that a stage may have.
std::vector<std::int64_t> some_layers(std::int64_t layers, std::int64_t stages) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(stages), 1);
  counts.back() = 0;
  counts.front() = layers - (stages - 2);
  return counts;
}

void visit_lines(const Job& base, const Choices& c, Bound& bound, const Block& block,
                 const Member& like, Job& job,
                 const std::function<void(const Candidate&, const Job&)>& visit) {
  for (std::size_t r = 0; r < c.recompute.size(); ++r) {
    std::vector<std::int64_t> depths = {0};
    if (c.recompute[r].full()) {
      depths = full_layers_of(c, base.model.layers, block.pp * like.virtual_stages);
    }
    for (const std::int64_t depth : depths) {
      for (const ShardingChoice& s : shardings_of(c, block.data(), block.pp)) {
        Candidate candidate{block, like};
        candidate.member.full_layers = narrow(depth);
        candidate.member.recompute = static_cast<std::uint8_t>(r);
        candidate.member.fsdp_d = narrow(s.fsdp_d);
        candidate.member.sharding = s.sharding;
        candidate.member.keeps_gathered = s.keeps_gathered;
        set_block(block, job);
        set_member(c, candidate.member, job.stage_layers, job);
        if (!violations(job).empty() || outside(job, c)) continue;
        visit(candidate, job_of(base, c, bound, candidate));
      }
    }
  }
}

void visit_members(const Job& base, const Choices& c, Bound& bound, const Block& block, Job& job,
                   const std::function<void(const Candidate&, const Job&)>& visit) {
  const std::int64_t layers = base.model.layers;
  for (const std::int64_t v : c.virtual_stages) {
    const std::int64_t stages = block.pp * v;
    for (const PipelineSchedule schedule : schedules_of(c, block.pp, v, block.ep)) {
      for (const Deal deal : c.deal) {
        job.stage_layers.clear();
        if (deal != Deal::kEven) {
          if (stages < 2 || (deal == Deal::kEnds && stages == 2)) continue;
          if (deal == Deal::kEnds && stages == layers + 1) continue;  // one end has none already
          if (deal != Deal::kEnds && deal != Deal::kBalanced && stages > layers + 1) continue;
          job.stage_layers = some_layers(layers, stages);
        }
        Member like;
        like.virtual_stages = narrow(v);
        like.schedule = schedule;
        like.deal = deal;
        visit_lines(base, c, bound, block, like, job, visit);
      }
    }
  }
}

}  // namespace

Instance random_instance(const std::vector<Model>& models, const std::vector<Stack>& stacks,
                         std::uint64_t seed, bool small) {
  Draw draw(seed * 977 + 5);
  const std::vector<std::string> clusters = {"h100", "a100", "h800", "a800", "h200"};
  const std::vector<std::int64_t> sizes = {1, 2, 4, 8, 16, 24};
  Instance instance;
  Job& job = instance.base;
  job.model = one_of(draw, models);
  shorten(job.model, draw.between(1, small ? 6 : 30));
  if (draw.between(0, 3) == 0) job.model.mtp_layers = draw.between(0, 2);
  const std::int64_t devices = small ? one_of(draw, sizes) : 8 * draw.between(1, 12);
  job.cluster = load_cluster(one_of(draw, clusters) + "x" + std::to_string(devices)).value();
  job.stack = one_of(draw, stacks);
  draw_machine(draw, job);
  if (draw.between(0, 3) == 0) job.precision = Precision::kFp8;
  job.sequence_tokens = 512 << draw.between(0, 4);
  job.global_sequences = small ? draw.between(1, 12) : 8 * draw.between(1, 24);
  job.expert_load_cv = draw.coin() ? 0.3 : 0;
  if (draw.coin()) instance.probability_fits = 0.5;
  // From no room at all to plenty.
  const double room = std::pow(2.0, static_cast<double>(draw.between(-5, 0)));
  if (draw.coin()) {
    const auto bytes = static_cast<double>(job.cluster.device.memory.value()) * room;
    job.cluster.device.memory = Bytes(static_cast<std::int64_t>(bytes));
  }
  if (small) instance.pins = Pins::parse(draw_pins(draw, job)).value();
  return instance;
}

Candidate random_candidate(const Job& base, const Space& space, Draw& draw) {
  const Choices& c = space.choices;
  for (;;) {
    Candidate out;
    out.block = one_of(draw, space.blocks);
    const Block& b = out.block;
    const std::int64_t micro_batches = base.global_sequences / (std::int64_t{b.dp} * b.micro_batch);
    const auto chunks = virtual_stages_of(base, c, b.pp, micro_batches);
    if (chunks.empty()) continue;
    const std::int64_t v = one_of(draw, chunks);
    const auto schedules = schedules_of(c, b.pp, v, b.ep);
    if (schedules.empty()) continue;
    Member& m = out.member;
    m.virtual_stages = narrow(v);
    m.schedule = one_of(draw, schedules);
    m.recompute = static_cast<std::uint8_t>(
        draw.between(0, static_cast<std::int64_t>(c.recompute.size()) - 1));
    if (c.recompute[m.recompute].full()) {
      m.full_layers = narrow(one_of(draw, full_layers_of(c, base.model.layers, b.pp * v)));
    }
    const ShardingChoice s = one_of(draw, shardings_of(c, b.data(), b.pp));
    m.sharding = s.sharding;
    m.fsdp_d = narrow(s.fsdp_d);
    m.keeps_gathered = s.keeps_gathered;
    m.deal = one_of(draw, deals_of(c.deal, base.model.layers, b.pp * v));
    return out;
  }
}

Job job_of(const Job& base, const Choices& choices, Bound& bound, const Candidate& candidate) {
  Job job = base;
  const Member& m = candidate.member;
  set_block(candidate.block, job);
  bound.enter(candidate.block);
  set_member(choices, m, bound.stage_layers(m.virtual_stages, m.deal), job);
  return job;
}

namespace {

// Words of a block, each of those that something depends on; others are those of a new job.
std::vector<Block> with_words(const Choices& c, const Block& axes) {
  std::vector<Block> out;
  for (const bool parallel : c.sequence_parallel) {
    for (const ContextExchange exchange : c.exchange) {
      for (const Dispatcher dispatcher : c.dispatcher) {
        for (const Precision precision : c.precision) {
          Block block = axes;
          if (block.tp > 1) block.sequence_parallel = parallel;
          if (block.cp > 1) block.exchange = exchange;
          if (block.ep > 1) block.dispatcher = dispatcher;
          block.precision = precision;
          const bool same = (block.tp == 1 && parallel != c.sequence_parallel.front()) ||
                            (block.cp == 1 && exchange != c.exchange.front()) ||
                            (block.ep == 1 && dispatcher != c.dispatcher.front());
          if (!same) out.push_back(block);
        }
      }
    }
  }
  return out;
}

// Each of the blocks with each of the values.
std::vector<Block> times(const std::vector<Block>& blocks, const std::vector<std::int64_t>& values,
                         std::int32_t Block::*axis) {
  std::vector<Block> out;
  for (Block block : blocks) {
    for (const std::int64_t value : values) {
      block.*axis = narrow(value);
      out.push_back(block);
    }
  }
  return out;
}

}  // namespace

void for_each_job(const Job& base, const Space& space,
                  const std::function<void(const Candidate&, const Job&)>& visit) {
  Job job = base;
  const Choices& c = space.choices;
  const UnitNumbers units(base);
  const Shapes shapes(base, space, units);
  Bound bound(base, space, units, shapes);
  std::vector<Block> all = {Block{}};
  all = times(all, c.tp, &Block::tp);
  all = times(all, c.cp, &Block::cp);
  all = times(all, c.sp, &Block::sp);
  all = times(all, c.pp, &Block::pp);
  all = times(all, c.micro_batch, &Block::micro_batch);
  all = times(all, c.ep, &Block::ep);
  all = times(all, c.etp, &Block::etp);
  for (Block axes : all) {
    const std::int64_t ranks = std::int64_t{axes.tp} * axes.cp * axes.sp * axes.pp;
    if (base.cluster.devices % ranks != 0) continue;
    axes.dp = narrow(base.cluster.devices / ranks);
    if (c.dp > 0 && axes.dp != c.dp) continue;
    for (const Block& block : with_words(c, axes)) visit_members(base, c, bound, block, job, visit);
  }
}

}  // namespace orrery::planner::jobs
