// The values of each axis that are searched: divisors, words, and ways of running layers again. A
// pin replaces its list.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/job.h"
#include "planner/jobs/deal.h"
#include "planner/jobs/request.h"

namespace orrery::planner::jobs {

// A way of running parts of layers again in backward. `full`: whole layers, of each virtual stage
// the first `full_layers`, which the space also chooses.
struct RecomputeChoice {
  std::string name;
  Recompute recompute;
  bool full() const { return recompute.full; }
};
// "none" first, "full" last, each simpler than the next.
std::vector<std::string> recompute_names();
// One of them, or modules of a layer with "+" between them ("norm+mlp"). Nothing: it is neither.
std::optional<RecomputeChoice> recompute_named(const std::string& name);

struct Choices {
  std::vector<std::int64_t> tp, cp, sp, pp, ep, etp, micro_batch, virtual_stages;
  std::vector<bool> sequence_parallel, keeps_gathered;  // false first
  // Of cp; heads are exchanged by sp, and by cp where that is pinned.
  std::vector<ContextExchange> exchange;
  std::vector<Dispatcher> dispatcher;
  std::vector<PipelineSchedule> schedule;
  std::vector<Sharding> sharding;
  std::vector<Deal> deal;
  std::vector<Precision> precision;        // that of the job, or those that the pin names
  std::vector<RecomputeChoice> recompute;  // those that do something for this model
  std::int64_t dp = 0, fsdp_d = 0, replicate_d = 0, full_layers = 0;  // pinned; 0: free
  // Not of a job that may not run, but of what is worth looking at; lifted by a pin of the axis.
  std::int64_t most_tensor = 0;       // tp and etp: the innermost links' domain
  std::int64_t least_rows = 0;        // of a sequence on a rank of cp x sp
  std::int64_t most_micro_batch = 0;  // sequences
};
Choices choices_of(const Job& base, const Pins& pins);

std::vector<std::int64_t> divisors(std::int64_t whole);

// Schedules of so many virtual stages a rank, of those that are listed: with one stage there is
// one.
std::vector<PipelineSchedule> schedules_of(const Choices& choices, std::int64_t pp,
                                           std::int64_t virtual_stages, std::int64_t ep);
// Layers of a virtual stage that run again whole: 0 (all), and parts of them, in eighths where
// there are many.
std::vector<std::int64_t> full_layers_of(const Choices& choices, std::int64_t layers,
                                         std::int64_t stages);

// The same of a recompute choice: 0 alone where it is not of whole layers.
std::vector<std::int64_t> depths_of(const Choices& choices, std::size_t recompute,
                                    std::int64_t layers, std::int64_t stages);

// How states are split: what, over how many of the data axis.
struct ShardingChoice {
  Sharding sharding = Sharding::kNone;
  std::int64_t fsdp_d = 1;
  bool keeps_gathered = false;
};
std::vector<ShardingChoice> shardings_of(const Choices& choices, std::int64_t data,
                                         std::int64_t pp);

}  // namespace orrery::planner::jobs
