// A lower bound of a candidate's peak memory, without lowering it whole.
//
// Layers repeat, so a few of them are lowered (a probe: the candidate with up to four layers, all
// run again or swapped alike, and one pass) and their timeline is stretched to the real depth:
// state and step gradients by their formulas, what each layer below keeps for its backward, and
// what the worst op of one layer's backward, or of the loss, adds to that. Loads are balanced: some
// rank holds at least as much. Buckets of layers and layers that stay gathered only hold more. A
// model whose layers differ in kind gets the bound of its state alone.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "planner/plans/costs.h"

namespace orrery::planner {

// What ops of a probe add to state, step gradients and the layers below.
struct Probe {
  std::int64_t kept = 0;             // by one layer until its backward
  std::int64_t loss = 0;             // at the worst op of the loss, all layers' `kept` aside
  std::vector<std::int64_t> layers;  // at the worst op of each layer's backward
};

// Probes of several searches: each is measured once. Never iterated.
class ProbeStore {
 public:
  using Key = std::array<std::int64_t, 15>;
  struct KeyHash {
    std::size_t operator()(const Key& key) const;
  };
  using Probes = std::unordered_map<Key, Probe, KeyHash>;
  // Of jobs that differ at most in the length of a step and in what devices and links can do.
  Probes& of(const Model& model, const Workload& workload, std::int64_t devices);

 private:
  std::map<std::string, Probes> by_job_;  // by what the probes read
};

// Probes that candidates of one shape have found: those that differ at most in how states are
// shared, in depths and in the place of moments. Of one ProbeStore.
struct KnownProbes {
  std::array<const Probe*, 16> layers{};  // by what becomes of a layer; null until asked for
  const Probe* loss = nullptr;
};

class Footprints {
 public:
  explicit Footprints(const Costs& costs, std::shared_ptr<ProbeStore> store = nullptr);

  // Of one device. `state` (shards, moments, step gradients) is known without a probe.
  Bytes state(const Layout& layout, const MemoryPolicy& policy, const CandidateCosts& prices) const;
  // A search that asks again and again for one shape keeps its `known`.
  Bytes least(const Layout& layout, const Choice& choice, const CandidateCosts& prices);
  Bytes least(const Layout& layout, const Choice& choice, const CandidateCosts& prices,
              KnownProbes& known);
  // Whether least() sees what swapping leaves: not in the shortest models.
  bool bounds_swap() const;
  // What a rank keeps on its host: moments, and the inputs of swapped layers.
  Bytes host(const Layout& layout, const Choice& choice, const CandidateCosts& prices) const;

 private:
  // What becomes of a layer between its forward and its backward.
  struct Kind {
    bool attention = false, ffn = false, experts = false;  // run again
    bool swapped = false;
    std::size_t number() const {
      return (attention ? 1U : 0U) + (ffn ? 2U : 0U) + (experts ? 4U : 0U) + (swapped ? 8U : 0U);
    }
  };
  // Layers [begin, end) of one kind.
  struct Span {
    std::int64_t begin = 0, end = 0;
    Kind kind;
  };
  struct Spans {
    std::array<Span, 5> all;
    std::size_t count = 0;
    const Span* begin() const { return all.data(); }
    const Span* end() const { return all.data() + count; }
  };
  Spans spans(const MemoryPolicy& policy) const;
  // Loss chunks do not matter to layers, nor attention chunks to the loss: each has its own probes.
  const Probe& layer_probe(const Layout& layout, const Chunks& chunks, const Kind& kind);
  const Probe& loss_probe(const Layout& layout, const Chunks& chunks);
  const Probe& probe(const Layout& layout, const Chunks& chunks, const Kind& kind);
  Probe measure(const Plan& plan) const;
  std::int64_t shards(const CandidateCosts& prices) const;
  std::int64_t gradients_above(const Choice& choice, const CandidateCosts& prices,
                               std::int64_t layer) const;
  std::int64_t staged_moments(const Choice& choice, const CandidateCosts& prices) const;

  const Costs& costs_;
  bool uniform_ = true;
  std::shared_ptr<ProbeStore> store_;
  ProbeStore::Probes& probes_;
};

}  // namespace orrery::planner
