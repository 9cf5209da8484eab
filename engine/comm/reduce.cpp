// Sums a block of elements at a time, so that the accumulator stays in the first-level cache and
// the output may be one of the inputs.
#include "engine/comm/reduce.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <type_traits>

#include "core/check.h"

namespace orrery::engine {
namespace {

constexpr std::int64_t kBlock = 1024;

// How a stored element becomes a term of the sum, and back.
template <class T>
struct Plain {
  using Stored = T;
  using Sum = T;
  static Sum load(Stored value) { return value; }
  static Stored store(Sum value) { return value; }
};

struct BFloat16 {
  using Stored = std::uint16_t;
  using Sum = float;
  static Sum load(Stored value) { return float_of_bf16(value); }
  static Stored store(Sum value) { return bf16_of(value); }
};

template <class Format>
void sum(const std::vector<const void*>& parts, void* out, std::int64_t count) {
  using Stored = typename Format::Stored;
  std::array<typename Format::Sum, kBlock> total;
  for (std::int64_t start = 0; start < count; start += kBlock) {
    const auto length = static_cast<std::size_t>(std::min(kBlock, count - start));
    const auto* first = static_cast<const Stored*>(parts[0]) + start;
    for (std::size_t i = 0; i < length; ++i) total[i] = Format::load(first[i]);
    for (std::size_t part = 1; part < parts.size(); ++part) {
      const auto* term = static_cast<const Stored*>(parts[part]) + start;
      for (std::size_t i = 0; i < length; ++i) total[i] += Format::load(term[i]);
    }
    auto* target = static_cast<Stored*>(out) + start;
    for (std::size_t i = 0; i < length; ++i) target[i] = Format::store(total[i]);
  }
}

}  // namespace

std::uint16_t bf16_of(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) {  // NaN: rounding could turn it into an infinity
    return static_cast<std::uint16_t>((bits >> 16) | 0x40U);
  }
  // Adding just under half of the last kept bit, or exactly half when that bit is odd.
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

float float_of_bf16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

void sum_in_rank_order(const std::vector<const void*>& parts, void* out, std::int64_t count,
                       DType dtype) {
  CHECK(!parts.empty() && count >= 0, "a sum needs at least one part and a count");
  switch (dtype) {
    case DType::kFloat32:
      return sum<Plain<float>>(parts, out, count);
    case DType::kFloat64:
      return sum<Plain<double>>(parts, out, count);
    case DType::kBFloat16:
      return sum<BFloat16>(parts, out, count);
    case DType::kInt64:
      return sum<Plain<std::uint64_t>>(parts, out, count);
  }
}

}  // namespace orrery::engine
