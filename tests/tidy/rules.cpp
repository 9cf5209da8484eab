// The rules that look at one file at a time.
#include <algorithm>
#include <cctype>

#include "tests/tidy/tables.h"
#include "tests/tidy/tidy.h"

namespace orrery::tidy {
namespace {

bool is_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

std::size_t columns_of(const std::string& line) {
  return static_cast<std::size_t>(std::count_if(line.begin(), line.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;  // not a UTF-8 continuation byte
  }));
}

// Where `word` stands on its own from `from` on. Letters of either case match where `any_case`.
std::size_t find_word(const std::string& line, const std::string& word, std::size_t from,
                      bool any_case) {
  const auto same = [any_case](char a, char b) {
    if (!any_case) return a == b;
    return std::tolower(static_cast<unsigned char>(a)) ==
           std::tolower(static_cast<unsigned char>(b));
  };
  auto begin = line.begin() + static_cast<std::ptrdiff_t>(from);
  while (true) {
    const auto hit = std::search(begin, line.end(), word.begin(), word.end(), same);
    if (hit == line.end()) return std::string::npos;
    const auto after = hit + static_cast<std::ptrdiff_t>(word.size());
    const bool starts = hit == line.begin() || !is_word(*(hit - 1));
    if (starts && (after == line.end() || !is_word(*after))) {
      return static_cast<std::size_t>(hit - line.begin());
    }
    begin = hit + 1;
  }
}

// A call of the C library's function: not a member, and of no other namespace than std.
bool is_call(const std::string& line, const std::string& word, std::size_t at) {
  const std::size_t after = line.find_first_not_of(' ', at + word.size());
  if (after == std::string::npos || line[after] != '(') return false;
  const std::string before = line.substr(0, at);
  if (ends_with(before, ".") || ends_with(before, "->")) return false;
  if (!ends_with(before, "::")) {
    // `int system(...)` declares another function: a type stands before it, but not `return`.
    const std::size_t last = before.find_last_not_of(' ');
    const bool declares = last != std::string::npos && is_word(before[last]) && last + 1 < at;
    return !declares || ends_with(before, "return ");
  }
  const std::string scope = before.substr(0, before.size() - 2);
  return ends_with(scope, "std") || scope.empty() || !is_word(scope.back());
}

bool breaks(const std::string& line, const Ban& ban) {
  std::size_t at = find_word(line, ban.word, 0, false);
  while (at != std::string::npos) {
    if (ban.kind == Ban::Kind::kWord || is_call(line, ban.word, at)) return true;
    at = find_word(line, ban.word, at + 1, false);
  }
  return false;
}

// A text that starts with '/' counts only where a path can start: not inside an address or a path.
bool contains(const std::string& line, const TextBan& ban) {
  if (ban.whole_word) return find_word(line, ban.text, 0, true) != std::string::npos;
  for (std::size_t at = line.find(ban.text); at != std::string::npos;
       at = line.find(ban.text, at + 1)) {
    if (at == 0 ||
        (!is_word(line[at - 1]) && std::string("./}-~").find(line[at - 1]) == std::string::npos)) {
      return true;
    }
  }
  return false;
}

// What people write line by line; tables of data and prose are free.
bool has_width(const std::string& path) {
  if (ends_with(path, ".proto") || path == "Containerfile") return true;
  if (ends_with(path, ".md")) return false;
  return is_source(path) || is_page(path) || ends_with(path, "CMakeLists.txt") ||
         ends_with(path, ".proto") || path == "Containerfile" ||
         starts_with_any(path, {"scripts/", ".ci/", "cmake/"});
}

bool is_third_party(const std::string& target) {
  const bool of_the_library = target.find('/') == std::string::npos && !ends_with(target, ".h");
  return !of_the_library && !starts_with_any(target, system_headers());
}

const Owner* owner_of(const std::string& target) {
  const auto row = std::find_if(owners().begin(), owners().end(), [&](const Owner& owner) {
    return target.compare(0, owner.header.size(), owner.header) == 0;
  });
  return row == owners().end() ? nullptr : &*row;
}

void check_third_party(const SourceFile& file, const Include& include, Violations& out) {
  const Owner* owner = owner_of(include.target);
  if (owner == nullptr) {
    out.push_back({file.path, include.line,
                   "<" + include.target + "> has no owner: name one in tests/tidy/tables.cpp"});
  } else if (!starts_with_any(file.path, owner->owners)) {
    out.push_back({file.path, include.line,
                   "<" + include.target + "> belongs to " + owner->owners.front() +
                       ": use what that folder offers"});
  } else if (is_header(file.path) && !owner->in_headers) {
    out.push_back(
        {file.path, include.line,
         "<" + include.target + "> in a header: forward declare, include it in the .cpp"});
  }
  if (include.target == "torch/torch.h") {
    out.push_back({file.path, include.line, "<torch/torch.h>: include narrow ATen/ops headers"});
  }
  if (include.target == "ATen/ATen.h" && is_header(file.path)) {
    out.push_back(
        {file.path, include.line, "<ATen/ATen.h> in a header: include <ATen/core/Tensor.h>"});
  }
}

}  // namespace

