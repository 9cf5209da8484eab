// Lower bounds of simulator::predict for the jobs of a block, from prices of their units: of the
// step in a few hundred nanoseconds, and of the memory that is needed.
//
// With fill: forwards of the first chunk on the ranks before; busy: a rank's cells of a
// micro-batch; drain: backwards of the first chunk on the way back; once: what a rank does once a
// step, the slowest rank s of a pipeline takes at least
//
//   end(s) >= fill(s) + micro_batches * busy(s) + once(s)
//   end(p) >= fill(s) + micro_batches * busy(s) + drain(s to p) + once(p)   for p <= s
//
// and the whole step what one micro-batch takes through all stages and back. Sends make 1F1B
// slower: see cycle() in the source. Sharded parameters: a chunk takes as long as its compute or as
// its links.
#pragma once

#include <cstdint>
#include <map>
#include <tuple>
#include <vector>

#include "planner/jobs/prices.h"
#include "simulator/stages/memory.h"
#include "simulator/stages/once.h"

namespace orrery::planner::jobs {

// Ranks of a kind, seconds of a micro-batch.
struct KindSeconds {
  double forward = 0, backward = 0, weight = 0, hides = 0;  // of all chunks
  double pair_hides = 0;  // of a forward cell and a backward one beside it, at most
  double front_forward = 0, front_backward = 0, front_weight = 0;  // of the first chunk
};

// Parameters of a chunk on one rank, and of its largest unit.
struct ChunkParameters {
  double dense = 0, expert = 0, largest = 0;
};

// The members of a block that share virtual stages, recompute and dealing out.
struct Line {
  std::int64_t virtual_stages = 1, full_layers = 0;
  std::size_t recompute = 0;
  Deal deal = Deal::kEven;
  const Shape* shape = nullptr;
  const Shape* plain = nullptr;  // where nothing runs again
  const PriceTable* table = nullptr;
  std::vector<KindSeconds> kinds;    // without what sharded parameters add
  std::vector<double> saves, extra;  // by kind: of the chunk that keeps least
  double path = 0, slowest_forward = 0, slowest_backward = 0;  // of all virtual stages
  double path_weight = 0;
};

class Bound {
 public:
  Bound(const Job& base, const Space& space, const UnitNumbers& units, const Shapes& shapes);

  // From here on, of this block. `shardings` of its members: shardings().
  void enter(const Block& block);
  const std::vector<ShardingChoice>& shardings() const { return shardings_; }
  std::int64_t micro_batches() const { return micro_batches_; }
  Line line(std::int64_t virtual_stages, std::size_t recompute, std::int64_t full_layers,
            Deal deal);
  // Does another of the deals give the same layers? Of kBalanced alone.
  bool repeats(const std::vector<Deal>& deals, std::int64_t virtual_stages, Deal deal);
  // Job::stage_layers of the block's members.
  const std::vector<std::int64_t>& stage_layers(std::int64_t virtual_stages, Deal deal);

  // Of all members with these stages and schedule, however their layers are dealt out.
  double ideal_seconds(std::int64_t virtual_stages, PipelineSchedule schedule);
  // Of all members of the line with the schedule, whatever is sharded.
  double floor_seconds(const Line& line, PipelineSchedule schedule);
  double seconds(const Line& line, PipelineSchedule schedule, std::size_t sharding);
  // Bytes of a device that the member needs, what libraries take among them.
  double bytes(const Line& line, PipelineSchedule schedule, std::size_t sharding);

  // What is there all through a step alone, of any recompute and schedule.
  double state_bytes(std::int64_t virtual_stages, Deal deal, std::size_t sharding);

  // Of any member, by the same functions; for tests.
  double seconds_of(const Block& block, const Member& member);
  double bytes_of(const Block& block, const Member& member);

 private:
  // What happens once, and states, of the kinds of ranks of a plain shape under each sharding.
  struct Once {
    bool made = false;
    std::vector<simulator::OncePerStep> once;
    std::vector<simulator::ChunkStates> states;
  };
  struct Shares {
    std::vector<std::vector<ChunkParameters>> ranks;  // by kind of rank
    std::vector<Once> once;                           // by sharding
  };
  const std::vector<KindSeconds>& kinds_of(const Line& line, std::size_t sharding);
  void sum_chunks(const Line& line, const ShardingChoice* choice,
                  const std::vector<simulator::ShardingSeconds>* links,
                  std::vector<KindSeconds>& out) const;
  const Once& once_of(std::int64_t virtual_stages, Deal deal, std::size_t sharding);
  const Shape& shape_of(std::int64_t virtual_stages, std::int64_t full_layers, Deal deal);
  double step_of(const Line& line, const std::vector<KindSeconds>& kinds, PipelineSchedule schedule,
                 const Once* once, bool exact) const;
  double ranks_end(const Line& line, const std::vector<KindSeconds>& kinds,
                   PipelineSchedule schedule, const Once* once, bool exact) const;
  // Of what the rank's exchanges take in a step, as much as schedules hide at most.
  double hidden(const Line& line, const KindSeconds& kind, PipelineSchedule schedule,
                std::int32_t rank) const;
  double cycle(const Line& line, const std::vector<KindSeconds>& kinds) const;
  const std::vector<std::int32_t>& in_flight(PipelineSchedule schedule,
                                             std::int64_t virtual_stages);
  std::size_t index_of(const ShardingChoice& choice) const;
  void set_sharding(const ShardingChoice& choice);

  const Space& space_;
  const UnitNumbers& units_;
  const Shapes& shapes_;
  Prices prices_;
  Block block_;
  std::int64_t micro_batches_ = 1;
  double send_ = 0, straggle_ = 0;
  std::vector<ShardingChoice> shardings_;
  std::map<std::pair<std::int64_t, std::int64_t>, std::vector<ShardingChoice>> all_shardings_;
  std::map<std::pair<std::int64_t, Deal>, Shares> once_;  // by virtual stages and deal
  // Layers of stages: of the block by virtual stages, and of all by (stages, virtual stages, deal).
  std::map<std::int64_t, std::vector<std::int64_t>> balanced_;
  std::map<std::tuple<std::int64_t, std::int64_t, Deal>, std::vector<std::int64_t>> dealt_;
  // Shapes of these, by (stages, whole layers run again or -1, layers).
  std::map<std::tuple<std::int64_t, std::int64_t, std::vector<std::int64_t>>, Shape> uneven_;
  std::vector<std::vector<simulator::ShardingSeconds>> links_;  // by sharding; empty: not made
  std::map<std::tuple<PipelineSchedule, std::int64_t, std::int64_t, std::int64_t>,
           std::vector<std::int32_t>>
      in_flight_;
  std::vector<KindSeconds> scratch_;
};

}  // namespace orrery::planner::jobs
