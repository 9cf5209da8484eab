// A lower bound of a candidate's peak memory, without lowering it whole.
//
// Layers repeat, so a few of them are lowered (a probe: the candidate with up to four layers and
// one micro-batch) and their timeline is stretched to the real depth: state and step gradients by
// their formulas, what each layer below keeps for its backward, and what the worst op of one
// layer's backward, or of the loss, adds to that. Loads are balanced: some rank holds at least as
// much. A model whose layers differ in kind gets the bound of its state alone.
#pragma once

#include <cstdint>
#include <map>
#include <tuple>
#include <vector>

#include "planner/costs.h"

namespace orrery::planner {

class Footprints {
 public:
  explicit Footprints(const Costs& costs);

  // Of one device. `state` (shards, moments, step gradients) is known without a probe.
  Bytes state(const Layout& layout, const CandidateCosts& prices) const;
  Bytes least(const Layout& layout, const Choice& choice, const CandidateCosts& prices);

 private:
  // What ops of a probe add to state, step gradients and the layers below.
  struct Probe {
    std::int64_t kept = 0;             // by one layer until its backward
    std::int64_t loss = 0;             // at the worst op of the loss, all layers' `kept` aside
    std::vector<std::int64_t> layers;  // at the worst op of each layer's backward
  };
  using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, bool,
                         bool, bool>;
  // Loss chunks do not matter to layers, nor attention chunks to the loss: each has its own probes.
  const Probe& layer_probe(const Layout& layout, const Choice& choice, bool recompute);
  const Probe& loss_probe(const Layout& layout, const Choice& choice);
  const Probe& probe(const Layout& layout, const Chunks& chunks, bool recompute);
  Probe measure(const Plan& plan) const;
  std::int64_t gradients_above(const CandidateCosts& prices, std::int64_t layer) const;

  const Costs& costs_;
  bool uniform_ = true;
  std::map<Key, Probe> probes_;
};

}  // namespace orrery::planner
