// Megatron-LM's text of a pipeline's layers: "Et*3|(tt|)*29,m|L".
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"

namespace orrery::handover::megatron {

// Layers of each stage, from the embedding to the loss; `place` starts the `where` of errors.
// kInvalid: other letters, brackets that do not match, an embedding or a loss that is not at its
// end, too many stages or layers to be meant.
Result<std::vector<std::int64_t>> parse_stages(const std::string& text, const std::string& place);

}  // namespace orrery::handover::megatron