Violations check_layering(const Tree& tree) {
  Violations out;
  for (const SourceFile& file : tree.files) {
    if (!is_source(file.path)) continue;
    const Layer* layer = nullptr;
    for (const Layer& row : layers()) {
      const bool inside = file.path.compare(0, row.folder.size(), row.folder) == 0;
      if (inside && (layer == nullptr || row.folder.size() > layer->folder.size())) layer = &row;
    }
    if (layer == nullptr) {
      out.push_back({file.path, 0, "a source outside the folders of the layering table"});
      continue;
    }
    for (const Include& include : includes_of(file)) {
      if (!include.quoted || starts_with_any(include.target, layer->may_include)) continue;
      if (ends_with(include.target, ".pb.h")) continue;  // generated; see check_include_owners
      out.push_back({file.path, include.line,
                     "\"" + include.target + "\" breaks the layering: " + layer->folder +
                         " may not include it (docs/architecture.md)"});
    }
  }
  return out;
}

Violations check_include_owners(const Tree& tree) {
  Violations out;
  for (const SourceFile& file : tree.files) {
    if (!is_source(file.path)) continue;
    for (const Include& include : includes_of(file)) {
      const bool generated = ends_with(include.target, ".pb.h");
      if (generated && !starts_with_any(file.path, {"ui-export/", "tests/ui-export/"})) {
        out.push_back({file.path, include.line, "protobuf messages belong to ui-export/"});
      } else if (!generated && !include.quoted && is_third_party(include.target)) {
        check_third_party(file, include, out);
      } else if (!generated && include.quoted && owner_of(include.target) != nullptr) {
        out.push_back({file.path, include.line, "third-party headers are included with <...>"});
      }
    }
  }
  return out;
}

Violations check_columns(const Tree& tree) {
  Violations out;
  for (const SourceFile& file : tree.files) {
    if (!has_width(file.path)) continue;
    const std::vector<std::string> lines = split_lines(file.text);
    for (std::size_t i = 0; i < lines.size(); ++i) {
      const std::size_t columns = columns_of(lines[i]);
      if (columns <= kMaxColumns) continue;
      out.push_back(
          {file.path, i + 1, std::to_string(columns) + " columns, of 100: wrap the line"});
    }
  }
  return out;
}

Violations check_file_lengths(const Tree& tree, const std::vector<LongFile>& ratchet) {
  Violations out;
  std::vector<bool> used(ratchet.size());
  for (const SourceFile& file : tree.files) {
    if (!is_source(file.path) && !is_page(file.path)) continue;
    const std::size_t lines = split_lines(file.text).size();
    if (lines <= kMaxFileLines) continue;
    const auto entry = std::find_if(ratchet.begin(), ratchet.end(),
                                    [&](const LongFile& e) { return e.path == file.path; });
    if (entry == ratchet.end() || lines > entry->lines) {
      out.push_back({file.path, 0, std::to_string(lines) + " lines: split it by what it does"});
    }
    if (entry != ratchet.end() && lines == entry->lines) {
      used[static_cast<std::size_t>(entry - ratchet.begin())] = true;
    }
  }
  for (std::size_t i = 0; i < ratchet.size(); ++i) {
    if (used[i]) continue;
    out.push_back({ratchet[i].path, 0, "its entry in long_files() is stale: lower or remove it"});
  }
  return out;
}

