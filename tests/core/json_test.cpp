// Strictness of Json and completeness of ObjectReader.
#include "core/json.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

namespace orrery {
namespace {

std::string where_of(const std::string& text) {
  const Result<Json> result = Json::parse(text, "f.json");
  return result.ok() ? "accepted" : result.error().problems.at(0).where;
}

TEST(Json, RejectsWhatIsNotStrictJson) {
  EXPECT_EQ(where_of(""), "f.json:1:1");
  EXPECT_EQ(where_of("{\n \"a\": tru}"), "f.json:2:10");
  EXPECT_EQ(where_of("[1,2,]"), "f.json:1:6");
  EXPECT_EQ(where_of("[1] x"), "f.json:1:5");
  EXPECT_EQ(where_of("[NaN]"), "f.json:1:2");
  EXPECT_EQ(where_of("[Infinity]"), "f.json:1:2");
  EXPECT_EQ(where_of("[-Infinity]"), "f.json:1:3");
  EXPECT_EQ(where_of("\"\xff\""), "f.json:1:2");
  EXPECT_EQ(where_of("[\"\xc0\xaf\"]"), "f.json:1:3");      // overlong
  EXPECT_EQ(where_of("[\"\xed\xa0\x80\"]"), "f.json:1:4");  // a surrogate
  EXPECT_EQ(where_of("[01]"), "f.json:1:3");
  EXPECT_EQ(where_of("{'a': 1}"), "f.json:1:2");
  EXPECT_EQ(where_of("// c\n1"), "f.json:1:1");
  EXPECT_EQ(where_of("1e999"), "f.json:1:5");
  EXPECT_EQ(where_of("[\"a\nb\"]"), "f.json:1:4");
}

TEST(Json, NamesDuplicateKeysByPointer) {
  const Result<Json> result = Json::parse(R"({"a": [0, {"b/c": 1, "b/c": 2}]})", "f.json");
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::kInvalid);
  EXPECT_EQ(result.error().problems.at(0).where, "f.json:/a/1/b~1c");
  EXPECT_NE(result.error().text().find("duplicate key"), std::string::npos);
}

TEST(Json, LimitsDepthAtTwoHundred) {
  const auto nested = [](std::size_t n) { return std::string(n, '[') + std::string(n, ']'); };
  EXPECT_TRUE(Json::parse(nested(200), "f").ok());
  EXPECT_FALSE(Json::parse(nested(201), "f").ok());
  EXPECT_FALSE(Json::parse(std::string(1000000, '['), "f").ok());
}

TEST(Json, ReadsIntegersBeyondInt64AsDoubles) {
  const auto one = [](const char* text) { return Json::parse(text, "f").value(); };
  EXPECT_EQ(one("9223372036854775807").as_integer(), std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(one("-9223372036854775808").as_integer(), std::numeric_limits<std::int64_t>::min());
  EXPECT_FALSE(one("9223372036854775808").is_integer());
  EXPECT_EQ(one("9223372036854775808").as_double(), 9223372036854775808.0);
  EXPECT_EQ(one("100000000000000000000").as_double(), 1e20);
  EXPECT_EQ(one("-100000000000000000000").as_double(), -1e20);
}

TEST(Json, DumpsInOrderAndReplacesInPlace) {
  Json json = Json::object();
  json.set("z", 1).set("a", Json::array().push(true).push(Json()).push("x\"\n\x01"));
  json.set("z", 2.0);
  EXPECT_EQ(json.dump(-1), R"({"z": 2.0, "a": [true, null, "x\"\n\u0001"]})");
  json.set("o", Json::array().push(Json::object().set("k", 1)));
  EXPECT_EQ(json.dump(1),
            "{\n \"z\": 2.0,\n \"a\": [true, null, \"x\\\"\\n\\u0001\"],\n"
            " \"o\": [\n  {\n   \"k\": 1\n  }\n ]\n}");
}

