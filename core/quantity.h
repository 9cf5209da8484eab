// Text <-> number for quantities: "80 GiB", "450 GB/s", "2.5 us", "989 TFLOP/s".
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "core/units.h"

namespace orrery {

// `dimension` is one of "bytes", "bytes/s", "s", "flop/s". Returns the value in that base unit.
// SI and IEC prefixes ("GB", "GiB"); bits as "Gb/s". A bare number is an error, except "0".
Result<double> parse_quantity(std::string_view text, std::string_view dimension,
                              const std::string& where);

// The shortest text that parse_quantity reads back to exactly `value` (>= 0): "200 GB/s".
std::string exact_quantity(double value, std::string_view dimension);

// For people: "13.7 GiB", "412.3 ms", "148.0 GFLOP", "3.20 GB/s". Four significant digits at most.
std::string format_bytes(Bytes bytes);
std::string format_seconds(Seconds seconds);
std::string format_rate(BytesPerSecond rate);
std::string format_flops(Flops flops);
std::string format_count(double count);  // "158k", "4.19 M", "235.1 B"

// The nearest of `choices` to `word` by edit distance, or "" if none is near.
std::string nearest(std::string_view word, const std::vector<std::string>& choices);

}  // namespace orrery
