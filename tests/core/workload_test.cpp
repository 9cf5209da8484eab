// What a workload need not say: schedules, packing, drawn lengths. Defaults, exact round trips, and
// errors by injection.
#include "core/workload.h"

#include <gtest/gtest.h>

#include <random>

namespace orrery {
namespace {

Workload pretrain() {
  return load_workload("pretrain-4k").value();
}

Workload packed_workload() {
  Workload w = pretrain();
  w.document_tokens.clear();
  w.document_lengths = DocumentLengths{700.5, 1.25, 4096, 7};
  w.packing = Packing::kSoft;
  return w;
}

TEST(Workload, SaysNothingOfDefaults) {
  const Workload w = pretrain();
  EXPECT_EQ(w.packing, Packing::kNone);
  EXPECT_FALSE(w.document_lengths);
  EXPECT_EQ(w.optimizer.schedule, Schedule{});
  const std::string text = to_json(w).dump(-1);
  for (const char* key : {"schedule", "packing", "document_lengths", "z_loss", "bias_speed"}) {
    EXPECT_EQ(text.find(key), std::string::npos) << "files of before would hash otherwise";
  }
}

TEST(Workload, RoundTripsWithAllThatIsOptional) {
  std::mt19937_64 rng(3);
  std::uniform_real_distribution<double> factor(0.1, 1);
  for (int i = 0; i < 300; ++i) {
    Workload w = i % 2 == 0 ? pretrain() : packed_workload();
    if (w.document_lengths) {
      w.document_lengths->median_tokens *= factor(rng);
      w.document_lengths->sigma *= factor(rng);
      w.document_lengths->seed = static_cast<std::int64_t>(rng() >> 1);
      w.packing = static_cast<Packing>(i / 2 % 3);
    }
    w.z_loss = i % 5 == 0 ? 0 : 1e-3 * factor(rng);
    w.bias_speed = i % 7 == 0 ? 0 : 1e-3 * factor(rng);
    Schedule& s = w.optimizer.schedule;
    s.kind = static_cast<ScheduleKind>(i % 3);
    s.warmup_steps = i;
    if (s.kind != ScheduleKind::kConstant) {
      s.total_steps = 2 * i + 1;
      s.min_lr = w.optimizer.lr * factor(rng);
    }
    const Result<Workload> read = parse_workload(to_json(w).dump(), "w.json");
    ASSERT_TRUE(read.ok()) << read.error().text();
    w.sha256 = read.value().sha256;
    EXPECT_EQ(read.value(), w);
  }
}

TEST(Workload, PairsOfDrawnRowsAreExpectedOnes) {
  Workload w = packed_workload();
  EXPECT_EQ(w.pairs_per_sequence(), expected_pairs(*w.document_lengths, 4096, Packing::kSoft));
  EXPECT_LT(w.pairs_per_sequence(), document_pairs(4096));
  w.document_lengths->max_tokens = 512;
  const std::int64_t shorter = w.pairs_per_sequence();
  EXPECT_LT(shorter, 8 * document_pairs(512));
  w.document_lengths->max_tokens = 4096;
  EXPECT_LT(shorter, w.pairs_per_sequence());
  EXPECT_NE(w.typical_documents(0), w.typical_documents(1));
  EXPECT_EQ(pretrain().typical_documents(3), std::vector<std::int64_t>{4096});
}

// The problem that comes of setting `key` (of the object at `object`, "" for the file) to `value`.
std::vector<Problem> problems_of(const Workload& w, const std::string& object,
                                 const std::string& key, const Json& value) {
  Json json = to_json(w);
  if (object.empty()) {
    json.set(key, value);
  } else if (object == "schedule") {
    Json optimizer = *json.find("optimizer");
    Json schedule = *optimizer.find("schedule");
    optimizer.set("schedule", schedule.set(key, value));
    json.set("optimizer", optimizer);
  } else {
    Json child = *json.find(object);
    json.set(object, child.set(key, value));
  }
  const Result<Workload> read = parse_workload(json.dump(), "w.json");
  EXPECT_FALSE(read.ok()) << object << "/" << key << " " << value.dump(-1);
  return read.ok() ? std::vector<Problem>{} : read.error().problems;
}

TEST(Workload, BadValuesOfOptionalKeys) {
  Workload w = packed_workload();
  w.optimizer.schedule = {ScheduleKind::kCosine, 10, 100, 1e-5};
  struct Bad {
    const char *object, *key;
    Json value;
    const char* says;
  };
  const std::vector<Bad> cases = {
      {"", "packing", "sfot", "did you mean 'soft'"},
      {"", "packing", 3, "a string expected"},
      {"", "document_tokens", 4096, "stands beside document_tokens"},
      {"", "document_lengths", Json(), "or a distribution"},
      {"", "document_lengths", 3, "an object expected"},
      {"document_lengths", "kind", "lognorma", "did you mean 'lognormal'"},
      {"document_lengths", "median_tokens", 0, "is 0, not between"},
      {"document_lengths", "median_tokens", 5000, "more than max_tokens = 4096"},
      {"document_lengths", "sigma", -0.5, "is -0.5, not between"},
      {"document_lengths", "max_tokens", 5000, "more than a row of 4096"},
      {"document_lengths", "max_tokens", Json(), "is missing"},
      {"document_lengths", "seed", -1, "is -1, not between"},
      {"document_lengths", "mean", 3, "unknown key"},
      {"", "z_loss", -1, "is -1, not between"},
      {"", "bias_speed", "0.001", "a number expected"},
      {"schedule", "kind", "cosin", "did you mean 'cosine'"},
      {"schedule", "kind", "constant", "means nothing to a constant rate"},
      {"schedule", "warmup_steps", 100, "is 100, and the warm-up alone takes 100"},
      {"schedule", "total_steps", Json(), "is missing"},
      {"schedule", "min_lr", 1.0, "is more than lr = 3e-04"},
      {"schedule", "warm_up", 3, "unknown key"}};
  for (const Bad& bad : cases) {
    SCOPED_TRACE(std::string(bad.object) + "/" + bad.key + " " + bad.value.dump(-1));
    std::string text;
    for (const Problem& p : problems_of(w, bad.object, bad.key, bad.value)) {
      EXPECT_EQ(p.where.rfind("w.json:/", 0), 0U) << p.where;
      text += p.where + ": " + p.message + " " + p.hint + "\n";
    }
    EXPECT_NE(text.find(bad.says), std::string::npos) << text;
  }
  // Hard packing cuts what is longer than a row.
  w.packing = Packing::kHard;
  w.document_lengths->max_tokens = 5000;
  EXPECT_TRUE(parse_workload(to_json(w).dump(), "w.json").ok());
}

TEST(Workload, AllProblemsAtOnce) {
  Workload w = packed_workload();
  w.optimizer.schedule = {ScheduleKind::kLinear, 10, 100, 0};
  Json json = to_json(w);
  json.set("packing", "softer").set("z_loss", -1).set("document_lengths", Json::object());
  const auto read = parse_workload(json.dump(), "w.json");
  ASSERT_FALSE(read.ok());
  EXPECT_GE(read.error().problems.size(), 7U) << read.error().text();
}

TEST(Workload, TooManyDocumentsInARow) {
  Workload w = packed_workload();
  w.packing = Packing::kNone;
  w.sequence_tokens = std::int64_t{1} << 27;
  w.document_lengths = DocumentLengths{100, 1, 4096, 0};
  const auto read = parse_workload(to_json(w).dump(), "w.json");
  ASSERT_FALSE(read.ok());
  EXPECT_NE(read.error().text().find("/document_lengths/median_tokens"), std::string::npos);
}

}  // namespace
}  // namespace orrery
