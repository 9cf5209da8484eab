// The export formats, as a table: `orrery export` and `orrery list formats` read it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cli/command.h"
#include "core/result.h"
#include "tracer/trace_db.h"

namespace orrery::cli {

struct ExportFormat {
  std::string_view name;
  std::string_view about;
  std::string_view use;  // what is done with the file: "open it in any browser"
  // Null where the format is made from more than one trace: then `report` makes it; or from a plan:
  // then `hand_over` does, and returns what the format does not say.
  Status (*write)(TraceReader& trace, const std::string& out);
  Status (*report)(const Arguments& arguments, Output& out) = nullptr;
  Result<Json> (*hand_over)(const Arguments& arguments, Output& out) = nullptr;
};

const std::vector<ExportFormat>& export_formats();

}  // namespace orrery::cli
