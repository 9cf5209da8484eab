// Content hashes: SHA-256 (FIPS 180-4) names inputs and plans in files; FNV-1a 64 makes op keys.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace orrery {

// The SHA-256 of the bytes, as 64 lower-case hexadecimal digits.
std::string sha256_hex(std::string_view bytes);

// FNV-1a, 64 bits: offset basis 14695981039346656037, prime 1099511628211.
std::uint64_t hash64(std::string_view bytes);

}  // namespace orrery
