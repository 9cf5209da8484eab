// One trace as the report needs it: read once, with the lookups that all parts share.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/json.h"
#include "core/result.h"
#include "tracer/trace_db.h"

namespace orrery::html {

// Spans of one rank in one step, by start; an index range of Side::spans.
struct SpanRange {
  std::size_t begin = 0, end = 0;
  std::size_t size() const { return end - begin; }
};

// What a step was, over its ranks.
struct StepFacts {
  double seconds = 0;  // mean over ranks
  std::size_t ranks = 0;
  std::int64_t start_ns = 0;  // the earliest
  std::int64_t end_ns = 0;    // the latest
  StepEvent first;            // of its lowest rank: losses are the same on all
};

struct Side {
  RunInfo run;
  std::string file;
  std::vector<RankInfo> ranks;
  std::vector<OpRow> ops;
  std::vector<SpanEvent> spans;
  std::vector<CollectiveEvent> collectives;
  std::vector<AllocEvent> allocs;
  std::vector<PeakEvent> peaks;
  std::vector<NoteEvent> notes;
  std::vector<Attr> attrs;
  std::vector<StepEvent> step_rows;

  std::map<std::int32_t, std::int32_t> role_of;                      // of a rank
  std::map<std::pair<std::int32_t, std::int32_t>, const OpRow*> op;  // by role and op
  std::map<std::pair<std::int32_t, std::int32_t>, std::int64_t> static_bytes;
  std::map<std::pair<std::int32_t, std::int32_t>, std::vector<std::int32_t>> deps;
  std::map<std::int32_t, std::string> class_names;
  // Bytes of the buffers that live before the step, by role and class.
  std::map<std::pair<std::int32_t, std::int32_t>, std::int64_t> standing_bytes;
  std::map<std::int32_t, StepFacts> steps;
  std::map<std::pair<std::int32_t, std::int32_t>, SpanRange> ranges;      // by step and rank
  std::map<std::pair<std::int32_t, std::int32_t>, std::size_t> step_row;  // by step and rank
  std::set<std::int32_t> counted;  // the steps that figures count; see compare_runs
  std::int32_t default_step = -1;  // the lower median of the counted ones, else the first

  const OpRow* op_of(const SpanEvent& span) const;
  // Ranks that have spans of a step, ascending.
  std::vector<std::int32_t> ranks_of(std::int32_t step) const;
  // Where the step's time begins: its earliest start, else its earliest span.
  std::int64_t origin_ns(std::int32_t step) const;
};

Result<Side> read_side(TraceReader& trace);

// Side::default_step, with nothing else read; -1 where no step is whole.
Result<std::int32_t> median_step(TraceReader& trace);

// From one moment to another, kept within what a double of a browser holds exactly.
std::int64_t nanoseconds(std::int64_t from_ns, std::int64_t to_ns);

// The sum of two, kept within the same: the figures of a damaged file may be anything.
std::int64_t plus(std::int64_t a, std::int64_t b);

// As UTF-8: bytes that are none become U+FFFD.
std::string clean_text(const std::string& text);

}  // namespace orrery::html
