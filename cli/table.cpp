// See table.h.
#include "cli/table.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/check.h"

namespace orrery::cli {
namespace {

constexpr std::size_t kGap = 2;
constexpr std::size_t kNarrowest = 8;

// Bytes of the first `characters` characters.
std::size_t bytes_of(std::string_view text, std::size_t characters) {
  std::size_t bytes = 0;
  while (bytes < text.size()) {
    const bool starts = (static_cast<unsigned char>(text[bytes]) & 0xC0) != 0x80;
    if (starts && characters-- == 0) break;
    ++bytes;
  }
  return bytes;
}

std::string pad(const std::string& text, std::size_t width, Align align) {
  const std::size_t have = display_width(text);
  const std::string blank(width > have ? width - have : 0, ' ');
  return align == Align::kRight ? blank + text : text + blank;
}

// Takes from the widest column that may yield until the line fits.
void shrink(std::vector<std::size_t>& widths, const std::vector<std::size_t>& narrowest,
            std::size_t room) {
  const std::size_t gaps = kGap * (widths.size() - 1);
  while (std::accumulate(widths.begin(), widths.end(), gaps) > room) {
    std::size_t widest = widths.size();
    for (std::size_t i = 0; i < widths.size(); ++i) {
      if (widths[i] <= narrowest[i]) continue;
      if (widest == widths.size() || widths[i] > widths[widest]) widest = i;
    }
    if (widest == widths.size()) return;
    --widths[widest];
  }
}

// Where a line of at most `limit` bytes may end: at a space, else before '_' or behind '/'.
std::size_t cut_of(std::string_view text, std::size_t limit) {
  // A space right behind the limit is a fine place too.
  std::size_t cut = text.substr(0, limit + 1).rfind(' ');
  if (cut != std::string_view::npos && cut > 0) return cut;
  cut = text.substr(0, limit + 1).rfind('_');
  if (cut != std::string_view::npos && cut > 0) return cut;
  cut = text.substr(0, limit).rfind('/');
  return cut != std::string_view::npos && cut > 0 ? cut + 1 : limit;
}

std::string without_trailing_spaces(std::string line) {
  line.erase(line.find_last_not_of(' ') + 1);
  return line;
}

}  // namespace

std::size_t display_width(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

std::vector<std::string> wrap(std::string_view text, std::size_t width) {
  std::vector<std::string> lines;
  while (display_width(text) > width) {
    const std::size_t cut = cut_of(text, bytes_of(text, width));
    lines.push_back(without_trailing_spaces(std::string(text.substr(0, cut))));
    text.remove_prefix(text[cut] == ' ' ? cut + 1 : cut);
  }
  lines.emplace_back(text);
  return lines;
}

TextTable::TextTable(std::vector<Column> columns) : columns_(std::move(columns)) {
  CHECK(!columns_.empty(), "a table has columns");
}

void TextTable::row(std::vector<std::string> cells) {
  CHECK(cells.size() == columns_.size(), "a row has one cell a column");
  rows_.push_back(std::move(cells));
}

// Figures stay whole: only the titles of their columns wrap.
std::vector<std::size_t> TextTable::narrowest() const {
  std::vector<std::size_t> widths(columns_.size(), kNarrowest);
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    if (columns_[i].align == Align::kLeft) continue;
    widths[i] = 3;
    for (const auto& row : rows_) widths[i] = std::max(widths[i], display_width(row[i]));
  }
  return widths;
}

std::string TextTable::text(std::size_t indent) const {
  std::vector<std::vector<std::string>> rows;
  const bool titled = std::any_of(columns_.begin(), columns_.end(),
                                  [](const Column& column) { return !column.title.empty(); });
  if (titled) {
    rows.emplace_back();
    for (const Column& column : columns_) rows.back().push_back(column.title);
  }
  rows.insert(rows.end(), rows_.begin(), rows_.end());
  std::vector<std::size_t> widths(columns_.size(), 1);
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], display_width(row[i]));
    }
  }
  shrink(widths, narrowest(), kTerminalColumns - indent);
  std::string out;
  for (const auto& row : rows) {
    std::vector<std::vector<std::string>> cells;
    std::size_t height = 1;
    for (std::size_t i = 0; i < row.size(); ++i) {
      cells.push_back(wrap(row[i], widths[i]));
      height = std::max(height, cells.back().size());
    }
    for (std::size_t y = 0; y < height; ++y) {
      std::string line(indent, ' ');
      for (std::size_t i = 0; i < cells.size(); ++i) {
        const std::string cell = y < cells[i].size() ? cells[i][y] : "";
        line += pad(cell, widths[i], columns_[i].align) + std::string(kGap, ' ');
      }
      out += (out.empty() ? "" : "\n") + without_trailing_spaces(std::move(line));
    }
  }
  return out;
}

}  // namespace orrery::cli
