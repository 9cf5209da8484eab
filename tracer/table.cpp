// See table.h.
#include "tracer/table.h"

#include <cmath>
#include <cstdio>

namespace orrery {
namespace {

Json to_json(const Cell& cell) {
  if (const auto* integer = std::get_if<std::int64_t>(&cell)) return Json(*integer);
  if (const auto* real = std::get_if<double>(&cell)) {
    return std::isfinite(*real) ? Json(*real) : Json();
  }
  if (const auto* text = std::get_if<std::string>(&cell)) return Json(*text);
  return Json();
}

}  // namespace

Json to_json(const Table& table) {
  Json rows = Json::array();
  for (const auto& row : table.rows) {
    Json object = Json::object();
    for (std::size_t i = 0; i < row.size(); ++i) object.set(table.columns[i], to_json(row[i]));
    rows.push(std::move(object));
  }
  return rows;
}

std::string to_text(const Cell& cell) {
  if (const auto* integer = std::get_if<std::int64_t>(&cell)) return std::to_string(*integer);
  if (const auto* real = std::get_if<double>(&cell)) {
    char text[40];
    std::snprintf(text, sizeof text, "%.6g", *real);
    return text;
  }
  if (const auto* text = std::get_if<std::string>(&cell)) return *text;
  return "-";
}

}  // namespace orrery
