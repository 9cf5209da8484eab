// See analysis.h.
#include "tracer/analysis.h"

#include <algorithm>

#include "tracer/analysis_files.h"

namespace orrery {
namespace {

// What follows `prefix` on each line that starts with it.
std::vector<std::string> lines_after(std::string_view text, std::string_view prefix) {
  std::vector<std::string> found;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    if (line.starts_with(prefix)) found.emplace_back(line.substr(prefix.size()));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return found;
}

AnalysisInfo info_of(const AnalysisFile& file) {
  AnalysisInfo info;
  info.name = file.name;
  info.sql = file.text;
  const std::vector<std::string> comments = lines_after(file.text, "-- ");
  CHECK(!comments.empty(), "analysis " + info.name + " has no description");
  info.description = comments.front();
  info.columns = lines_after(file.text, "-- columns: ");
  CHECK(!info.columns.empty(), "analysis " + info.name + " does not say its columns");
  return info;
}

// Edits (insert, remove, replace) from one name to another.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replace = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replace, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

Error unknown(std::string_view name) {
  const auto& all = list_analyses();
  const auto nearest = std::min_element(all.begin(), all.end(), [&](const auto& a, const auto& b) {
    return distance(name, a.name) < distance(name, b.name);
  });
  return Error::of(ErrorCode::kUsage, "analyze", "there is no analysis '" + std::string(name) + "'",
                   "did you mean '" + nearest->name + "'? `orrery list analyses` shows all");
}

}  // namespace

const std::vector<AnalysisInfo>& list_analyses() {
  static const std::vector<AnalysisInfo> all = [] {
    std::vector<AnalysisInfo> infos;
    for (const AnalysisFile& file : analysis_files()) infos.push_back(info_of(file));
    std::sort(infos.begin(), infos.end(),
              [](const AnalysisInfo& a, const AnalysisInfo& b) { return a.name < b.name; });
    return infos;
  }();
  return all;
}

Result<std::vector<Table>> run_analysis(TraceReader& reader, std::string_view name) {
  for (const AnalysisInfo& info : list_analyses()) {
    if (info.name != name) continue;
    TRY(auto tables, reader.query_all(info.sql));
    const std::vector<std::string> titles = lines_after(info.sql, "-- table: ");
    for (std::size_t i = 0; i < tables.size() && i < titles.size(); ++i) {
      tables[i].title = titles[i];
    }
    return tables;
  }
  return unknown(name);
}

}  // namespace orrery
