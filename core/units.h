// Quantities with units as types: only dimension-correct operators exist.
// Times of the virtual and the measured timeline are integer nanoseconds (Nanoseconds), so that
// event order never depends on floating-point noise; formulas use Seconds (double).
#pragma once

#include <compare>
#include <cstdint>

namespace orrery {

template <class Tag, class Rep>
class Quantity {
 public:
  constexpr Quantity() = default;
  constexpr explicit Quantity(Rep value) : value_(value) {}
  constexpr Rep value() const { return value_; }

  constexpr auto operator<=>(const Quantity&) const = default;
  constexpr Quantity operator+(Quantity o) const { return Quantity(value_ + o.value_); }
  constexpr Quantity operator-(Quantity o) const { return Quantity(value_ - o.value_); }
  constexpr Quantity& operator+=(Quantity o) {
    value_ += o.value_;
    return *this;
  }
  constexpr Quantity& operator-=(Quantity o) {
    value_ -= o.value_;
    return *this;
  }
  constexpr Quantity operator*(Rep factor) const { return Quantity(value_ * factor); }

 private:
  Rep value_{};
};

using Bytes = Quantity<struct BytesTag, std::int64_t>;
using Nanoseconds = Quantity<struct NanosecondsTag, std::int64_t>;
using Seconds = Quantity<struct SecondsTag, double>;
using Flops = Quantity<struct FlopsTag, double>;
using BytesPerSecond = Quantity<struct BytesPerSecondTag, double>;
using FlopsPerSecond = Quantity<struct FlopsPerSecondTag, double>;

constexpr Seconds operator/(Bytes amount, BytesPerSecond rate) {
  return Seconds(static_cast<double>(amount.value()) / rate.value());
}
constexpr Seconds operator/(Flops amount, FlopsPerSecond rate) {
  return Seconds(amount.value() / rate.value());
}

// Rounds up: a positive duration is never zero on the timeline.
constexpr Nanoseconds to_nanoseconds(Seconds s) {
  const double ns = s.value() * 1e9;
  const auto whole = static_cast<std::int64_t>(ns);
  return Nanoseconds(static_cast<double>(whole) < ns ? whole + 1 : whole);
}
constexpr Seconds to_seconds(Nanoseconds ns) {
  return Seconds(static_cast<double>(ns.value()) * 1e-9);
}

constexpr Bytes kKiB = Bytes(1024);
constexpr Bytes kMiB = Bytes(1024 * 1024);
constexpr Bytes kGiB = Bytes(1024LL * 1024 * 1024);

}  // namespace orrery
