// A job as a file: its nouns embedded, its axes by name.
#pragma once

#include <string>

#include "core/job.h"
#include "core/json.h"
#include "core/result.h"

namespace orrery {

// {"job": {"layout": {"dp", "cp", "sp", "tp", "pp", "ep", "etp", "fsdp_d", "replicate_d",
// "micro_batch"}, "virtual_stages", "schedule", ...}, "model", "cluster", "stack"}. Other keys
// beside them (what was predicted) are ignored.
Json to_json(const Job& job);
// The axes alone: what stands at "job".
Json axes_json(const Job& job);

// Reads to_json back to the same job. A file written by hand may name its nouns ("model":
// "qwen3-8b", "cluster": "h100x16", "stack": "fsdp2-eager") and leave axes out: they are 1, dp what
// devices are left, fsdp_d the whole data axis; sharding is that of the optimizer's states, the
// schedule 1f1b, the precision bf16, and nothing is run again. kInvalid with every problem: unknown
// keys and words, nouns that are none, rules that the job breaks.
Result<Job> parse_job(const std::string& text, const std::string& place);
Result<Job> load_job(const std::string& path);

// One line for people: "tp 4 | pp 8 x 2, interleaved | dp 16, optimizer over 64 | ..."
std::string words_of(const Job& job);
// "none", "ops", "norm, core_attention", "full of 6 layers a stage"
std::string words_of(const Recompute& recompute);

}  // namespace orrery
