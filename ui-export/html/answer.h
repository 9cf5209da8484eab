// What a planner answered, for a reader: the winner, what it was held against, the frontier of time
// against memory, what the rules removed, the proof. One shape for both purposes of a plan.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/plan.h"
#include "core/result.h"

namespace orrery::html {

// Seconds of a step by what they go to; they sum to the step.
struct TermRow {
  std::string name;
  double seconds = 0;
};

// {"purpose": "train" or "simulate", "model", "cluster", "device", "devices", "node" (devices of
//  one), "stack" (null where it is the engine), "tokens" (of a step), "sequence_tokens",
//  "sequences", "capacity_bytes" (of a device), "usable_bytes" (of them, for the plan), "winner":
//  {"words", "axes": {name: value}, "step_s", "p10_s", "p90_s", "tokens_per_s", "mfu",
//    "peak_bytes", "probability_fits", "terms": [{"name", "seconds"}],
//    "memory": [{"class", "bytes"}]},
//  "ties" (runners-up that the model cannot tell apart from it),
//  "families": [{"family", "words", "lost_by", "proved", "fits", "step_s", "p10_s", "p90_s",
//    "peak_bytes", "terms"}], fastest first, what does not fit last,
//  "frontier": [{"memory_bytes", "searched_bytes", "words", "step_s", "peak_bytes"}],
//  "rules": [{"rule", "words", "count"}], "counts" ("layouts" or "plans": what rules counted),
//  "proof": {"legal", "layouts", "bounded", "replayed", "refined", "best_s", "bound_remaining_s",
//    "seconds"}}
// What a plan does not carry is null or an empty list.

// Of a plan of the engine. `terms` of the plan, then of its runners-up in order; may be shorter.
Json answer_json(const Plan& plan, const std::vector<std::vector<TermRow>>& terms);

// Of the text of a plan.json over all axes. kInvalid: a job that cannot be read, or figures that
// are missing.
Result<Json> answer_of_job(const std::string& text, const std::string& place);

}  // namespace orrery::html
