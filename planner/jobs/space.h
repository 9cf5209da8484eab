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
  std::int32_t tp = 1, cp = 1, pp = 1, dp = 1, ep = 1, etp = 1, micro_batch = 1;
  bool sequence_parallel = false;
  ContextExchange exchange = ContextExchange::kRing;
  Dispatcher dispatcher = Dispatcher::kAllToAll;
  // Blocks that are equal in this have layers of the same prices.
  auto layer_key() const {
    return std::tuple(tp, cp, ep, etp, micro_batch, sequence_parallel, exchange, dispatcher);
  }
};

// One job of a block.
struct Member {
  std::int32_t virtual_stages = 1, full_layers = 0, fsdp_d = 1;
  std::uint8_t recompute = 0;  // of Choices::recompute
  PipelineSchedule schedule = PipelineSchedule::kOneForwardOneBackward;
  Sharding sharding = Sharding::kNone;
  bool keeps_gathered = false;
};

// Virtual stages of a rank that no rule forbids.
std::vector<std::int64_t> virtual_stages_of(const Job& base, const Choices& choices,
                                            std::int64_t pp, std::int64_t micro_batches);

// Sets the fields of `job`, which is a base_job, to those of a member.
void set_block(const Block& block, Job& job);
void set_member(const Choices& choices, const Member& member, Job& job);

// Less is simpler. Of jobs that take the same time the simplest is taken: fewest stages, then
// context, tensor and expert ranks; the smallest micro-batch; the plainest recompute; the least
// that is split; the schedule, exchange and dispatcher that stand first in their lists.
using Simplicity =
    std::tuple<std::int32_t, std::int32_t, std::int32_t, std::int32_t, std::int32_t, std::int32_t,
               std::int32_t, int, std::int32_t, int, bool, std::int32_t, int, int, int, bool>;
Simplicity simplicity(const Block& block, const Member& member);

struct Space {
  Choices choices;
  std::vector<Block> blocks;  // those of one layer_key side by side
  std::int64_t legal = 0;     // jobs
  // Layouts (tp, cp, pp, micro-batch, ep, etp, virtual stages) by the first rule that they break:
  // those of violations(job), and what is not worth looking at: tensor_domain, context_rows,
  // micro_batch_tokens.
  std::int64_t layouts = 0;  // legal ones
  std::map<std::string, std::int64_t> removed;
};
Space make_space(const Job& base, Choices choices);

}  // namespace orrery::planner::jobs
