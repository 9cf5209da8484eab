// The published rows themselves, where they lie beside the checkout; and the page that the command
// wrote from them. Skipped, visibly, without them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "core/configs.h"
#include "simulator/stages/step.h"
#include "validation/fit.h"
#include "validation/report.h"

namespace orrery::validation {
namespace {

namespace fs = std::filesystem;

// $ORRERY_PUBLISHED, else ../shared/data/published of the checkout.
std::vector<std::string> published_files() {
  const char* named = std::getenv("ORRERY_PUBLISHED");
  const fs::path folder = named != nullptr ? fs::path(named)
                                           : fs::path(ORRERY_SOURCE_DIR).parent_path() / "shared" /
                                                 "data" / "published";
  std::vector<std::string> files;
  std::error_code ec;
  for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec)) {
    if (it->path().extension() == ".json") files.push_back(it->path().string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

class Published : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const std::string& path : published_files()) {
      const auto more = load_rows(path);
      ASSERT_TRUE(more.ok()) << more.error().text();
      rows_.insert(rows_.end(), more.value().begin(), more.value().end());
    }
    if (rows_.empty()) GTEST_SKIP() << "no published rows beside the checkout";
    stacks_ = load_stacks().value();
  }
  std::vector<PublishedRow> rows_;
  std::vector<Stack> stacks_;
};

// A row that says everything, on a device that has a profile, becomes a job or breaks a rule of
// layouts; only what is missing or not priced is refused.
TEST_F(Published, RowsBecomeJobsOrNameTheField) {
  std::size_t jobs = 0;
  for (const PublishedRow& row : rows_) {
    const RowJob made = job_of(row, stacks_);
    EXPECT_NE(made.job.has_value(), !made.refused.empty()) << row.id;
    for (const Refusal& r : made.refused) {
      EXPECT_FALSE(r.field.empty() || r.reason.empty()) << row.id;
    }
    if (!made.job) continue;
    ++jobs;
    EXPECT_TRUE(violations(*made.job).empty()) << row.id;
    EXPECT_EQ(made.job->layout.world(), row.cluster.gpus.value()) << row.id;
  }
  EXPECT_GT(jobs, rows_.size() / 2);
}

TEST_F(Published, PageIsWhatTheCommandWrites) {
  const auto set = simulator::load_parameters("published");
  ASSERT_TRUE(set.ok()) << set.error().text();
  const auto outcomes = validate_rows(rows_, stacks_, with(set.value()));
  const Summary summary = summarise(outcomes);
  const std::string page = accuracy_page(summary, outcomes, fitting_of(set.value(), summary));
  const auto written = read_file(std::string(ORRERY_SOURCE_DIR) + "/docs/accuracy.md");
  ASSERT_TRUE(written.ok()) << written.error().text();
  EXPECT_TRUE(written.value() == page)
      << "orrery validate ../shared/data/published/*.json -o docs/accuracy.md";
}

}  // namespace
}  // namespace orrery::validation
