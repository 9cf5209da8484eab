// The result of an analysis or a query: named columns and rows of plain cells.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "core/json.h"

namespace orrery {

// NULL, integer, real or text.
using Cell = std::variant<std::monostate, std::int64_t, double, std::string>;

struct Table {
  std::string title;  // may be empty
  std::vector<std::string> columns;
  std::vector<std::vector<Cell>> rows;
};

// An array of objects {column: value}; a value that is not finite becomes null.
Json to_json(const Table& table);
// A cell for a person: integers whole, reals with six significant digits, NULL as "-".
std::string to_text(const Cell& cell);

}  // namespace orrery
