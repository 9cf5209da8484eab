// The verifier of outlines: what the layers and ends of any job over all axes must keep, whichever
// mechanism made them. Its closed forms are those of papers and of core/models/count.cpp, none
// comes from the code that makes outlines.
#pragma once

#include <vector>

#include "core/job.h"
#include "core/outline/task.h"

namespace orrery::outline {

// Every layer of a job and its ends. `again`, by layer: backward runs it again whole.
struct Pieces {
  Piece embedding, further, head;  // further: once for each further token
  std::vector<Piece> layers;
  std::vector<bool> again;
};
// CHECKs that violations(job) is empty. Of a recompute of some layers of each stage, the first of
// all layers stand for them.
Pieces pieces_of(const Job& job);

// All violations in a fixed order, each with its layer, task and values; empty when sound.
//
//   flops_conserved       products and attention of all ranks of a stage are not those of the
//                         model's closed form; backward is not twice the products (once with
//                         adapters), 2.5 times a flash kernel
//   recompute_exact       what is run again is not, task by task, what forward did of the modules
//                         that the job names; op by op, not half of the products, all passes and
//                         what brings rows
//   parameters_conserved  the ranks together do not hold the model's parameters, what several hold
//                         counted once
//   collective_pairs      a forward collective without its backward counterpart: the same axis and
//                         bytes, a gather for a scatter, a sum for a copy, an exchange for itself
//   reads_what_is_kept    bytes kept are not those that forward's tasks leave; what is run again
//                         keeps more than its inputs; a weight whose input nobody keeps
//   axis_of_group         a collective on an axis of one rank; an axis of several ranks without
//                         the collectives that it needs, where it needs them
//   collective_bytes      a collective that does not carry the rows of its group
std::vector<Violation> verify(const Job& job, const Pieces& pieces);

}  // namespace orrery::outline