Violations check_function_lengths(const Tree& tree, const std::vector<LongFunction>& ratchet) {
  Violations out;
  std::vector<bool> used(ratchet.size());
  for (const SourceFile& file : tree.files) {
    if (!is_source(file.path)) continue;
    for (const Function& function : functions_of(file)) {
      if (function.lines <= kMaxFunctionLines) continue;
      const auto entry = std::find_if(ratchet.begin(), ratchet.end(), [&](const LongFunction& e) {
        return e.path == file.path && e.name == function.name;
      });
      if (entry == ratchet.end() || function.lines > entry->lines) {
        out.push_back({file.path, function.first_line,
                       function.name + " has " + std::to_string(function.lines) +
                           " lines: split it into steps with names"});
      }
      if (entry != ratchet.end() && function.lines == entry->lines) {
        used[static_cast<std::size_t>(entry - ratchet.begin())] = true;
      }
    }
  }
  for (std::size_t i = 0; i < ratchet.size(); ++i) {
    if (used[i]) continue;
    out.push_back(
        {ratchet[i].path, 0,
         ratchet[i].name + ": its entry in long_functions() is stale: lower or remove it"});
  }
  return out;
}

Violations check_openings(const Tree& tree) {
  Violations out;
  for (const SourceFile& file : tree.files) {
    if (is_source(file.path) && file.text.compare(0, 3, "// ") != 0) {
      out.push_back({file.path, 1, "opens without a comment: say in // what the file is for"});
    }
    if (ends_with(file.path, ".sql") && file.text.compare(0, 3, "-- ") != 0) {
      out.push_back({file.path, 1, "opens without a comment: say in -- what it answers"});
    }
    if (ends_with(file.path, ".js") && file.text.compare(0, 3, "// ") != 0) {
      out.push_back({file.path, 1, "opens without a comment: say in // what the file is for"});
    }
    if (ends_with(file.path, ".css") && file.text.compare(0, 3, "/* ") != 0) {
      out.push_back({file.path, 1, "opens without a comment: say in /* */ what the file is for"});
    }
    if (!is_header(file.path)) continue;
    const std::vector<std::string> code = split_lines(code_only(file.text));
    const auto first = std::find_if(code.begin(), code.end(), [](const std::string& line) {
      return line.find_first_not_of(" \t") != std::string::npos;
    });
    if (first == code.end() || *first != "#pragma once") {
      out.push_back({file.path, 1, "a header begins with #pragma once after its comment"});
    }
  }
  return out;
}

Violations check_banned_code(const Tree& tree) {
  Violations out;
  for (const SourceFile& file : tree.files) {
    if (!is_source(file.path)) continue;
    const std::vector<std::string> code = split_lines(code_only(file.text));
    for (std::size_t i = 0; i < code.size(); ++i) {
      for (const Ban& ban : banned_code()) {
        if (starts_with_any(file.path, ban.allowed_in) || !breaks(code[i], ban)) continue;
        out.push_back({file.path, i + 1, ban.word + " is banned; use " + ban.replacement});
      }
    }
  }
  return out;
}

Violations check_banned_text(const Tree& tree) {
  Violations out;
  for (const SourceFile& file : tree.files) {
    const std::vector<std::string> lines = split_lines(file.text);
    for (const TextBan& ban : banned_text()) {
      if (starts_with_any(file.path, ban.allowed_in)) continue;
      for (std::size_t i = 0; i < lines.size(); ++i) {
        if (!contains(lines[i], ban)) continue;
        out.push_back({file.path, i + 1, "'" + ban.text + "' is banned; use " + ban.replacement});
      }
    }
  }
  return out;
}

}  // namespace orrery::tidy
