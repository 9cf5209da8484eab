// Fitting of the interval (simulator/stages/spread.h): quantiles of residuals of rows that the fit
// of their prediction had not seen.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "simulator/stages/spread.h"

namespace orrery::validation {

// What a fit is kept from: all rows of a source, of a family of devices, or a fifth of all rows,
// whose neighbours it sees.
enum class Held : std::uint8_t { kSource, kDevice, kRows };

struct SpreadSample {
  Held held = Held::kSource;
  std::string source, device;  // device: its family
  simulator::SpreadFeatures features;
  double residual = 0;  // ln(measured / predicted)
};

// Quantile regression (Koenker and Bassett 1978), one of each side: the pinball losses of 0.9 and
// 0.1 are least over base, exposed and unseen, none below what the header of spread.h says. Samples
// weigh 1 / sqrt(n) of the n of their source and way of being held out: rows of a source err
// together, but not as one. The defaults where there are fewer than kFewestSamples, or but one
// source. The order of the samples is irrelevant, and so are the sources' names.
simulator::SpreadModel fit_spread(std::vector<SpreadSample> samples,
                                  std::vector<simulator::MeasuredShape> shapes);
inline constexpr std::size_t kFewestSamples = 20;

}  // namespace orrery::validation
