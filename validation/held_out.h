// Predictions of rows by fits that have not seen them: what an accuracy is worth, and what the
// interval is fitted on.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "simulator/stages/parameter_set.h"
#include "validation/fit.h"
#include "validation/fit_spread.h"
#include "validation/validate.h"

namespace orrery::validation {

// One fit, and how far off it is on what it was kept from.
struct HeldFit {
  Held held = Held::kSource;
  std::string key;              // the source, the family of devices, or "0" to "4"
  simulator::ParameterSet set;  // its values, and the shapes that it saw; no interval yet
  std::vector<SpreadSample> samples;
};

// A fit for each source, each family of devices, and each fifth of the rows, shared out over the
// cores; `progress` is called after each, with how many of how many.
std::vector<HeldFit> fit_held_out(
    const std::vector<FitRow>& rows, const FitOptions& options = {},
    const std::function<void(std::size_t, std::size_t)>& progress = {});

// The interval by all residuals of the fits, for predictions that rest on `rows`.
simulator::SpreadModel spread_of(const std::vector<HeldFit>& fits, const std::vector<FitRow>& rows);

// As validate_rows, each row predicted with parameters fitted without its source, or without the
// family of its device, and with an interval fitted to residuals of others. What is left of it:
// fits that gave the others' residuals have seen the row.
std::vector<Outcome> validate_held_out(const std::vector<PublishedRow>& rows,
                                       const std::vector<Stack>& stacks, Held held,
                                       const std::vector<HeldFit>& fits);

}  // namespace orrery::validation
