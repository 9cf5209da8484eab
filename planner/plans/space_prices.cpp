// See space_prices.h.
#include "planner/plans/space_prices.h"

#include <algorithm>
#include <map>

#include "core/check.h"

namespace orrery::planner {
namespace {

std::size_t at(std::int32_t i) {
  return static_cast<std::size_t>(i);
}

}  // namespace

SpacePrices::SpacePrices(Costs& costs, const Space& space) : costs_(costs), space_(space) {
  // What block_costs and the chunks of a space go by.
  std::map<std::array<std::int64_t, 5>, std::uint32_t> known;
  for (const Layout& l : space.layouts) {
    const std::array<std::int64_t, 5> key = {l.micro_batch, l.sp, l.ep, l.accumulation,
                                             l.dispatcher == "all_gather"};
    const auto [found, fresh] = known.emplace(key, static_cast<std::uint32_t>(kinds_.size()));
    if (fresh) {
      Kind k;
      k.chunks = &space.chunks_of(l);
      k.blocks.assign(k.chunks->size(), nullptr);
      k.loss_chunked.assign(k.chunks->size(), std::nullopt);
      kinds_.push_back(std::move(k));
    }
    kind_of_.push_back(found->second);
  }
  entry_of_.assign(space.layouts.size(), {-1, -1});
}

const std::vector<Chunks>& SpacePrices::chunks(std::int32_t l) const {
  return *kinds_[kind_of(l)].chunks;
}

bool SpacePrices::loss_chunked(std::int32_t l, std::int32_t c) {
  std::optional<bool>& known = kind(l).loss_chunked[at(c)];
  if (!known) known = costs_.chunked(layout(l), chunks(l)[at(c)]);
  return *known;
}

CandidateCosts& SpacePrices::entry(std::int32_t l, bool chunked) {
  std::int32_t& index = entry_of_[at(l)][chunked ? 1 : 0];
  if (index < 0) {
    const auto all = static_cast<std::int32_t>(chunks(l).size());
    std::int32_t like = 0;
    while (like < all && loss_chunked(l, like) != chunked) ++like;
    CHECK(like < all, "no chunks of this kind");
    index = static_cast<std::int32_t>(entries_.size());
    entries_.push_back(costs_.all_unit_costs(layout(l), chunks(l)[at(like)]));
  }
  return entries_[at(index)];
}

const CandidateCosts& SpacePrices::units(std::int32_t l, bool chunked) {
  return entry(l, chunked);
}

const CandidateCosts& SpacePrices::routed(std::int32_t l, bool chunked) {
  CandidateCosts& c = entry(l, chunked);
  if (c.routed == nullptr) costs_.add_routing(layout(l), chunks(l).front(), c);
  return c;
}

const BlockCosts& SpacePrices::block(std::int32_t l, std::int32_t c) {
  const BlockCosts*& known = kind(l).blocks[at(c)];
  if (known == nullptr) known = &costs_.block_costs(layout(l), chunks(l)[at(c)]);
  return *known;
}

CandidateCosts SpacePrices::candidate(std::int32_t l, std::int32_t c) {
  CandidateCosts costs = routed(l, loss_chunked(l, c));
  costs.block = &block(l, c);
  return costs;
}

const BlockCosts& SpacePrices::least_blocks(std::int32_t l) {
  Kind& k = kind(l);
  if (k.least) return *k.least;
  BlockCosts least = block(l, 0);
  for (std::size_t c = 0; c < k.blocks.size(); ++c) {
    const BlockCosts& b = block(l, static_cast<std::int32_t>(c));
    for (const auto time :
         {&BlockCosts::loss, &BlockCosts::attention_fwd, &BlockCosts::attention_bwd,
          &BlockCosts::core_fwd, &BlockCosts::core_bwd}) {
      least.*time = std::min(least.*time, b.*time);
    }
  }
  k.least = least;
  return *k.least;
}

}  // namespace orrery::planner
