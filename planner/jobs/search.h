// The best job of a space, proved: blocks in the order of their bounds; of each, the members whose
// bound is not above the best so far are predicted, until no bound is left below the best.
//
// What a round does depends on the rounds before it alone, and a round's size on nothing, so the
// result and all counts are the same for any number of threads, unless time ends a search.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "planner/jobs/bound.h"
#include "planner/jobs/crew.h"
#include "planner/jobs/score.h"
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

// Seconds are scores: steps, or what jobs are ranked by instead.
struct Outcome {
  std::optional<Candidate> best;
  double best_s = 0;
  std::int64_t bounded = 0, replayed = 0;  // bounds evaluated, jobs predicted
  double bound_remaining_s = 0;            // of all that was not predicted; best_s where all were
  bool stopped = false;                    // by time, or by `most_blocks`
};

// Jobs that fit and whose score is at most a limit, the simplest first.
struct Near {
  struct One {
    Candidate candidate;
    double score = 0, step = 0;
    simulator::StepParts parts;
  };
  std::vector<One> all;
  bool complete = true;  // else the simplest of those that may be near were looked at
  std::int64_t bounded = 0, replayed = 0;
};

struct SearchRule {
  double probability_fits = 0.99;
  int threads = 0;               // 0: one a core
  std::function<bool()> stop;    // asked again and again, by any thread; empty: never
  const Score* score = nullptr;  // none: the step
};

class Search {
 public:
  Search(const Job& base, const Space& space, SearchRule rule);
  ~Search();
  Search(const Search&) = delete;
  Search& operator=(const Search&) = delete;

  // With `most_blocks` it ends after so many, once one fits: the best then is what was found, and
  // bound_remaining_s may be below it. The same once it is told to stop; where nothing was found
  // by then, it looks at a few more blocks, and at the jobs that need least memory. `known` is one
  // that fits, if the caller has one: it is the best until a faster one is found.
  Outcome best_of(const Family& family, std::size_t most_blocks = 0,
                  const std::optional<Candidate>& known = std::nullopt);
  // From here on, as on devices of so many bytes.
  void limit_memory(double bytes);
  // The most bytes that a job may need to count as one that fits.
  double most_bytes() const { return most_bytes_; }
  // Those whose step is at most `most_step`; at most `most` jobs are predicted, the simplest.
  Near near(double limit, double most_step, std::size_t most);
  // Of jobs that run all layers again, on one virtual stage: the one that needs least memory, of
  // every `stride`-th block.
  std::optional<Candidate> smallest(std::size_t stride = 1);

  Job job_of(const Candidate& candidate) const;
  simulator::JobPrediction predict(const Candidate& candidate) const;
  bool stopped() const;

 private:
  struct Worker;
  struct Expanded;
  struct Running;
  void bound_blocks();
  void sort_blocks();
  void set(Worker& worker, const Candidate& candidate, Job& job) const;
  double least_seconds(Worker& worker, const Block& block, bool ideal) const;
  double score_of(const Job& job, const simulator::JobPrediction& p, double limit) const;
  // Scores that are at least this where a step is.
  double least_score(double step) const;
  Expanded expand(Worker& worker, const Block& block, double limit, const Family& family) const;
  void collect(Worker& worker, const Block& block, double limit, const Family& family,
               Expanded& out) const;
  void tighten(Running& running, Outcome& out);
  void open(Running& running, const Family& family, Outcome& out);
  void rescue(Outcome& out);

  const Job& base_;
  const Space& space_;
  SearchRule rule_;
  UnitNumbers units_;
  Shapes shapes_;
  double most_bytes_;
  Crew crew_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<double> ideal_, tight_;  // by block; tight_: 0 where not made
  std::vector<std::uint32_t> order_;   // blocks from the least ideal bound on
  std::int64_t bounded_ = 0;           // bounds of blocks
  bool all_bounded_ = false;           // else some blocks are not in the order
  Outcome seed_;                       // found early, where a search may be told to stop
  mutable std::atomic<bool> stopped_{false};
};

// Cores of the machine where `threads` is 0.
std::size_t threads_of(int threads);

}  // namespace orrery::planner::jobs
