// Units of a job: layers and ends, each priced by itself; and which of them every chunk has.
#pragma once

#include <compare>
#include <cstdint>
#include <vector>

#include "core/job.h"
#include "core/outline/task.h"
#include "simulator/stages/price.h"
#include "simulator/stages/stage.h"

namespace orrery::simulator {

enum class UnitKind : std::uint8_t { kEmbedding, kLayer, kFurther, kHead };

// Units of the same name do the same.
struct UnitName {
  UnitKind kind = UnitKind::kLayer;
  bool moe = false;
  std::int64_t window = 0;
  bool again = false;  // run again whole in backward
  auto operator<=>(const UnitName&) const = default;
};

// The units of one chunk in the order of forward.
struct ChunkUnits {
  bool first = false, last = false;  // of all: has the embedding, the head
  std::vector<UnitName> units;
  std::int64_t shared_tables = 0;  // tables of the last unit, a head, that others share with it
};

using orrery::even_layers;

// By [stage * virtual stages + chunk], as make_chunks.
std::vector<ChunkUnits> units_of_chunks(const Job& job);

// Seconds to gather and to reduce a unit's parameters where they are sharded; else 0.
struct ShardingSeconds {
  double gather = 0, reduce = 0;
};
ShardingSeconds sharding_seconds(const Job& job, const Price& price, const outline::Parameters& p);

struct Unit {
  Spent forward, backward;
  double weight = 0;  // of backward, for the gradients of weights
  ShardingSeconds sharding;
  outline::Parameters parameters;
  UnitMemory memory;
};
// CHECKs that the model has such a layer.
Unit price_unit(const Job& job, const Price& price, const UnitName& name);

}  // namespace orrery::simulator
