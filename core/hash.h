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

// splitmix64 (Steele, Lea, Flood 2014): a bijection that turns counters into random bits, so that a
// draw depends on its place alone.
constexpr std::uint64_t mix64(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

}  // namespace orrery
