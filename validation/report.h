// What a validation says: as JSON, and as the page docs/accuracy.md. Both hold the same figures,
// and nothing that is not in the outcomes.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/json.h"
#include "simulator/stages/parameter_set.h"
#include "validation/validate.h"

namespace orrery::validation {

// Where the parameters that predict are from, and how well others do on rows that no fit has seen:
// values of aims(), in their order; empty where nobody asked.
struct Fitting {
  std::size_t parameters = 0;  // that are fitted; 0: all are their priors
  std::vector<double> without_source, without_device;
  std::map<std::string, double> source_figures, device_figures;  // all of them, by their words
};

Fitting fitting_of(const simulator::ParameterSet& set, const Summary& summary);

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

// By distance from the nearest measured shape, the nearest first; without classes of no rows.
std::vector<Cause> by_distance(const std::vector<Outcome>& outcomes);

// Of rows that no fit had seen, what a parameter file keeps: the aims by their words, and of each
// class of by_distance "rows, CLASS", "inside, CLASS" and "width, CLASS".
std::map<std::string, double> figures(const std::vector<Outcome>& outcomes);

// Completed fields by how many rows took the default: "recompute=none (default of generic)".
std::vector<std::pair<std::string, std::size_t>> defaults_used(
    const std::vector<Outcome>& outcomes);

Json summary_json(const Summary& summary, const Fitting& fitting);
Json distances_json(const std::vector<Outcome>& outcomes);
Json rows_json(const std::vector<Outcome>& outcomes);
std::string accuracy_page(const Summary& summary, const std::vector<Outcome>& outcomes,
                          const Fitting& fitting);

// "12.3 %", "-" where there is none. Of a logarithm too: 0.1 is 10 %.
std::string percent_text(double fraction);

}  // namespace orrery::validation
