// Aligned tables for a terminal, never wider than 100 columns: text that is too long wraps inside
// its column.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace orrery::cli {

inline constexpr std::size_t kTerminalColumns = 100;

enum class Align { kLeft, kRight };

class TextTable {
 public:
  struct Column {
    std::string title;
    Align align = Align::kLeft;
  };
  explicit TextTable(std::vector<Column> columns);

  void row(std::vector<std::string> cells);  // CHECKs one cell a column
  bool empty() const { return rows_.empty(); }
  // Lines that start with `indent` spaces, without a newline at the end. A table whose titles are
  // all empty has no title line.
  std::string text(std::size_t indent = 2) const;

 private:
  std::vector<std::size_t> narrowest() const;

  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// Characters, not bytes, of UTF-8 text.
std::size_t display_width(std::string_view text);

// Lines of at most `width` characters, broken at spaces where there are any.
std::vector<std::string> wrap(std::string_view text, std::size_t width);

}  // namespace orrery::cli
