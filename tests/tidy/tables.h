// The tables that the rules read: who may include whom, who owns which third-party header, what is
// banned and what to use instead, what is still too long.
#pragma once

#include <string>
#include <vector>

#include "tests/tidy/tidy.h"

namespace orrery::tidy {

inline constexpr std::size_t kMaxColumns = 100;
inline constexpr std::size_t kMaxFileLines = 600;
inline constexpr std::size_t kMaxFunctionLines = 70;
inline constexpr std::size_t kMaxReadmeLines = 60;

// A folder and the folders whose headers it may include. The longest matching `folder` counts.
struct Layer {
  std::string folder;
  std::vector<std::string> may_include;
};
const std::vector<Layer>& layers();

// A third-party header (by prefix) and the only paths that may include it.
struct Owner {
  std::string header;
  std::vector<std::string> owners;
  bool in_headers = true;  // may a .h file of the owner include it?
};
const std::vector<Owner>& owners();

// Operating-system headers that any folder may include, besides those of the C++ library.
const std::vector<std::string>& system_headers();

struct Ban {
  enum class Kind { kWord, kCall } kind = Kind::kWord;  // kCall: only where '(' follows
  std::string word;
  std::string replacement;
  std::vector<std::string> allowed_in;  // path prefixes
};
const std::vector<Ban>& banned_code();

struct TextBan {
  std::string text;
  bool whole_word = true;
  std::string replacement;
  std::vector<std::string> allowed_in;
};
const std::vector<TextBan>& banned_text();

const std::vector<LongFile>& long_files();
const std::vector<LongFunction>& long_functions();

}  // namespace orrery::tidy
