// Closed forms that outlines are held against: FLOPs, parameters and the bytes that move, of whole
// layers of a model, by what papers count.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/job.h"
#include "core/outline/task.h"

namespace orrery::outline {

class Forms {
 public:
  // Of one micro-batch forward over all ranks that share it, by part of a layer.
  using Flops = std::map<std::string, double>;
  // A collective of forward: after and before the tasks of these names (nullptr: anywhere).
  struct Moved {
    Axis axis;
    CollectiveKind kind;
    double bytes;
    const char *after, *before;
  };

  explicit Forms(const Job& job) : job_(job) {}

  static std::string part_of(Module module);
  Flops layer_flops(std::int64_t layer) const;
  Flops further_flops() const;
  Flops head_flops() const;
  std::vector<Moved> embedding_moved() const;
  std::vector<Moved> layer_moved(std::int64_t layer) const;
  std::vector<Moved> further_moved() const;
  std::vector<Moved> head_moved() const;

  double ranks() const;  // that share a micro-batch: tensor, context and sequence ones
  double ranks_of(Axis axis) const;
  double width() const;           // bytes of an activation
  double row_bytes() const;       // of one context rank's rows of the residual stream
  double gathered_bytes() const;  // the same on their way to products, in 8 bit where these are
  double input_bytes() const;
  // Of a layer: key and value heads that several tensor ranks hold, where there are fewer heads.
  double repeated_key_parameters() const;
  // Query and key pairs of all tokens of a micro-batch that attention computes, one head: as many
  // as if each context rank had those of the fullest.
  double pairs(std::int64_t layer) const;
  // Over the mean, of the expert group's fullest rank.
  double load() const;

 private:
  double tokens() const;
  bool inside() const;  // scores never leave the attention kernel
  double projections() const;
  double pairs_within(std::int64_t layer, std::int64_t from, std::int64_t to) const;
  // Rows that choose experts, over all tensor ranks: each has its own part, or all of them.
  double routed_rows() const;
  void attention_moved(std::vector<Moved>& out) const;
  void expert_moved(std::vector<Moved>& out) const;

  const Job& job_;
};

}  // namespace orrery::outline
