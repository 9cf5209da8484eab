// Questions about plans that the engine runs.
#pragma once

#include "planner/plans/decide.h"
#include "planner/plans/planner.h"
#include "planner/questions/searcher.h"

namespace orrery::planner {

class EngineSearcher : public Searcher {
 public:
  // All of `base` but its nouns and pins holds for every setting.
  EngineSearcher(Request base, DecisionRule rule);

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
  std::size_t most_changes() const override { return 6; }

  Request request_of(const Setting& setting) const;

 private:
  Request base_;
  DecisionRule rule_;
};

// Every axis, chunk and policy of a plan as pins: a search under them has that plan alone.
PinList pins_of(const Plan& plan);

}  // namespace orrery::planner
