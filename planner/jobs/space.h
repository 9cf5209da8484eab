// The space of jobs: blocks of those that differ only in stages, recompute and sharding, and how
// many there are of them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "planner/jobs/choices.h"

namespace orrery::planner::jobs {

// What decides the prices of layers, and the number of stages.
struct Block {
  std::int32_t tp = 1, cp = 1, sp = 1, pp = 1, dp = 1, ep = 1, etp = 1, micro_batch = 1;
  bool sequence_parallel = false;
  ContextExchange exchange = ContextExchange::kRing;
  Dispatcher dispatcher = Dispatcher::kAllToAll;
  Precision precision = Precision::kBf16;
  std::int64_t data() const { return std::int64_t{dp} * cp * sp; }  // ranks of the data axis
  // Blocks that are equal in this have layers of the same prices.
  auto layer_key() const {
    return std::tuple(tp, cp, sp, ep, etp, micro_batch, sequence_parallel, exchange, dispatcher,
                      precision);
  }
};

// One job of a block.
struct Member {
  std::int32_t virtual_stages = 1, full_layers = 0, fsdp_d = 1;
  std::uint8_t recompute = 0;  // of Choices::recompute
  PipelineSchedule schedule = PipelineSchedule::kOneForwardOneBackward;
  Sharding sharding = Sharding::kNone;
  bool keeps_gathered = false;
  Deal deal = Deal::kEven;
};

// Virtual stages of a rank that no rule forbids.
std::vector<std::int64_t> virtual_stages_of(const Job& base, const Choices& choices,
                                            std::int64_t pp, std::int64_t micro_batches);

// Sets the fields of `job`, which is a base_job, to those of a member; `stage_layers`, which may
// depend on prices, are those of Bound::stage_layers.
void set_block(const Block& block, Job& job);
void set_member(const Choices& choices, const Member& member,
                std::vector<std::int64_t> stage_layers, Job& job);

// Less is simpler. Of jobs that cannot be told apart the simplest is taken: the fewest mechanisms;
// then the fewest stages, context, sequence, tensor and expert ranks; the smallest micro-batch; 16
// bits; the plainest recompute; the least that is split; the schedule, exchange and dispatcher that
// stand first in their lists. Mechanisms: an axis beyond data, several virtual stages, a schedule
// that parts or overlaps cells, layers dealt out unevenly, products in 8 bits, recompute, sharded
// parameters, replicas of shards, a dispatcher of its own.
using Simplicity = std::tuple<int, std::int32_t, std::int32_t, std::int32_t, std::int32_t,
                              std::int32_t, std::int32_t, std::int32_t, std::int32_t, int, int,
                              std::int32_t, int, bool, std::int32_t, int, int, int, int, bool>;
Simplicity simplicity(const Block& block, const Member& member);

struct Space {
  Choices choices;
  std::vector<Block> blocks;  // those of one layer_key side by side
  std::int64_t legal = 0;     // jobs
  // Layouts (tp, cp, sp, pp, micro-batch, ep, etp, virtual stages) by the first rule that they
  // break: those of violations(job), and what is not worth looking at: tensor_domain, context_rows,
  // micro_batch_tokens.
  std::int64_t layouts = 0;  // legal ones
  std::map<std::string, std::int64_t> removed;
};
Space make_space(const Job& base, Choices choices);

}  // namespace orrery::planner::jobs
