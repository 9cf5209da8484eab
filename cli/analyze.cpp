// orrery analyze: an analysis, or a user's SELECT, over a trace.
#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/inputs.h"
#include "cli/table.h"
#include "core/quantity.h"
#include "tracer/analysis.h"

namespace orrery::cli {
namespace {

constexpr std::size_t kRowsShown = 40;

bool is_text_column(const Table& table, std::size_t column) {
  for (const auto& row : table.rows) {
    if (std::holds_alternative<std::string>(row[column])) return true;
  }
  return false;
}

// Bytes read better with a prefix; --json has them whole.
std::string text_of(const std::string& column, const Cell& cell) {
  const auto* whole = std::get_if<std::int64_t>(&cell);
  if (column.ends_with("_bytes") && whole != nullptr && *whole >= 0) {
    return format_bytes(Bytes(*whole));
  }
  return to_text(cell);
}

void print(const Table& table, bool all, Output& out) {
  if (!table.title.empty()) out.heading(table.title);
  if (table.rows.empty()) {
    out.line("  no rows");
    return;
  }
  std::vector<TextTable::Column> columns;
  for (std::size_t i = 0; i < table.columns.size(); ++i) {
    columns.push_back({table.columns[i], is_text_column(table, i) ? Align::kLeft : Align::kRight});
  }
  TextTable text(columns);
  const std::size_t shown = all ? table.rows.size() : std::min(table.rows.size(), kRowsShown);
  for (std::size_t r = 0; r < shown; ++r) {
    std::vector<std::string> cells;
    for (std::size_t i = 0; i < table.columns.size(); ++i) {
      cells.push_back(text_of(table.columns[i], table.rows[r][i]));
    }
    text.row(std::move(cells));
  }
  out.line(text.text());
  if (shown < table.rows.size()) {
    out.line(fmt::format("  ... {} more rows (--all shows them)", table.rows.size() - shown));
  }
}

Result<int> run(const Arguments& arguments, Output& out) {
  const std::string path = arguments.text("TRACE");
  const bool by_sql = arguments.has("sql");
  if (by_sql && arguments.has("NAME")) {
    return Error::of(ErrorCode::kUsage, "orrery analyze", "NAME and --sql exclude each other");
  }
  const std::string name = by_sql ? "sql" : arguments.text("NAME");
  TRY(TraceReader trace, open_trace(path));
  TRY(const std::vector<Table> tables,
      by_sql ? trace.query_all(arguments.text("sql"))
             : run_analysis(trace, name.empty() ? "breakdown" : name));
  Json all = Json::array();
  for (const Table& table : tables) {
    print(table, arguments.flag("all"), out);
    all.push(to_json(table));
  }
  out.document(
      versioned().set("name", name.empty() ? "breakdown" : name).set("tables", std::move(all)));
  if (trace.run().status == RunStatus::kFailed) {
    out.warn("this run failed: " + trace.run().reason);
  }
  out.next({"orrery", "list", "analyses"}, "what else can be asked");
  return 0;
}

}  // namespace

const Command& analyze_command() {
  static const Command command = {
      "analyze",
      "ask a trace, simulated or measured",
      "Runs an analysis (orrery list analyses) or your own SELECT over a trace. Without a NAME:\n"
      "the breakdown of each step.",
      "orrery analyze run.db exposed\n"
      "orrery analyze run.db --sql 'SELECT rank, avg(duration_ns) / 1e6 AS ms FROM v_step "
      "GROUP BY rank'",
      {{"TRACE", "a trace"}, {"NAME", "an analysis (default: breakdown)", false}},
      {{"--sql", "QUERY", "SELECTs over the views v_step, v_op, v_collective, v_memory", ""},
       {"--all", "", "print every row", ""}},
      run};
  return command;
}

}  // namespace orrery::cli
