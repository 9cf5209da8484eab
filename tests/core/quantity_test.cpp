// Quantities: exact reading and writing, formats for people, nearest words; and the hashes.
#include "core/quantity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "core/hash.h"

namespace orrery {
namespace {

double value_of(const char* text, const char* dimension) {
  const Result<double> result = parse_quantity(text, dimension, "f");
  EXPECT_TRUE(result.ok()) << text << ": " << (result.ok() ? "" : result.error().text());
  return result.ok() ? result.value() : -1;
}

TEST(Quantity, ReadsUnitsExactly) {
  EXPECT_EQ(value_of("80 GiB", "bytes"), 80.0 * 1024 * 1024 * 1024);
  EXPECT_EQ(value_of("80GB", "bytes"), 80e9);
  EXPECT_EQ(value_of("0", "bytes"), 0.0);
  EXPECT_EQ(value_of("450 GB/s", "bytes/s"), 450e9);
  EXPECT_EQ(value_of("400 Gb/s", "bytes/s"), 50e9);
  EXPECT_EQ(value_of("3.35 TB/s", "bytes/s"), 3.35e12);
  EXPECT_EQ(value_of("2.5 us", "s"), 2.5e-6);
  EXPECT_EQ(value_of("0.1 ns", "s"), 0.1e-9);
  EXPECT_EQ(value_of("989 TFLOP/s", "flop/s"), 989e12);
}

TEST(Quantity, RejectsWhatIsAmbiguousOrWrong) {
  for (const char* text : {"80", "", " ", "GiB", "-1 GB", "1e400 GB", "nan GB", "inf GB", "1 GB x",
                           "1 gb", "0x10 B", "1,5 GB", "9e307 EB"}) {
    EXPECT_FALSE(parse_quantity(text, "bytes", "f").ok()) << text;
  }
  EXPECT_FALSE(parse_quantity("80 GB", "bytes/s", "f").ok());
  EXPECT_FALSE(parse_quantity("80 Gb", "bytes", "f").ok());
  const Result<double> ambiguous = parse_quantity("400 gbps", "bytes/s", "f");
  ASSERT_FALSE(ambiguous.ok());
  EXPECT_NE(ambiguous.error().problems[0].hint.find("Gb/s"), std::string::npos);
}

TEST(Quantity, WritesTheShortestExactText) {
  EXPECT_EQ(exact_quantity(200e9, "bytes/s"), "200 GB/s");
  EXPECT_EQ(exact_quantity(80.0 * 1024 * 1024 * 1024, "bytes"), "80 GiB");
  EXPECT_EQ(exact_quantity(1.5e-6, "s"), "1.5 us");
  EXPECT_EQ(exact_quantity(0, "bytes"), "0 B");
}

TEST(Quantity, RoundTripsRandomDoublesBitForBit) {
  std::mt19937_64 rng(7);
  int tried = 0;
  while (tried < 20000) {
    std::uint64_t bits = rng() >> 1;  // not negative
    double value = 0;
    std::memcpy(&value, &bits, sizeof value);
    if (!std::isfinite(value)) continue;
    ++tried;
    for (const char* dimension : {"bytes", "bytes/s", "s", "flop/s"}) {
      const std::string text = exact_quantity(value, dimension);
      const Result<double> read = parse_quantity(text, dimension, "f");
      ASSERT_TRUE(read.ok()) << text;
      ASSERT_EQ(read.value(), value) << text;
    }
  }
}

TEST(Quantity, FormatsForPeople) {
  EXPECT_EQ(format_bytes(Bytes(0)), "0 B");
  EXPECT_EQ(format_bytes(Bytes(1023)), "1023 B");
  EXPECT_EQ(format_bytes(Bytes(14710205481)), "13.7 GiB");
  EXPECT_EQ(format_bytes(Bytes(1024LL * 1024 * 1024)), "1.00 GiB");
  EXPECT_EQ(format_bytes(Bytes(-2048)), "-2.00 KiB");
  EXPECT_EQ(format_seconds(Seconds(0.4123)), "412.3 ms");
  EXPECT_EQ(format_seconds(Seconds(0.99999)), "1.00 s");
  EXPECT_EQ(format_seconds(Seconds(2.5e-6)), "2.50 us");
  EXPECT_EQ(format_flops(Flops(148.0e9)), "148.0 GFLOP");
  EXPECT_EQ(format_rate(BytesPerSecond(3.2e9)), "3.20 GB/s");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(158234), "158k");
  EXPECT_EQ(format_count(999600), "1.00 M");
  EXPECT_EQ(format_count(4194304), "4.19 M");
  EXPECT_EQ(format_count(235093634560.0), "235.1 B");
}

TEST(Quantity, FormatsNeverShowMoreThanFourDigits) {
  std::mt19937_64 rng(3);
  std::uniform_real_distribution<double> exponent(0, 16.5);
  for (int i = 0; i < 5000; ++i) {
    const double value = std::pow(10.0, exponent(rng));
    for (const std::string& text :
         {format_bytes(Bytes(static_cast<std::int64_t>(value))), format_rate(BytesPerSecond(value)),
          format_seconds(Seconds(value * 1e-14)), format_count(value * 1e-2 + 1)}) {
      int digits = 0;
      for (const char c : text) digits += c >= '0' && c <= '9' ? 1 : 0;
      EXPECT_LE(digits, 4) << text;
      EXPECT_GE(digits, 1) << text;
    }
  }
}

TEST(Nearest, FindsTyposOnly) {
  const std::vector<std::string> names = {"qwen3-8b", "qwen3-32b", "qwen3-235b-a22b"};
  EXPECT_EQ(nearest("qwen3-235-a22b", names), "qwen3-235b-a22b");
  EXPECT_EQ(nearest("Qwen3-8B", names), "qwen3-8b");
  EXPECT_EQ(nearest("mixtral", names), "");
  EXPECT_EQ(nearest("", names), "");
  EXPECT_EQ(nearest("ab", {"cd", "ef"}), "");
}

// FIPS 180-4's examples and the usual long one.
TEST(Hash, Sha256Vectors) {
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256_hex(std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  // Every length around the padding's border differs and is stable in its size.
  for (std::size_t n = 0; n < 130; ++n) {
    EXPECT_EQ(sha256_hex(std::string(n, 'x')).size(), 64U);
    EXPECT_NE(sha256_hex(std::string(n, 'x')), sha256_hex(std::string(n + 1, 'x')));
  }
}

TEST(Hash, Fnv1aVectors) {
  EXPECT_EQ(hash64(""), 0xcbf29ce484222325ULL);
  EXPECT_EQ(hash64("a"), 0xaf63dc4c8601ec8cULL);
  EXPECT_EQ(hash64("foobar"), 0x85944171f73967e8ULL);
}

}  // namespace
}  // namespace orrery
