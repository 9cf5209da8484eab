// What a TOML file sets: one setting a leaf, its key as in JSON ("/training/seq_len"), its place
// the line of its value. Arrays and dates as they are written.
#pragma once

#include <string>

#include "handover/settings.h"

namespace orrery::handover {

// kInvalid: not TOML.
Result<Settings> parse_toml(const std::string& text, const std::string& place);

}  // namespace orrery::handover
