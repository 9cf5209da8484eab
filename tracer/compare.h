// Two runs side by side: predicted against measured, plan against plan, run against run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"
#include "tracer/trace_db.h"

namespace orrery {

// a: predicted, b: measured. error = a / b - 1; 0 when both are 0, and NaN when only b is.
struct Compared {
  double predicted = 0;
  double measured = 0;
  double error() const;
};

struct CompareReport {
  bool same_program = false;  // joined by op key; else by path, phase, micro-batch and chunk
  std::int64_t joined_ops = 0, only_a = 0, only_b = 0;
  Compared step_s;      // median over steps of the mean over ranks
  Compared peak_bytes;  // the highest of any rank and step

  struct MemoryRow {
    std::string cls;  // "total" is left out: it is peak_bytes
    Compared bytes;   // the highest of any rank and step
  };
  std::vector<MemoryRow> memory;

  // Time of a rank in all ops of a class, mean over the ranks of the run.
  struct ClassRow {
    std::string kind, phase, lane;
    Compared seconds;
    double difference_s() const { return seconds.predicted - seconds.measured; }
  };
  std::vector<ClassRow> classes;  // by absolute difference, largest first

  // Time of one op: median over steps, then mean over the ranks that run it. Joined ops only.
  struct OpRow {
    std::string path, phase, kind, lane;
    std::int32_t micro_batch = 0, chunk = 0;
    Compared seconds;
    double difference_s() const { return seconds.predicted - seconds.measured; }
  };
  std::vector<OpRow> ops;  // by absolute difference, largest first
};

// A run of three or more steps leaves out its first: warm-up.
Result<CompareReport> compare_runs(TraceReader& a, TraceReader& b);

}  // namespace orrery
