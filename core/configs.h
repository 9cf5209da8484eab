// Where configuration files are found, and how files are read whole.
#pragma once

#include <string>
#include <vector>

#include "core/result.h"

namespace orrery {

// The path of configs/<folder>/<name>.json. configs/ is $ORRERY_CONFIGS where that is set, else the
// nearest `configs` or `share/orrery/configs` above the executable. An unknown name is an error
// (kInvalid) that names the nearest; no configs/ at all is kIo.
Result<std::string> find_config(const std::string& folder, const std::string& name);

// Names in configs/<folder>, sorted; empty where there is none.
std::vector<std::string> list_configs(const std::string& folder);

// The bytes of a file. A file that cannot be opened or read is kIo.
Result<std::string> read_file(const std::string& path);

// True where `name` can only be meant as a file: it has a slash or ends in ".json".
bool looks_like_path(const std::string& name);

// The name that a config file gives to what it holds, from the place of its root ("file:"):
// "a/qwen3-8b.json:" -> "qwen3-8b", "a/b/config.json:" -> "b". A place inside another file
// ("plan.json:/model") gives "".
std::string config_stem(const std::string& place);

}  // namespace orrery
