// Makes one trace of the parts that the ranks wrote (recorder.h): one clock, one file, indexes. A
// failed run is kept: what is readable of torn parts, and a note for every rank that is missing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"
#include "tracer/trace_db.h"

namespace orrery {

// Removes the parts of an earlier run at `out`, before a new one starts. kIo.
Status remove_parts(const std::string& out);

struct MergeOptions {
  std::string out;         // the parts are in parts_directory(out)
  std::int32_t world = 1;  // ranks there should be
  RunInfo run;             // of the merged trace; status and reason: what the launcher saw
  bool keep_parts = false;
};

struct MergeReport {
  RunStatus status = RunStatus::kOk;  // failed when the launcher, a rank or a missing part says so
  std::string reason;
  std::vector<std::int32_t> missing;  // no part, or one of which nothing is readable
  std::vector<std::int32_t> torn;     // a part of which not everything is readable
  std::int64_t dropped = 0;           // records lost to full rings, over all ranks
};

// A part of another program (run.program_hash, unless 0) counts as missing. Times of each rank are
// moved by its clock offset. run.status kRunning or kOk: the parts decide. Removes the parts once
// the merged file is in place. kIo when it cannot be written (the parts stay).
Result<MergeReport> merge_parts(const MergeOptions& options);

}  // namespace orrery
