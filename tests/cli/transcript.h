// Transcripts: commands with what they print and how they end, as data.
//
//   # a remark
//   $ orrery list models          run by sh in the file's own empty folder
//   > qwen3-8b  ...               a line of stdout
//   ! next: ...                   a line of stderr
//   ? 3                           the exit code; 0 where it is not given
//
// "..." in a line stands for any text; a line that is only "..." for any number of lines. What is
// not expected may not be printed.
#pragma once

#include <string>
#include <vector>

namespace orrery::cli_test {

struct Case {
  std::string command;
  std::vector<std::string> out, err;
  int code = 0;
  int line = 0;  // in the file
};

struct Ran {
  std::string out, err;
  int code = 0;  // 128 + signal where one ended it
};

// Fails the test at a line that is none of the above.
std::vector<Case> parse_transcript(const std::string& path);

// Runs `command` by sh in `folder`, with `orrery` in its path, no colour and no engine chosen.
Ran run_shell(const std::string& command, const std::string& folder);

// Empty where the text is as expected, else what differs.
std::string difference(const std::vector<std::string>& expected, const std::string& text);

}  // namespace orrery::cli_test
