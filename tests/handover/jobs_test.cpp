// Jobs over all axes written and read back: every axis comes back as it was, or is refused; what a
// format cannot say of recompute is listed. And the pins hold the search to that job.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "core/job_json.h"
#include "handover/handover.h"
#include "planner/jobs/planner.h"
#include "tests/handover/engine_jobs.h"
#include "tests/support/random_jobs.h"

namespace orrery::handover {
namespace {

constexpr int kJobs = 3000;  // of each format

using Words = std::map<std::string, std::string>;

const std::vector<Model>& models() {
  static const std::vector<Model> all = published_models();
  return all;
}

// The workload that a job is a step of.
Workload workload_of(const Job& job) {
  Workload w;
  w.name = "rows";
  w.sequence_tokens = job.sequence_tokens;
  w.global_sequences = job.global_sequences;
  w.document_tokens = {job.sequence_tokens};
  return w;
}

std::string joined(const std::vector<std::int64_t>& counts) {
  std::string text;
  for (const std::int64_t count : counts) text += (text.empty() ? "" : ",") + std::to_string(count);
  return text;
}

void add_context(const Job& job, Words& words) {
  const Layout& l = job.layout;
  // Ulysses has two spellings in a job; the axis cp with its exchange is that of pins.
  const bool heads = job.context == ContextExchange::kAllToAll || l.cp == 1;
  words["cp"] = std::to_string(heads ? l.cp * l.sp : l.cp);
  if (l.cp * l.sp == 1) return;
  words["exchange"] = heads ? "all_to_all" : name_of(job.context);
  if (!heads && l.sp > 1) words["sp"] = std::to_string(l.sp);
}

void add_pipeline(const Job& job, Words& words) {
  const bool overlaps = job.schedule == PipelineSchedule::kOverlapped;
  if (job.layout.pp > 1 || overlaps) words["schedule"] = name_of(job.schedule);
  if (job.layout.pp == 1) return;
  words["virtual_stages"] = std::to_string(job.virtual_stages);
  const bool even =
      job.stage_layers.empty() || job.stage_layers == even_layers(job.model.layers, job.stages());
  words["stage_layers"] = even ? "even" : joined(job.stage_layers);
}

void add_sharding(const Job& job, Words& words) {
  const Layout& l = job.layout;
  if (l.dp * l.cp * l.sp == 1) return;
  words["sharding"] = name_of(job.sharding);
  if (job.sharding == Sharding::kNone) return;
  words["fsdp_d"] = std::to_string(l.fsdp_d);
  words["replicate_d"] = std::to_string(l.replicate_d);
  if (job.sharding == Sharding::kParameters && l.pp == 1) {
    words["keeps_gathered"] = job.keeps_gathered ? "true" : "false";
  }
}

void add_recompute(const Job& job, Words& words) {
  Recompute r = job.recompute;
  if (r.full || r.ops) r.modules.assign(kNumModules, false);
  r.modules = modules_of(job.model, r.modules);
  words["recompute"] = recompute_word(r);
  if (!r.full) return;
  const std::vector<std::int64_t> layers =
      job.stage_layers.empty() ? even_layers(job.model.layers, job.stages()) : job.stage_layers;
  const std::int64_t most = *std::max_element(layers.begin(), layers.end());
  words["full_layers"] = std::to_string(r.full_layers == 0 ? most : std::min(most, r.full_layers));
}

// What shapes this job, by the names of pins.
Words shaping(const Job& job) {
  const Layout& l = job.layout;
  Words words = {{"tp", std::to_string(l.tp)},
                 {"pp", std::to_string(l.pp)},
                 {"dp", std::to_string(l.dp)},
                 {"micro_batch", std::to_string(l.micro_batch)},
                 {"precision", name_of(job.precision)}};
  if (l.tp > 1) words["sequence_parallel"] = job.sequence_parallel ? "true" : "false";
  if (job.model.is_moe()) {
    words["ep"] = std::to_string(l.ep);
    words["etp"] = std::to_string(l.etp);
    if (l.ep > 1) words["dispatcher"] = name_of(job.dispatcher);
  }
  add_context(job, words);
  add_pipeline(job, words);
  add_sharding(job, words);
  add_recompute(job, words);
  return words;
}

void expect_same(const Job& job, const HandedOver& made, const Imported& read) {
  std::set<std::string> unsaid;
  for (const Unsaid& u : made.unsaid) unsaid.insert(u.field);
  Words pins;
  for (const Pin& pin : read.pins) {
    EXPECT_TRUE(pins.emplace(pin.name, pin.value).second) << pin.name << " twice";
    EXPECT_EQ(pin.where.front(), 'f');
  }
  Words expected = shaping(job);
  // Of these alone a format may say less; and none may say what is so by default.
  const std::pair<std::string, std::string> policy[] = {{"recompute", "none"},
                                                        {"keeps_gathered", "false"}};
  for (const auto& [name, plain] : policy) {
    const auto value = expected.find(name);
    const bool silent = value != expected.end() && value->second == plain && pins.count(name) == 0;
    if (unsaid.count(name) == 0 && !silent) continue;
    expected.erase(name);
    pins.erase(name);
    if (name != "recompute") continue;
    expected.erase("full_layers");
    pins.erase("full_layers");
  }
  EXPECT_EQ(pins, expected);
}

TEST(HandOver, JobsComeBackOrAreRefused) {
  for (const Format& format : formats()) {
    int written = 0, refused = 0;
    for (std::uint64_t seed = 0; written < kJobs; ++seed) {
      SCOPED_TRACE(std::string(format.name) + ", seed " + std::to_string(seed));
      ASSERT_LT(refused, 4 * kJobs) << "too few are written: " << written;
      const bool shaped = seed % 8 != 0;
      const Job job = shaped ? random_engine_job(models(), std::string(format.name), seed)
                             : random_job(models(), seed);
      const Result<HandedOver> made = write(format, recipe_of(job), "j.json");
      if (!made.ok()) {
        ++refused;
        EXPECT_EQ(made.error().code, ErrorCode::kInfeasible);
        for (const Problem& p : made.error().problems) {
          EXPECT_EQ(p.where.rfind("j.json:/", 0), 0U) << p.where;
          EXPECT_FALSE(p.hint.empty());
        }
        ASSERT_FALSE(HasFailure()) << describe(job);
        continue;
      }
      ++written;
      const Workload workload = workload_of(job);
      const Target target{job.cluster.devices, job.model, workload, true};
      const Result<Imported> read = import_layout(made.value().text, "f", target);
      ASSERT_TRUE(read.ok()) << read.error().text() << made.value().text;
      EXPECT_EQ(read.value().format, format.name);
      expect_same(job, made.value(), read.value());
      ASSERT_FALSE(HasFailure()) << describe(job) << "\n" << made.value().text;
    }
    EXPECT_GT(refused, 150) << format.name;
  }
}

// More layers than a stage has are all of them.
TEST(HandOver, LayersBeyondAStageAreAll) {
  Job job = random_engine_job(models(), "megatron", 1);
  job.recompute = {};
  job.recompute.full = true;
  job.recompute.full_layers = job.model.layers + 5;
  job.schedule = PipelineSchedule::kOneForwardOneBackward;
  job.virtual_stages = 1;
  job.stage_layers.clear();
  ASSERT_TRUE(violations(job).empty());
  const Result<HandedOver> made = write(formats().front(), recipe_of(job), "j.json");
  ASSERT_TRUE(made.ok()) << made.error().text();
  EXPECT_NE(made.value().text.find("--recompute-method uniform\n"), std::string::npos);
}

// Whatever is refused of a job that an engine nearly has, the hint is a pin of the search.
TEST(HandOver, HintsOfJobsArePins) {
  const std::vector<std::string> known = planner::jobs::pinnable();
  for (std::uint64_t seed = 0; seed < 500; ++seed) {
    const Job job = random_job(models(), seed);
    for (const Format& format : formats()) {
      const Result<HandedOver> made = write(format, recipe_of(job), "j.json");
      if (made.ok()) continue;
      for (const Problem& p : made.error().problems) {
        const std::size_t at = p.hint.find("--pin ");
        if (at == std::string::npos) continue;
        const std::string pin = p.hint.substr(at + 6, p.hint.find_first_of(" ,", at + 6) - at - 6);
        const std::size_t equals = pin.find('=');
        ASSERT_NE(equals, std::string::npos) << p.hint;
        if (pin.substr(0, equals) == "sp") continue;
        EXPECT_TRUE(
            planner::jobs::Pins::parse({{pin.substr(0, equals), pin.substr(equals + 1)}}).ok())
            << p.hint;
      }
    }
  }
}

// What a job of the search is, whatever else the pins leave open.
void expect_found_again(const Job& job, const Format& format, int& found) {
  const Result<HandedOver> made = write(format, recipe_of(job), "j.json");
  if (!made.ok()) return;
  planner::jobs::Request request;
  request.model = job.model;
  request.cluster = job.cluster;
  request.cluster.device.memory = Bytes(std::int64_t{1} << 50);
  request.cluster.device.peak_fp8 = request.cluster.device.peak_bf16;
  request.workload = workload_of(job);
  request.stack = job.stack;
  request.explains = false;
  request.threads = 1;
  const Target target{job.cluster.devices, job.model, request.workload, true};
  const Result<Imported> read = format.read(made.value().text, "f", target);
  ASSERT_TRUE(read.ok()) << read.error().text();
  for (const Pin& pin : read.value().pins) request.pins.emplace_back(pin.name, pin.value);
  // Words that the search does not have yet.
  if (!planner::jobs::Pins::parse(request.pins).ok()) return;
  const Result<planner::jobs::JobPlan> plan = planner::jobs::plan(request);
  ASSERT_TRUE(plan.ok()) << plan.error().text();
  ASSERT_TRUE(plan.value().best);
  Words expected = shaping(job), got = shaping(plan.value().best->job);
  std::set<std::string> pinned;
  for (const auto& pin : request.pins) pinned.insert(pin.first);
  for (const Unsaid& u : made.value().unsaid) pinned.erase(u.field);
  if (pinned.count("recompute") == 0) pinned.erase("full_layers");
  for (const auto& [name, value] : expected) {
    if (pinned.count(name) == 0) continue;
    EXPECT_EQ(got[name], value) << name;
  }
  ++found;
}

TEST(HandOver, PinsFindTheJobAgain) {
  int found = 0;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    for (const Format& format : formats()) {
      const Job job = random_engine_job(models(), std::string(format.name), seed);
      SCOPED_TRACE(std::string(format.name) + ", seed " + std::to_string(seed) + ": " +
                   describe(job));
      expect_found_again(job, format, found);
      ASSERT_FALSE(HasFatalFailure());
    }
  }
  EXPECT_GT(found, 60);
}

}  // namespace
}  // namespace orrery::handover
