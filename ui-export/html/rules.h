// The rules of both planners in a reader's words.
#pragma once

#include <string>

namespace orrery::html {

// "more tensor ranks than the innermost links connect"; the name without underscores where it is no
// rule that is known here.
std::string rule_words(const std::string& rule);

}  // namespace orrery::html
