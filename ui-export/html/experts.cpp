// See experts.h. The record of an exchange is RouteVars (core/program/size.h); its name is
// "route/layer.3/mb.0" or "route/layer.3/mb.0/part.1".
#include "ui-export/html/experts.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>

namespace orrery::html {
namespace {

constexpr std::size_t kMaxColumns = 256;
// Beyond these a file is damaged.
constexpr std::int64_t kMostPeers = 1 << 16, kMostParts = 1 << 12;
constexpr std::size_t kMostExperts = 1 << 20;

struct ExpertGroup {
  std::int64_t size = 1, stride = 1;
};

Result<ExpertGroup> expert_group(TraceReader& trace) {
  TRY(const Table rows, trace.query("SELECT size, stride FROM comm_group WHERE name = 'ep'"));
  ExpertGroup group;
  if (rows.rows.empty()) return group;
  const auto* size = std::get_if<std::int64_t>(&rows.rows[0][0]);
  const auto* stride = std::get_if<std::int64_t>(&rows.rows[0][1]);
  if (size && *size > 0 && *size <= kMostPeers) group.size = *size;
  if (stride && *stride > 0) group.stride = *stride;
  return group;
}

// The number after `word` in a name, or -1: number_after("route/layer.3/mb.0", "layer.") is 3.
std::int64_t number_after(const std::string& name, const std::string& word) {
  const std::size_t at = name.find(word);
  if (at == std::string::npos) return -1;
  std::int64_t value = -1;
  std::from_chars(name.data() + at + word.size(), name.data() + name.size(), value);
  return value;
}

// One record as it was: the values by their place in it.
struct Record {
  std::int64_t rank = 0, layer = 0, part = 0;
  std::vector<std::int64_t> values;
};

using Records = std::map<std::pair<std::int64_t, std::string>, Record>;

Result<Records> read_records(TraceReader& trace, std::int32_t step) {
  TRY(const Table rows,
      trace.query(
          "SELECT rank, variable, idx, value FROM v_binding WHERE step = " + std::to_string(step) +
          " AND variable GLOB 'route/*' ORDER BY rank, variable, idx"));
  Records records;
  for (const auto& row : rows.rows) {
    const auto* rank = std::get_if<std::int64_t>(&row[0]);
    const auto* name = std::get_if<std::string>(&row[1]);
    const auto* index = std::get_if<std::int64_t>(&row[2]);
    const auto* value = std::get_if<std::int64_t>(&row[3]);
    if (!rank || !name || !index || !value) continue;
    Record& record = records[{*rank, *name}];
    record.rank = *rank;
    record.layer = std::max<std::int64_t>(0, number_after(*name, "layer."));
    record.part = std::max<std::int64_t>(0, number_after(*name, "/part."));
    if (*index == static_cast<std::int64_t>(record.values.size())) record.values.push_back(*value);
  }
  return records;
}

// Rows by layer and expert of the world.
std::map<std::int64_t, std::vector<std::int64_t>> loads_of(const Records& records,
                                                           const ExpertGroup& group) {
  std::int64_t parts = 1;
  for (const auto& [key, record] : records) {
    if (record.part < kMostParts) parts = std::max(parts, record.part + 1);
  }
  std::map<std::int64_t, std::vector<std::int64_t>> loads;
  const std::size_t head = 1 + 2 * static_cast<std::size_t>(group.size);
  for (const auto& [key, record] : records) {
    if (record.values.size() <= head || record.rank < 0 || record.part >= kMostParts) continue;
    const std::size_t local = record.values.size() - head;
    const auto peer = static_cast<std::size_t>(record.rank / group.stride % group.size);
    const std::size_t first =
        (peer * static_cast<std::size_t>(parts) + static_cast<std::size_t>(record.part)) * local;
    const std::size_t all = static_cast<std::size_t>(group.size * parts) * local;
    if (all > kMostExperts) continue;
    std::vector<std::int64_t>& rows = loads[record.layer];
    if (rows.size() < all) rows.resize(all);
    for (std::size_t e = 0; e < local; ++e) {
      rows[first + e] = plus(rows[first + e], record.values[head + e]);
    }
  }
  return loads;
}

}  // namespace

Result<Json> experts_json(TraceReader& trace, const Side& side, std::vector<std::string>& omitted) {
  TRY(const ExpertGroup group, expert_group(trace));
  TRY(const Records records, read_records(trace, side.default_step));
  const auto loads = loads_of(records, group);
  if (loads.empty()) return Json();
  std::set<std::int64_t> ranks;
  for (const auto& [key, record] : records) ranks.insert(record.rank);
  std::size_t experts = 0;
  for (const auto& [layer, rows] : loads) experts = std::max(experts, rows.size());
  const std::size_t width = (experts + kMaxColumns - 1) / kMaxColumns;
  if (width > 1) {
    omitted.push_back("The expert map sums " + std::to_string(width) +
                      " neighbouring experts in a column.");
  }
  Json layers = Json::array(), table = Json::array();
  for (const auto& [layer, rows] : loads) {
    layers.push(layer);
    std::vector<std::int64_t> columns((experts + width - 1) / width, 0);
    for (std::size_t e = 0; e < rows.size(); ++e) {
      columns[e / width] = plus(columns[e / width], rows[e]);
    }
    Json line = Json::array();
    for (const std::int64_t value : columns) line.push(value);
    table.push(std::move(line));
  }
  return Json::object()
      .set("step", static_cast<int>(side.default_step))
      .set("ranks", static_cast<std::int64_t>(ranks.size()))
      .set("layers", std::move(layers))
      .set("rows", std::move(table))
      .set("experts_a_column", static_cast<std::int64_t>(width));
}

}  // namespace orrery::html
