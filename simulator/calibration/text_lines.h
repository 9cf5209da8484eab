// Lines and words of what tools print to terminals.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace orrery::simulator {

// Without line ends, colour codes and the label of a launcher ("[1,0]<stdout>:", "0: ").
std::vector<std::string> terminal_lines(std::string_view text);

std::vector<std::string> words_of(std::string_view line);

// The whole word as a finite number, or a whole one.
std::optional<double> number_of(std::string_view word);
std::optional<std::int64_t> whole_of(std::string_view word);

// "file:line", from 1.
std::string place_of(const std::string& file, std::size_t index);

double median_of(std::vector<double> values);  // CHECKs that there is one

}  // namespace orrery::simulator
