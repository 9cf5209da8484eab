// The analyses: tracer/analyses/*.sql, built into the binary. Each file opens with a comment that
// says what it answers and `-- columns:` lines that say what each column means.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "tracer/table.h"
#include "tracer/trace_db.h"

namespace orrery {

struct AnalysisInfo {
  std::string name;                  // "breakdown"
  std::string description;           // one line
  std::vector<std::string> columns;  // one text a table: "rank, step, ..."
  std::string_view sql;
};

// In alphabetical order.
const std::vector<AnalysisInfo>& list_analyses();

// One or more tables. An unknown name is kUsage and names the nearest.
Result<std::vector<Table>> run_analysis(TraceReader& reader, std::string_view name);

}  // namespace orrery
