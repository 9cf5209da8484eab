// The words that sources use for recompute, precision and the exchange of experts' rows.
#pragma once

#include <optional>
#include <string>

#include "core/job.h"

namespace orrery::validation {

// "none", "full", "selective", "selective: layernorm, moe_act", "selective: [\"mlp\"]", each with a
// remark in brackets behind it. On a word that is not known: nullopt, and the word in `unknown`.
std::optional<Recompute> recompute_of(const std::string& words, std::string& unknown);

// "bf16", "fp16", "fp8", "mxfp8"; nullopt for formats that are not priced ("nvfp4").
std::optional<Precision> precision_of(const std::string& word);

// "alltoall", "DeepEP", "HybridEP", "allgather", and the names of a stack's file.
std::optional<Dispatcher> dispatcher_of(const std::string& word);

// Without case.
std::string lower_case(std::string text);
bool mentions(const std::string& text, const std::string& word);

}  // namespace orrery::validation
