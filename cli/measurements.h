// Files of measuring tools, for `calibrate --from`.
#pragma once

#include <string>
#include <vector>

#include "cli/output.h"
#include "core/cluster.h"
#include "core/json.h"
#include "core/result.h"
#include "simulator/calibration/fit_samples.h"

namespace orrery::cli {

// All files, or all that is wrong with any of them. kIo where one cannot be read.
Result<std::vector<simulator::Measurements>> read_measurements(
    const std::vector<std::string>& paths);

// As the "calibration" object of a cluster file has them.
Json sample_entries_json(const simulator::SampleFit& fit);
// [{"file", "tool", "device", "samples"}]
Json measurements_json(const std::vector<simulator::Measurements>& files);
// [{"warning", "text"}]
Json notes_json(const simulator::SampleFit& fit);

// What was read, what it says of the profile (`top` entries), and the warnings and notes.
void print_samples(const std::vector<simulator::Measurements>& files,
                   const simulator::SampleFit& fit, std::size_t top, Output& out);

}  // namespace orrery::cli
