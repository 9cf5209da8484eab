// Prices of the candidates of a space, by their place in it. A search asks for each many times, so
// what Costs looks up by keys is here found by index.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "planner/plans/costs.h"
#include "planner/plans/space.h"

namespace orrery::planner {

class SpacePrices {
 public:
  SpacePrices(Costs& costs, const Space& space);

  // Layouts of one kind have the same blocks and chunks.
  std::size_t kinds() const { return kinds_.size(); }
  std::size_t kind_of(std::int32_t layout) const {
    return kind_of_[static_cast<std::size_t>(layout)];
  }
  // Chunks of a layout, as Space::chunks_of, and whether the loss runs in several under each.
  const std::vector<Chunks>& chunks(std::int32_t layout) const;
  bool loss_chunked(std::int32_t layout, std::int32_t chunks);
  // Units of a layout under chunks of this kind. References stay valid.
  const CandidateCosts& units(std::int32_t layout, bool loss_chunked);
  // The same with routing; without blocks.
  const CandidateCosts& routed(std::int32_t layout, bool loss_chunked);
  CandidateCosts candidate(std::int32_t layout, std::int32_t chunks);
  // Of the times that chunks change, the least under any.
  const BlockCosts& least_blocks(std::int32_t layout);

 private:
  struct Kind {
    const std::vector<Chunks>* chunks = nullptr;
    std::vector<const BlockCosts*> blocks;          // by chunks; null until asked for
    std::vector<std::optional<bool>> loss_chunked;  // by chunks
    std::optional<BlockCosts> least;
  };
  const Layout& layout(std::int32_t l) const { return space_.layouts[static_cast<std::size_t>(l)]; }
  Kind& kind(std::int32_t l) { return kinds_[kind_of(l)]; }
  CandidateCosts& entry(std::int32_t layout, bool loss_chunked);
  const BlockCosts& block(std::int32_t layout, std::int32_t chunks);

  Costs& costs_;
  const Space& space_;
  std::vector<Kind> kinds_;
  std::vector<std::uint32_t> kind_of_;                 // by layout
  std::vector<std::array<std::int32_t, 2>> entry_of_;  // by layout and loss_chunked; -1: none yet
  std::deque<CandidateCosts> entries_;
};

}  // namespace orrery::planner
