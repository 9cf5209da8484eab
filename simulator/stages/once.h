// What a rank does once a step beside the cells of its pipeline: gradients reduced, parameters
// updated and gathered.
#pragma once

#include "core/job.h"
#include "simulator/stages/price.h"

namespace orrery::simulator {

// Seconds of one rank.
struct OncePerStep {
  double reduce = 0;  // gradients over the ranks that hold other sequences
  double gather = 0;  // updated parameters back
  double update = 0;
  double total() const { return reduce + gather + update; }
};

// Of a rank with so many dense and expert parameters.
OncePerStep once_per_step(const Job& job, const Price& price, double dense, double expert);

// What is left of it beside `forward` and `backward`, seconds of one micro-batch through all chunks
// of the rank: the last backward and the first forward hide what the stack lets run beside them.
OncePerStep not_hidden(const Job& job, const OncePerStep& once, double forward, double backward);

}  // namespace orrery::simulator
