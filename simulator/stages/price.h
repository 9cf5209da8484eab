// What tasks of an outline take on a device and over its links.
//
// Products: FLOPs over what the device reaches, stretched by the last wave of tiles that leaves
// processors idle, by short sums, and not faster than their bytes. Passes: bytes. Collectives:
// rings over the nodes that a group touches, each rank with a link of its own into the network; an
// exchange sends what is not for its own node over it. Latency grows with the ranks of a ring.
#pragma once

#include <cstdint>

#include "core/job.h"
#include "core/outline/task.h"

namespace orrery::simulator {

// Where the ranks of a group are.
struct Span {
  double ranks = 1;
  double in_node = 1;  // of the group, on one node
  double nodes() const { return ranks / in_node; }
};

class Price {
 public:
  explicit Price(const Job& job);

  double seconds(const outline::Task& task) const;
  Span span(outline::Axis axis) const;
  // `bytes` as outline::Task has them.
  double collective(outline::CollectiveKind kind, const Span& span, double bytes) const;
  // A pass over `bytes` of memory.
  double pass(double bytes) const;
  // Of one message between neighbouring stages.
  double send(double bytes) const;

 private:
  double product(const outline::Task& task) const;
  double attention(const outline::Task& task) const;
  // `once_a_node`: rows that go to several experts of a node go over its links once.
  double exchange(const Span& span, double bytes, bool once_a_node) const;
  double reduced_in_network(const Span& span, double bytes) const;

  const Job& job_;
  double inner_ = 0, outer_ = 0;  // bytes a second that a rank reaches in its node and beyond
  double inner_latency_ = 0, outer_latency_ = 0;
  double domain_ = 1;
};

}  // namespace orrery::simulator
