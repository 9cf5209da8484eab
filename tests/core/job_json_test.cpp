// Jobs as files: read back to what was written, every problem named.
#include "core/job_json.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/support/random_jobs.h"

namespace orrery {
namespace {

TEST(JobJson, ReadsBackToTheSame) {
  const std::vector<Model> models = published_models();
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    Job job = random_job(models, seed);
    job.stack.name = "own";
    const std::string text = to_json(job).dump();
    const Result<Job> read = parse_job(text, "job.json");
    ASSERT_TRUE(read.ok()) << "seed " << seed << ": " << read.error().text();
    EXPECT_EQ(to_json(read.value()).dump(), text) << "seed " << seed;
    EXPECT_EQ(words_of(read.value()), words_of(job));
  }
}

TEST(JobJson, NamesEveryProblem) {
  const Job job = random_job(published_models(), 3);
  Json json = to_json(job);
  Json axes = axes_json(job);
  axes.set("schedule", "2f2b").set("depth", 4);
  json.set("job", axes);
  const Result<Job> read = parse_job(json.dump(), "job.json");
  ASSERT_FALSE(read.ok());
  const std::string text = read.error().text();
  EXPECT_NE(text.find("2f2b"), std::string::npos) << text;
  EXPECT_NE(text.find("depth"), std::string::npos) << text;
  EXPECT_NE(text.find("job.json:/job"), std::string::npos) << text;
}

TEST(JobJson, RulesHold) {
  Job job = random_job(published_models(), 5);
  job.layout.dp *= 7;
  const Result<Job> read = parse_job(to_json(job).dump(), "job.json");
  ASSERT_FALSE(read.ok());
  EXPECT_NE(read.error().text().find("world"), std::string::npos) << read.error().text();
}

TEST(JobJson, NamesAndWhatIsLeftOut) {
  const std::string text = R"({
    "job": {"layout": {"tp": 2, "pp": 2, "replicate_d": 2}, "sequence_tokens": 4096,
            "global_sequences": 64},
    "model": "qwen3-8b", "cluster": "h100x16", "stack": "fsdp2-eager"})";
  const Result<Job> read = parse_job(text, "job.json");
  ASSERT_TRUE(read.ok()) << read.error().text();
  const Job& job = read.value();
  EXPECT_EQ(job.model.layers, 36);
  EXPECT_EQ(job.cluster.devices, 16);
  EXPECT_EQ(job.stack.name, "fsdp2-eager");
  EXPECT_EQ(job.layout.dp, 4);
  EXPECT_EQ(job.layout.fsdp_d, 2);
  EXPECT_EQ(job.layout.ep, 1);
  EXPECT_EQ(job.sharding, Sharding::kOptimizer);
  EXPECT_EQ(job.recompute, Recompute{});
}

TEST(JobJson, UnknownNames) {
  const std::string text = R"({
    "job": {"layout": {"tp": 9000000000000000000, "pp": 9000000000000000000},
            "sequence_tokens": 4096, "global_sequences": 64},
    "model": "qwen3-8c", "cluster": "h100y16"})";
  const Result<Job> read = parse_job(text, "job.json");
  ASSERT_FALSE(read.ok());
  const std::string all = read.error().text();
  for (const char* word : {"qwen3-8c", "h100y16", "/stack"}) {
    EXPECT_NE(all.find(word), std::string::npos) << word << "\n" << all;
  }
}

std::string error_of_layout(const std::string& layout) {
  const std::string text = R"({"job": {"layout": )" + layout +
                           R"(, "sequence_tokens": 4096, "global_sequences": 64},
    "model": "qwen3-8b", "cluster": "h100x16", "stack": "generic"})";
  const Result<Job> read = parse_job(text, "job.json");
  return read.ok() ? "" : read.error().text();
}

TEST(JobJson, AbsurdAxesBreakARule) {
  const auto expect = [](const std::string& layout, const std::string& part) {
    const std::string error = error_of_layout(layout);
    EXPECT_NE(error.find(part), std::string::npos) << layout << ": " << error;
  };
  const std::string most = "9000000000000000000", many = "1000000";
  expect(R"({"tp": )" + most + R"(, "pp": )" + most + "}", "rule range: tp is " + most);
  expect(R"({"micro_batch": )" + most + "}", "rule range: micro_batch is " + most);
  expect(R"({"fsdp_d": )" + most + R"(, "replicate_d": )" + most + "}", "rule range: fsdp_d");
  // Each can be counted, their product cannot.
  std::string all;
  for (const char* axis : {"dp", "cp", "sp", "tp", "pp", "ep", "etp", "fsdp_d", "replicate_d"}) {
    all += (all.empty() ? "{\"" : ", \"") + std::string(axis) + "\": " + many;
  }
  expect(all + "}", "rule world: dp x cp x sp x tp x pp is more than 1048576");
}

}  // namespace
}  // namespace orrery
