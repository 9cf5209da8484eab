// The texts of tracer/analyses/*.sql, as cmake/embed.cmake builds them in.
#pragma once

#include <string_view>
#include <vector>

namespace orrery {

struct AnalysisFile {
  std::string_view name;
  std::string_view text;
};
const std::vector<AnalysisFile>& analysis_files();

}  // namespace orrery
