// Calibration from samples: the entries of a profile that give back what single ops took.
//
// A sample is one op alone, so each entry is solved for and none is traded against another:
//   launch            the median of its samples
//   fraction of a curve  work / (peak * (seconds - launch)), at the size at which op costs read it:
//                     the profile, which adds launches, then gives the sample back
//   latency of a tier (plateau - launch) / ceil(log2 ranks), the plateau being the times that do
//                     not grow while the bytes do
// Points within a tenth of each other (products, which differ in shape as well: within a factor of
// two) become one, by the median of their sizes and of their fractions; beyond the measured sizes
// the base's curve goes on, scaled to meet them. A sample that another term bounds (its launch, the
// memory of a product, an inner tier of a collective) says nothing of a curve and is left out, with
// a note. Bandwidths and peaks stay those of the base: they are facts of the hardware, and
// fractions are of them.
#pragma once

#include <string>
#include <vector>

#include "core/cluster.h"
#include "core/result.h"
#include "simulator/calibration/samples.h"
#include "simulator/cost_terms.h"

namespace orrery::simulator {

// What the samples that rest on one entry say of it; their parts, where they rest on several.
struct SampleEntry {
  Entry entry;
  std::int64_t samples = 0;
  double measured_s = 0, before_s = 0, after_s = 0;  // summed: measured, base, fitted
  double valid_from_s = 0, valid_to_s = 0;           // shortest and longest sample
  std::vector<std::string> sources;                  // files
};

struct SampleFit {
  Cluster profile;
  std::vector<SampleEntry> entries;
  std::vector<Note> notes;
};

// kInvalid where a sample does not fit the base: ranks on a host that has fewer devices, hosts
// where the base has one.
Result<SampleFit> fit_samples(const Cluster& base, const std::vector<Measurements>& files);

// What the profile predicts for a sample, its launch included, as op costs do.
double sample_time(const Cluster& cluster, const Sample& sample, Terms* terms = nullptr);

}  // namespace orrery::simulator
