// The fastest job of a space, proved: blocks in the order of their bounds; of each, the members
// whose bound is not above the best so far are predicted, until no bound is left below the best.
//
// What a round does depends on the rounds before it alone, and a round's size on nothing, so the
// result and all counts are the same for any number of threads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "planner/jobs/bound.h"
#include "planner/jobs/crew.h"
#include "simulator/stages/step.h"

namespace orrery::planner::jobs {

struct Candidate {
  Block block;
  Member member;
};

// Part of a space; what is empty takes all.
struct Family {
  std::string name;
  std::function<bool(const Block&)> block;
  std::function<bool(const Block&, const Member&)> member;
};

struct Outcome {
  std::optional<Candidate> best;
  double best_s = 0;
  std::int64_t bounded = 0, replayed = 0;  // bounds evaluated, jobs predicted
  double bound_remaining_s = 0;            // of all that was not predicted; best_s where all were
};

class Search {
 public:
  Search(const Job& base, const Space& space, double probability_fits, int threads);
  ~Search();
  Search(const Search&) = delete;
  Search& operator=(const Search&) = delete;

  // With `most_blocks` it ends after so many, once one fits: the best then is what was found, and
  // bound_remaining_s may be below it.
  Outcome best_of(const Family& family, std::size_t most_blocks = 0);
  // Of jobs that run all layers again, on one virtual stage: the one that needs least memory.
  std::optional<Candidate> smallest();

  Job job_of(const Candidate& candidate) const;
  simulator::JobPrediction predict(const Candidate& candidate) const;

 private:
  struct Worker;
  struct Expanded;
  double least_seconds(Worker& worker, const Block& block) const;
  Expanded expand(Worker& worker, const Block& block, double limit, const Family& family) const;
  void collect(Worker& worker, const Block& block, double limit, const Family& family,
               Expanded& out) const;

  const Job& base_;
  const Space& space_;
  UnitNumbers units_;
  Shapes shapes_;
  double probability_fits_, most_bytes_;
  Crew crew_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<double> bounds_;        // by block
  std::vector<std::uint32_t> order_;  // blocks from the least bound on
  std::int64_t bounded_ = 0;          // bounds of blocks
};

// Cores of the machine where `threads` is 0.
std::size_t threads_of(int threads);

}  // namespace orrery::planner::jobs