// Any value: dump, read, equal; doubles bit for bit.
Json random_json(std::mt19937_64& rng, int depth) {
  switch (rng() % (depth > 4 ? 5 : 7)) {
    case 0:
      return Json();
    case 1:
      return Json(rng() % 2 == 0);
    case 2:
      return Json(static_cast<std::int64_t>(rng()));
    case 3: {
      const std::uint64_t bits = rng();
      double value = 0;
      std::memcpy(&value, &bits, sizeof value);
      return Json(std::isfinite(value) ? value : 0.5);
    }
    case 4: {
      std::string text;
      for (std::uint64_t n = rng() % 8; n > 0; --n) text += static_cast<char>(rng() % 128);
      return Json(text + (rng() % 2 == 0 ? "\xc3\xa9" : ""));
    }
    case 5: {
      Json array = Json::array();
      for (std::uint64_t n = rng() % 5; n > 0; --n) array.push(random_json(rng, depth + 1));
      return array;
    }
    default: {
      Json object = Json::object();
      for (std::uint64_t n = rng() % 5; n > 0; --n) {
        object.set("k" + std::to_string(rng() % 100), random_json(rng, depth + 1));
      }
      return object;
    }
  }
}

TEST(Json, RoundTripsRandomValues) {
  for (std::uint64_t seed = 0; seed < 500; ++seed) {
    std::mt19937_64 rng(seed);
    const Json json = random_json(rng, 0);
    for (const int indent : {-1, 0, 2}) {
      const Result<Json> read = Json::parse(json.dump(indent), "f");
      ASSERT_TRUE(read.ok()) << read.error().text() << json.dump();
      EXPECT_EQ(read.value(), json) << "seed " << seed;
      EXPECT_EQ(read.value().dump(indent), json.dump(indent));
    }
  }
}

TEST(Json, MissingFileIsAnIoError) {
  const Result<Json> result = Json::load("/nonexistent/file.json");
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::kIo);
}

TEST(ObjectReader, CollectsEveryProblemAtOnce) {
  const Json json = Json::parse(R"({"count": 12, "ratio": "x", "colour": "blu", "size": 80,
      "flag": 1, "list": {}, "part": [], "float": 3.0, "extra_key": 1, "rate": "3 GB"})",
                                "f.json")
                        .value();
  std::vector<Problem> problems;
  ObjectReader reader(json, "f.json:", problems);
  reader.integer("count", 0, 10);
  reader.number("ratio", 0, 1);
  EXPECT_EQ(reader.choice("colour", {"red", "blue"}), "red");
  reader.quantity("size", "bytes");
  reader.boolean_or("flag", false);
  reader.array("list");
  reader.child("part");
  EXPECT_EQ(reader.integer("float", 0, 10), 3);
  reader.quantity("rate", "bytes/s");
  reader.text("absent");
  reader.ignore("extra_kez");
  reader.finish();
  std::vector<std::string> wheres;
  for (const Problem& problem : problems) wheres.push_back(problem.where);
  EXPECT_EQ(wheres, (std::vector<std::string>{"f.json:/count", "f.json:/ratio", "f.json:/colour",
                                              "f.json:/size", "f.json:/flag", "f.json:/list",
                                              "f.json:/part", "f.json:/rate", "f.json:/absent",
                                              "f.json:/extra_key"}));
  EXPECT_EQ(problems[2].hint, "did you mean 'blue'?");
  EXPECT_NE(problems[3].hint.find("80 bytes"), std::string::npos);
  EXPECT_NE(problems[7].hint.find("450 GB/s"), std::string::npos);
  EXPECT_EQ(problems[9].hint, "did you mean 'extra_kez'?");
}

TEST(ObjectReader, NullIsAbsentAndAnotherKindIsOneProblem) {
  const Json json = Json::parse(R"({"a": null})", "f").value();
  std::vector<Problem> problems;
  ObjectReader reader(json, "f:", problems);
  EXPECT_FALSE(reader.has("a"));
  EXPECT_EQ(reader.integer_or("a", 0, 9, 7), 7);
  reader.finish();
  EXPECT_TRUE(problems.empty());
  ObjectReader other(Json(3), "f:/x", problems);
  other.integer("a", 0, 1);
  other.text("b");
  other.finish();
  EXPECT_EQ(problems.size(), 1U);
}

}  // namespace
}  // namespace orrery
