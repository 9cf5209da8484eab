// The page's own files, as cmake/embed.cmake builds them in: page.html, style.css, the scripts in
// the order in which they run.
#pragma once

#include <string_view>
#include <vector>

namespace orrery::html {

struct Asset {
  std::string_view name;
  std::string_view text;
};
const std::vector<Asset>& assets();

}  // namespace orrery::html
