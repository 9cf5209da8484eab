// Prices of the units of a block, each made once, and chunks and ranks as sums of them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "planner/jobs/space.h"
#include "simulator/stages/price.h"
#include "simulator/stages/units.h"

namespace orrery::planner::jobs {

// What the bound needs of a unit: seconds, parameters of a rank, bytes of a micro-batch.
struct UnitPrice {
  double forward = 0, backward = 0, weight = 0;
  double forward_hides = 0, backward_hides = 0;  // exchanges that another micro-batch can hide
  double dense = 0, expert = 0, replicated = 0;
  double saves = 0, extra = 0;  // kept; beyond it while the unit goes backward
};
using PriceTable = std::vector<UnitPrice>;  // by the unit's number

// Chunks that are alike: units of each kind, by number.
struct ChunkShape {
  std::vector<std::pair<std::int32_t, double>> counts;
  std::int32_t front = 0, back = 0;
  double shared_tables = 0;
  auto operator<=>(const ChunkShape&) const = default;
};

// Which chunks the ranks of a pipeline have: of kinds of chunks, and kinds of ranks.
struct Shape {
  std::vector<ChunkShape> chunks;
  std::vector<std::vector<std::int32_t>> ranks;  // kinds: chunks in order
  std::vector<std::int32_t> kind;                // of each rank
  std::vector<std::int32_t> plain;  // of each kind: that of the shape where nothing runs again
};

// Numbers of the model's units: plain ones, then layers that run again whole.
class UnitNumbers {
 public:
  explicit UnitNumbers(const Job& base);
  const std::vector<simulator::UnitName>& names() const { return names_; }
  std::int32_t of(const simulator::UnitName& name) const;
  // `plain`: of the job where nothing runs again; nullptr: this is it.
  Shape shape_of(const Job& job, const Shape* plain) const;
  // Of the whole model, those of no stage in particular: units of each kind.
  const std::vector<std::pair<std::int32_t, double>>& whole() const { return whole_; }
  // Of what stands behind the last layer, in order.
  const std::vector<std::int32_t>& ends() const { return ends_; }

 private:
  std::vector<simulator::UnitName> names_;
  std::vector<std::pair<std::int32_t, double>> whole_;
  std::vector<std::int32_t> ends_;
};

// Shapes by (stages, virtual stages, whole layers run again or -1) of layers that are dealt out
// evenly, made once for a space.
class Shapes {
 public:
  Shapes(const Job& base, const Space& space, const UnitNumbers& units);
  const Shape& of(std::int64_t pp, std::int64_t virtual_stages, std::int64_t full_layers) const;

 private:
  std::map<std::tuple<std::int64_t, std::int64_t, std::int64_t>, Shape> shapes_;
};

// Prices of one block after the other; cheap where the layer_key stays. One for each thread.
class Prices {
 public:
  Prices(const Job& base, const Choices& choices, const UnitNumbers& units);
  Prices(const Prices&) = delete;
  Prices& operator=(const Prices&) = delete;
  void enter(const Block& block);
  // Of a recompute choice. With kParameters gathers and reductions are not in it.
  const PriceTable& table(std::size_t recompute);
  // Seconds to gather and reduce each unit's parameters under the job's sharding.
  void sharding(const PriceTable& table, std::vector<simulator::ShardingSeconds>& out) const;
  Job& job() { return job_; }
  const Job& job() const { return job_; }
  const simulator::Price& price() const { return price_; }

 private:
  PriceTable make_table(const RecomputeChoice& choice);

  Job job_;
  simulator::Price price_;
  const Choices& choices_;
  const UnitNumbers& units_;
  Block block_;
  bool entered_ = false;
  std::vector<PriceTable> tables_;
};

}  // namespace orrery::planner::jobs
