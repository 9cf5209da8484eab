// The stages of a job: which layers each has, and what a cell of it takes.
#pragma once

#include <cstdint>
#include <vector>

#include "core/job.h"
#include "core/outline/task.h"
#include "simulator/stages/price.h"

namespace orrery::simulator {

// Seconds by what they are spent on, of one micro-batch or one step.
struct Spent {
  double compute = 0, host = 0;
  double exposed[outline::kNumAxes] = {};  // communication that nothing hides, by axis
  double total() const;
  Spent& operator+=(const Spent& other);
};

// Memory of a layer or an end: bytes of a micro-batch (outline::Outline), and its parameters.
struct UnitMemory {
  double saves = 0, worst = 0, transient = 0;
  double parameters = 0;
};

// One chunk of layers on one rank.
struct Chunk {
  bool first = false, last = false;  // of all: has the embedding, the head
  Spent forward, backward;
  double weight = 0;              // of backward, seconds for the gradients of weights
  double dense = 0, expert = 0;   // parameters on one rank
  std::vector<UnitMemory> units;  // in the order of forward
};

// By [stage * virtual stages + chunk]. Layers as the job deals them out, else evenly; what is left
// over goes to the stages in the middle, since the ends have the embedding and the head.
std::vector<Chunk> make_chunks(const Job& job, const Price& price);

// Sharded parameters are gathered in each pass of a micro-batch; between stages, where many
// micro-batches are on their way, once a step. Gradients are reduced in each.
bool gathers_once(const Job& job);

// What `tasks` take one after the other; collectives that may run beside products are hidden as
// far as those last, but for the share that the stack exposes.
Spent spend(const Job& job, const Price& price, const std::vector<outline::Task>& tasks);

}  // namespace orrery::simulator
