// What a validation says: as JSON, and as the page docs/accuracy.md. Both hold the same figures,
// and nothing that is not in the outcomes.
#pragma once

#include <string>
#include <vector>

#include "core/json.h"
#include "validation/validate.h"

namespace orrery::validation {

// What is asked to be left out of a fit, so that it is judged on rows that it has not seen. Nothing
// is fitted yet: the parameters are their priors, and these figures are not available.
enum class LeaveOut : std::uint8_t { kNothing, kSource, kDevice };
inline constexpr const char* kNotFitted = "not fitted yet";

// An aim of the house, and whether a summary meets it.
struct Aim {
  std::string what;
  double value = 0, limit = 0;
  bool at_least = false;  // the value has to be at least the limit, not at most
  bool known() const;
  bool met() const { return at_least ? value >= limit : value <= limit; }
};
std::vector<Aim> aims(const Summary& summary);

// Rows by a property, with what they add to the error.
struct Cause {
  std::string name;
  Accuracy step;
  double share = 0;  // of the sum of |ln(predicted / measured)| over all rows
};
// By stack, by device, by kind of model and by axis, the largest share first.
std::vector<Cause> causes(const std::vector<Outcome>& outcomes);

// Completed fields by how many rows took the default: "recompute=none (default of generic)".
std::vector<std::pair<std::string, std::size_t>> defaults_used(
    const std::vector<Outcome>& outcomes);

Json summary_json(const Summary& summary, LeaveOut leave_out);
Json rows_json(const std::vector<Outcome>& outcomes);
std::string accuracy_page(const Summary& summary, const std::vector<Outcome>& outcomes,
                          LeaveOut leave_out);

// "12.3 %", "-" where there is none. Of a logarithm too: 0.1 is 10 %.
std::string percent_text(double fraction);

}  // namespace orrery::validation
