// Where words go: stdout is the result, stderr the conversation. Colour only on a terminal, and
// never with NO_COLOR. A result that cannot be written is an error, not a silence.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "core/result.h"

namespace orrery::cli {

class Output {
 public:
  explicit Output(bool json);

  bool json() const { return json_; }
  bool colour_out() const { return colour_out_; }
  bool colour_err() const { return colour_err_; }
  bool terminal_err() const { return terminal_err_; }

  // A line (or lines) of the result. Nothing in --json: a command calls document() once instead.
  void line(std::string_view text = "");
  void heading(std::string_view text);  // an empty line, then the text in bold
  void document(const Json& json);
  bool documented() const { return documented_; }

  // A line of the conversation.
  void note(std::string_view text);
  void warn(std::string_view text);  // "warning: ..."
  // What to do next: a command line and, in a few words, what for. At the end of a result.
  void next(const std::vector<std::string>& command, std::string_view why);
  void error(const Error& error);

  // After the last word: kIo where stdout did not take all of it.
  Status flush();

 private:
  void settle();

  int write_error_ = 0;  // errno of stdout
  bool documented_ = false;
  bool json_ = false, colour_out_ = false, colour_err_ = false, terminal_err_ = false;
};

// The words as a shell reads them.
std::string shell_line(const std::vector<std::string>& words);

// "31.2 %", "+3.6 %", "-"  (for a value that is not finite)
std::string percent(double fraction);
std::string signed_percent(double fraction);

// "1 role", "2 roles"
std::string plural(std::size_t count, std::string_view noun);

Json number_or_null(double value);  // null where it is not finite
// [{"where", "message", "hint"}]
Json problems_json(const Error& error);

// A document of this house: {"schema_version": 1}.
Json versioned();

}  // namespace orrery::cli
