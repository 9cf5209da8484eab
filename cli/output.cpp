// See output.h.
#include "cli/output.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace orrery::cli {
namespace {

constexpr const char* kBold = "\x1b[1m";
constexpr const char* kDim = "\x1b[2m";
constexpr const char* kRed = "\x1b[1;31m";
constexpr const char* kYellow = "\x1b[1;33m";
constexpr const char* kPlain = "\x1b[0m";

bool wants_colour(int descriptor) {
  const char* none = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  if (none != nullptr && *none != '\0') return false;
  if (term == nullptr || std::strcmp(term, "dumb") == 0) return false;
  return isatty(descriptor) == 1;
}

void put(std::FILE* file, std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), file);
}

std::string styled(bool on, const char* style, std::string_view text) {
  return on ? fmt::format("{}{}{}", style, text, kPlain) : std::string(text);
}

bool plain_word(const std::string& word) {
  return !word.empty() && std::all_of(word.begin(), word.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || std::strchr("-_./=:,+%@", c) != nullptr;
  });
}

}  // namespace

Output::Output(bool json)
    : json_(json),
      colour_out_(wants_colour(STDOUT_FILENO)),
      colour_err_(wants_colour(STDERR_FILENO)),
      terminal_err_(isatty(STDERR_FILENO) == 1) {}

void Output::line(std::string_view text) {
  if (json_) return;
  put(stdout, text);
  put(stdout, "\n");
}

void Output::heading(std::string_view text) {
  if (json_) return;
  put(stdout, "\n" + styled(colour_out_, kBold, text) + "\n");
}

void Output::document(const Json& json) {
  if (!json_) return;
  documented_ = true;
  put(stdout, json.dump() + "\n");
}

void Output::note(std::string_view text) {
  settle();
  put(stderr, fmt::format("{}\n", text));
}

void Output::warn(std::string_view text) {
  settle();
  put(stderr, styled(colour_err_, kYellow, "warning:") + fmt::format(" {}\n", text));
}

void Output::next(const std::vector<std::string>& command, std::string_view why) {
  if (json_) return;
  settle();
  put(stderr, fmt::format("{} {}  {}\n", styled(colour_err_, kDim, "next:"), shell_line(command),
                          styled(colour_err_, kDim, fmt::format("# {}", why))));
}

void Output::error(const Error& error) {
  settle();
  for (const Problem& problem : error.problems) {
    std::string text = styled(colour_err_, kRed, "error:") + " ";
    if (!problem.where.empty()) text += problem.where + ": ";
    text += problem.message + "\n";
    if (!problem.hint.empty()) {
      text += "  " + styled(colour_err_, kDim, "hint:") + " " + problem.hint + "\n";
    }
    put(stderr, text);
  }
}

// The words of the result come before those about it. The first error counts.
void Output::settle() {
  errno = 0;
  if (std::fflush(stdout) != 0 && write_error_ == 0) write_error_ = errno;
}

Status Output::flush() {
  settle();
  if (write_error_ == 0 && std::ferror(stdout) == 0) return Ok{};
  return Error::of(ErrorCode::kIo, "stdout",
                   fmt::format("the result could not be written: {}",
                               write_error_ != 0 ? std::strerror(write_error_) : "write error"));
}

std::string shell_line(const std::vector<std::string>& words) {
  std::string line;
  for (const std::string& word : words) {
    if (!line.empty()) line += ' ';
    if (plain_word(word)) {
      line += word;
      continue;
    }
    line += '\'';
    for (const char c : word) line += c == '\'' ? std::string("'\\''") : std::string(1, c);
    line += '\'';
  }
  return line;
}

std::string percent(double fraction) {
  return std::isfinite(fraction) ? fmt::format("{:.1f} %", fraction * 100) : "-";
}

std::string signed_percent(double fraction) {
  if (!std::isfinite(fraction)) return "-";
  const double tenths = std::round(fraction * 1000);
  return tenths == 0 ? "0.0 %" : fmt::format("{:+.1f} %", tenths / 10);
}

std::string plural(std::size_t count, std::string_view noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

Json number_or_null(double value) {
  return std::isfinite(value) ? Json(value) : Json();
}

Json problems_json(const Error& error) {
  Json problems = Json::array();
  for (const Problem& problem : error.problems) {
    problems.push(Json::object()
                      .set("where", problem.where)
                      .set("message", problem.message)
                      .set("hint", problem.hint));
  }
  return problems;
}

Json versioned() {
  Json json = Json::object();
  json.set("schema_version", 1);
  return json;
}

}  // namespace orrery::cli
