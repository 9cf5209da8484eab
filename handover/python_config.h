// What a Python configuration file sets: keyword arguments of calls ("FSDPConfig.ep_size"),
// attributes ("model_cfg.ep_size" of `model_cfg.ep_size = 8`) and the environment
// ("environ.NAME" of `os.environ["NAME"] = "1"`). Values are literals, names that were assigned
// one, int(), float(), str() of these and the defaults of os.environ.get(); all else is unknown.
// Nothing is run.
#pragma once

#include <string>

#include "handover/settings.h"

namespace orrery::handover {

// kInvalid: a text that does not end, or brackets that do not match.
Result<Settings> parse_python(const std::string& text, const std::string& place);

}  // namespace orrery::handover
