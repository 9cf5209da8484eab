// Questions about jobs over all axes.
#pragma once

#include "planner/jobs/request.h"
#include "planner/questions/searcher.h"

namespace orrery::planner {

// Sizes of clusters up to this one are all worth a search; beyond, those an eighth of a power of
// two apart.
inline constexpr std::int64_t kAllSizes = 64;

class JobSearcher : public Searcher {
 public:
  // All of `base` but its nouns, its stack and its pins holds for every setting.
  explicit JobSearcher(jobs::Request base);

  Result<Answer> decided(const Setting& setting) const override;
  Result<Answer> fastest(const Setting& setting) const override;
  Answer quick(const Setting& setting, Seconds wanted) const override;
  Result<Answer> exactly(const Setting& setting, const Job& job) const override;
  std::optional<Nearest> advice(const Setting& setting) const override;
  bool suits(const Setting& setting) const override;
  double least_device_seconds_a_token(const Setting& setting) const override;
  double checkpoint_bytes_a_parameter(const Setting& setting) const override;
  Side side(const Setting& setting, const Answer& answer) const override;
  std::string cause(const std::string& term, const Answer& own, const Answer& best) const override;
  std::vector<Problem> broken(const Setting& setting) const override;
  std::vector<PinChange> changes(const Setting& setting, std::size_t pins) const override;
  std::size_t most_changes() const override { return 12; }

  jobs::Request request_of(const Setting& setting) const;

 private:
  Answer answer_from(jobs::JobPlan plan) const;

  jobs::Request base_;
};

// What a job is, as far as it can be pinned and follows from nothing else.
PinList pins_of(const Job& job);

}  // namespace orrery::planner
