// The account of an export: which fields of the plan are said, which are not, and what is refused.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "handover/handover.h"

namespace orrery::handover {

class Account {
 public:
  // `place`: of the plan, the start of the `where` of refusals.
  Account(const Plan& plan, std::string place);

  // The engine cannot do this: `field` of the layout (or "model", "workload") has to be another.
  void refuse(const std::string& field, const std::string& value, const std::string& why,
              const std::string& hint);
  // Refuses an axis that the engine does not have, unless it is 1.
  void refuse_axis(const std::string& field, std::int64_t value, const std::string& why);
  // Refuses a degree that is not what the engine derives from the others.
  void require(const std::string& field, std::int64_t value, std::int64_t derived,
               const std::string& why);
  // Refuses an order of ranks, where both axes that it orders are real.
  void require_order(const std::string& field, const std::string& value, const std::string& derived,
                     bool matters);

  // Fields of chunks and policy that the text says as they are.
  void said(const std::string& field) { said_.insert(field); }
  // One that it says otherwise or not at all; noted also where it has its default value.
  void unsaid(const std::string& field, const std::string& why);
  // The same of what is no field of layout, chunks or policy.
  void unsaid(const std::string& name, const std::string& value, const std::string& why) {
    unsaid_.push_back({name, value, why});
  }

  bool refused() const { return !problems_.empty(); }
  Error error() const { return Error{ErrorCode::kInfeasible, problems_}; }
  // Those noted, and all others of chunks and policy that differ from their defaults and were not
  // said.
  std::vector<Unsaid> rest() const;

 private:
  const Plan& plan_;
  std::string place_;
  std::vector<Problem> problems_;
  std::set<std::string> said_;
  std::vector<Unsaid> unsaid_;
};

// A value of plan.json by its name: of the layout, the chunks or the policy. CHECKs that it exists.
std::string value_of(const Plan& plan, const std::string& field);

// Micro-batches that one rank runs in a step, one after another.
std::int64_t passes_in_a_row(const Plan& plan);
// Notes that interleaved micro-batches run one after another there.
void unsaid_domino(const Plan& plan, Account& account);
// Notes that rows hold several documents: only the data loader can say where attention ends.
void unsaid_documents(const Plan& plan, Account& account);
// Refuses numbers' types that no format can say.
void refuse_types(const Plan& plan, Account& account);
bool expert_order_matters(const Layout& layout);
bool dense_order_matters(const Layout& layout);

// "bfloat16", "float32"
std::string dtype_name(const Plan& plan);

// What opens every text: the job, the plan's hash, and what is not said; each line begins with
// `comment` ("# ").
std::string opening(const Plan& plan, const std::vector<Unsaid>& unsaid,
                    const std::string& comment);

}  // namespace orrery::handover
