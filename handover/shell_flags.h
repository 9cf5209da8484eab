// The flags ("--name value", "--name=value") of a shell script or of a file of flags, wherever they
// stand: in commands, arrays and quoted texts. Variables that the file sets are put in, also with a
// default ("${TP:-4}"). Nothing is run: conditions are not evaluated, and a value that only a shell
// could know is marked as unknown.
#pragma once

#include <string>
#include <vector>

#include "handover/settings.h"

namespace orrery::handover {

// `several`: the flags that take more than one word; their value is the words with one blank
// between them. Others have the first word, or "" where none follows. A key "if" stands for each
// condition or loop of the script.
Settings parse_shell_flags(const std::string& text, const std::string& place,
                           const std::vector<std::string>& several);

}  // namespace orrery::handover
