// The account of an export: which fields of the recipe are said, which are not, and what is
// refused.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "handover/handover.h"

namespace orrery::handover {

class Account {
 public:
  // `place`: of the plan or job, the start of the `where` of refusals.
  Account(const Recipe& recipe, std::string place);

  // The engine cannot do this: `field` (or "model", "workload") has to be another.
  void refuse(const std::string& field, const std::string& value, const std::string& why,
              const std::string& hint);
  // The same of a field's own value, with the pin that would do.
  void refuse_value(const std::string& field, const std::string& why, const std::string& pin);
  // Refuses an axis that the engine does not have, unless it is 1.
  void refuse_axis(const std::string& field, std::int64_t value, const std::string& why);
  // Refuses a degree that is not what the engine derives from the others.
  void require(const std::string& field, std::int64_t value, std::int64_t derived,
               const std::string& why);
  // Refuses an order of ranks, where both axes that it orders are real. A job has one order.
  void require_order(const std::string& field, const std::string& value, const std::string& derived,
                     bool matters);

  // Listed fields that the text says as they are.
  void said(const std::string& field) { said_.insert(field); }
  // One that it says otherwise or not at all; noted also where it has its default value.
  void unsaid(const std::string& field, const std::string& why);
  // The same of what is no field.
  void unsaid(const std::string& name, const std::string& value, const std::string& why) {
    unsaid_.push_back({name, value, why});
  }

  bool refused() const { return !problems_.empty(); }
  Error error() const { return Error{ErrorCode::kInfeasible, problems_}; }
  // Those noted, and all other listed fields that differ from their defaults and were not said.
  std::vector<Unsaid> rest() const;

 private:
  const Recipe& recipe_;
  std::string place_;
  std::vector<Problem> problems_;
  std::set<std::string> said_;
  std::vector<Unsaid> unsaid_;
};

// Micro-batches that one rank runs in a step, one after another.
std::int64_t passes_in_a_row(const Recipe& recipe);
// Refuses several virtual stages a rank where micro-batches do not come round in whole turns of the
// stages.
void require_whole_rounds(const Recipe& recipe, Account& account);
// Refuses low-rank adapters, and notes experts that have as many replicas there as dense parameters
// (a job's have none) and a stack of another family, whose figures are not this engine's; `stack`:
// one to plan with instead.
void note_job(const Recipe& recipe, std::string_view family, std::string_view stack,
              Account& account);
// Notes that rows hold several documents: only the data loader can say where attention ends.
void unsaid_documents(const Recipe& recipe, Account& account);
// Notes that interleaved micro-batches run one after another there.
void unsaid_domino(const Recipe& recipe, Account& account);
// Refuses numbers' types but those of `known`.
void refuse_types(const Recipe& recipe, const std::vector<Precision>& known, Account& account);
// Refuses all but one forward and one backward in turns, where there is no pipeline.
void refuse_stages(const Recipe& recipe, const std::string& why, Account& account);
bool expert_order_matters(const Layout& layout);
bool dense_order_matters(const Layout& layout);

// "bfloat16", "float16", "float32": of products where they are not in fp8.
std::string dtype_name(const Recipe& recipe);

// What opens every text: the job, and what is not said; each line begins with `comment` ("# ").
std::string opening(const Recipe& recipe, const std::vector<Unsaid>& unsaid,
                    const std::string& comment);

}  // namespace orrery::handover
