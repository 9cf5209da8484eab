// What is asked of the planner over all axes, and its pins.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/job.h"
#include "core/workload.h"
#include "planner/risk.h"
#include "simulator/stages/parameter_set.h"

namespace orrery::planner::jobs {

struct Request {
  Model model;
  Cluster cluster;
  Workload workload;
  Stack stack;
  simulator::ParameterSet parameters;
  std::vector<std::pair<std::string, std::string>> pins;  // {"tp", "4"}, {"sharding", "parameters"}
  double probability_fits = 0.99;                         // of a job that counts as one that fits
  Risk risk = Risk::kExpected;                            // by what jobs are ranked
  bool simplest = true;        // of jobs that cannot be told apart; else the fastest
  int threads = 0;             // 0: one a core
  bool explains = true;        // also the best of each other family
  std::function<bool()> stop;  // true once time is over; asked by any thread; empty: never
  bool frontier = false;       // also the frontier (frontier.h)
};

// The job that all members of the space share, with the parameters' values applied.
Job base_job(const Request& request);

// Axes and words held fixed.
class Pins {
 public:
  // kUsage, all problems at once: unknown names, names given twice, values that cannot be read.
  static Result<Pins> parse(const std::vector<std::pair<std::string, std::string>>& pins);
  std::optional<std::int64_t> number(const std::string& name) const;
  std::optional<std::string> word(const std::string& name) const;
  // Of "precision", which may name several: "bf16,fp8".
  const std::vector<Precision>& precisions() const { return precisions_; }
  bool any() const { return !numbers_.empty() || !words_.empty(); }

 private:
  std::map<std::string, std::int64_t> numbers_;
  std::map<std::string, std::string> words_;
  std::vector<Precision> precisions_;
};
std::vector<std::string> pinnable();
// The words of an axis; none of one that takes a number.
std::vector<std::string> values_of(const std::string& name);

}  // namespace orrery::planner::jobs
