// What questions to a planner are asked of: a best for a model, cluster, workload and pins, or the
// reason why there is none. One Searcher a planner; questions know no more than this.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "core/job.h"
#include "core/plan.h"
#include "core/workload.h"
#include "planner/jobs/planner.h"
#include "planner/plans/terms.h"

namespace orrery::planner {

using PinList = std::vector<std::pair<std::string, std::string>>;

// What questions vary of a request.
struct Setting {
  Model model;
  Cluster cluster;
  Workload workload;
  Stack stack;  // of jobs; the engine is its own
  PinList pins;
};

struct Answer {
  // The best; where none fits, the legal one that needs least memory, if it was looked for.
  std::variant<std::monostate, Plan, jobs::PlannedJob> best;
  bool fits = false;
  bool legal = true;   // false: no rule allows any
  std::string reason;  // where none fits: "does not fit: needs 81.2 GiB of 79.6 GiB"
  // Of what stands in `best`.
  Seconds step, p10, p90;
  double tokens_per_s = 0, mfu = 0;
  Bytes peak, usable;  // of a device
  explicit operator bool() const { return fits; }
};

// With its figures; without a reason.
Answer answer_of(Plan plan, bool fits);
Answer answer_of(jobs::PlannedJob job, bool fits);
// CHECK that it is one.
const Plan& plan_of(const Answer& answer);
const jobs::PlannedJob& job_of(const Answer& answer);

// "a batch of 28 sequences", and the fastest that fits with it.
struct Nearest {
  std::string change;
  Answer answer;
};

// An answer and where its time and memory go; the terms sum to the step.
struct Side {
  Answer answer;
  std::vector<Term> terms;
  std::vector<MemoryRow> memory;  // at the peak, by class
};

// A pin set to another value; `far`: by how much, the nearer first.
struct PinChange {
  double far = 0;
  std::size_t pin = 0;
  std::string value;
  auto operator<=>(const PinChange&) const = default;
};

class Searcher {
 public:
  virtual ~Searcher() = default;

  // What `orrery plan` takes: ties, risk and the odds of fitting decided. kUsage: pins that cannot
  // be read. kInfeasible: no rule allows any; the error names them.
  virtual Result<Answer> decided(const Setting& setting) const = 0;
  // The fastest that fits, whatever ties with it; errors as decided().
  virtual Result<Answer> fastest(const Setting& setting) const = 0;
  // The same in less time, for questions that ask often: what is near `wanted` seconds a step is
  // looked at closely, what is far slower may be found not to fit. Never an error.
  virtual Answer quick(const Setting& setting, Seconds wanted) const = 0;
  // Exactly this job, on the nouns of the setting. kInfeasible: the rules that it breaks. kUsage:
  // the planner knows no jobs.
  virtual Result<Answer> exactly(const Setting& setting, const Job& job) const = 0;
  // The smallest change of the request after which something fits.
  virtual std::optional<Nearest> advice(const Setting& setting) const = 0;

  // Whether so many devices as the setting has are worth a search.
  virtual bool suits(const Setting& setting) const = 0;
  // Seconds of one device for one token, below which no answer can be.
  virtual double least_device_seconds_a_token(const Setting& setting) const = 0;
  // Bytes a parameter of a checkpoint: master weights and two moments.
  virtual double checkpoint_bytes_a_parameter(const Setting& setting) const = 0;

  virtual Side side(const Setting& setting, const Answer& answer) const = 0;
  // What of two layouts decides a term, where it differs: "ep 8 against 1"; may be empty.
  virtual std::string cause(const std::string& term, const Answer& own,
                            const Answer& best) const = 0;
  // Every rule that pins break for which nothing is legal, if it can be told.
  virtual std::vector<Problem> broken(const Setting& setting) const = 0;
  // Other values of the first `pins` pins of the setting, and how many of them are worth a search.
  virtual std::vector<PinChange> changes(const Setting& setting, std::size_t pins) const = 0;
  virtual std::size_t most_changes() const = 0;
};

// Why no rule allows any, from the error of a search: the first rule that is broken.
std::string reason_of(const Searcher& searcher, const Setting& setting, const Error& error);

// Values that an axis or a chunk may sensibly have: divisors of what is split, and 0.
std::vector<std::int64_t> sensible_values(const Setting& setting);
// The changes of one numeric pin to sensible values of at least `least`.
void add_changes(const Setting& setting, std::size_t pin, std::int64_t least,
                 std::vector<PinChange>& out);

// "micro-batch 2 against 1", or "" where they are alike; joined by commas, the empty left out.
std::string against(const char* what, std::int64_t own, std::int64_t best);
std::string joined(const std::vector<std::string>& parts);

}  // namespace orrery::planner
