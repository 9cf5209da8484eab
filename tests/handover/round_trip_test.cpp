// Plans written and read back: every field of layout, chunks and policy comes back as it was, or is
// at its default, or was listed as not said. Nothing is dropped silently.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "handover/handover.h"
#include "planner/plans/planner.h"
#include "planner/plans/space.h"
#include "tests/handover/engine_plans.h"
#include "tests/support/plans.h"

namespace orrery::handover {
namespace {

constexpr std::uint64_t kPlans = 3000;

std::string text_of(const Json& value) {
  return value.is_string() ? value.as_string() : value.dump(-1);
}

// Fields of the layout that shape something in this plan.
std::set<std::string> shaping(const Plan& plan) {
  const Layout& l = plan.layout;
  std::set<std::string> fields = {"dp",          "cp",     "sp",          "tp",          "pp",
                                  "replicate_d", "fsdp_d", "micro_batch", "accumulation"};
  if (l.replicate_d > 1 && l.fsdp_d > 1) fields.insert("dense_inner");
  if (!plan.model.is_moe()) return fields;
  fields.insert({"ep", "etp", "replicate_e", "fsdp_e"});
  if (l.ep > 1) fields.insert("dispatcher");
  if (l.ep > 1 && l.replicate_e * l.fsdp_e > 1) fields.insert("expert_inner");
  return fields;
}

struct Back {
  std::map<std::string, std::string> pins;
  std::set<std::string> unsaid;
};

void expect_field(const Plan& plan, const Back& back, const std::string& field,
                  const std::string& value, bool plain) {
  if (back.unsaid.count(field) > 0) return;
  const auto pin = back.pins.find(field);
  if (pin == back.pins.end()) {
    EXPECT_TRUE(plain) << field << " = " << value << " was dropped";
  } else if (pin->second == "all" && field == "swap_layers") {
    EXPECT_EQ(plan.policy.swap_layers, plan.policy.recompute_layers);
  } else {
    EXPECT_EQ(pin->second, value) << field;
  }
}

void expect_same(const Plan& plan, const Back& back) {
  const Json layout = to_json(plan.layout);
  for (const std::string& field : shaping(plan)) {
    expect_field(plan, back, field, text_of(*layout.find(field)), false);
  }
  const std::pair<Json, Json> parts[] = {{to_json(plan.chunks), to_json(Chunks{})},
                                         {to_json(plan.policy), to_json(MemoryPolicy{})}};
  for (const auto& [values, defaults] : parts) {
    for (const auto& [field, value] : values.members()) {
      const bool idle = field == "swap_distance" && plan.policy.swap_layers == 0;
      expect_field(plan, back, field, text_of(value), idle || *defaults.find(field) == value);
    }
  }
}

TEST(HandOver, PlansComeBackAsFarAsAFormatCanSay) {
  const std::vector<std::string> known = planner::pinnable();
  const std::set<std::string> pinnable(known.begin(), known.end());
  std::map<std::string, int> written, refused;
  for (std::uint64_t seed = 0; seed < kPlans; ++seed) {
    const Plan plan = random_engine_plan(seed);
    for (const Format& format : formats()) {
      SCOPED_TRACE(std::string(format.name) + ", seed " + std::to_string(seed));
      const Result<HandedOver> made = write(format, recipe_of(plan), "p.json");
      if (!made.ok()) {
        EXPECT_EQ(made.error().code, ErrorCode::kInfeasible);
        for (const Problem& p : made.error().problems) {
          EXPECT_EQ(p.where.rfind("p.json:/", 0), 0U) << p.where;
          EXPECT_FALSE(p.hint.empty());
        }
        ++refused[std::string(format.name)];
        continue;
      }
      ++written[std::string(format.name)];
      const Target target{plan.cluster.devices, plan.model, plan.workload};
      const Result<Imported> read = import_layout(made.value().text, "f", target);
      ASSERT_TRUE(read.ok()) << read.error().text() << made.value().text;
      EXPECT_EQ(read.value().format, format.name);
      Back back;
      for (const Pin& pin : read.value().pins) {
        EXPECT_EQ(pinnable.count(pin.name), 1U) << pin.name;
        EXPECT_TRUE(back.pins.emplace(pin.name, pin.value).second) << pin.name << " twice";
        EXPECT_EQ(pin.where.front(), 'f');
      }
      for (const Unsaid& u : made.value().unsaid) {
        back.unsaid.insert(u.field);
        EXPECT_FALSE(u.why.empty());
        // In the file too, where the format has comments.
        if (format.name == "deepspeed") continue;
        EXPECT_NE(made.value().text.find("# not said: " + u.field + " = "), std::string::npos);
      }
      expect_same(plan, back);
      ASSERT_FALSE(HasFailure()) << made.value().text;
    }
  }
  for (const Format& format : formats()) {
    EXPECT_GT(written[std::string(format.name)], 150) << format.name;
    EXPECT_GT(refused[std::string(format.name)], 150) << format.name;
  }
}

// Pins of a file hold the search to the plan that it was written from.
TEST(HandOver, PinsFindTheLayoutAgain) {
  int found = 0;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    const Plan plan = random_mechanism_plan(seed);
    for (const Format& format : formats()) {
      const Result<HandedOver> made = write(format, recipe_of(plan), "p.json");
      const bool interleaves = plan.chunks.domino > 1 && format.name != "xtuner";
      if (!made.ok() || interleaves) continue;
      SCOPED_TRACE(std::string(format.name) + ", seed " + std::to_string(seed));
      const Target target{plan.cluster.devices, plan.model, plan.workload};
      const Result<Imported> read = format.read(made.value().text, "f", target);
      ASSERT_TRUE(read.ok()) << read.error().text();
      planner::Request request;
      request.model = plan.model;
      request.cluster = plan.cluster;
      request.workload = plan.workload;
      for (const Pin& pin : read.value().pins) request.pins.emplace_back(pin.name, pin.value);
      const Result<planner::Space> space = planner::enumerate(request);
      ASSERT_TRUE(space.ok()) << space.error().text();
      ASSERT_FALSE(space.value().layouts.empty());
      const Json layout = to_json(plan.layout);
      for (const Layout& candidate : space.value().layouts) {
        for (const std::string& field : shaping(plan)) {
          EXPECT_EQ(text_of(*to_json(candidate).find(field)), text_of(*layout.find(field)))
              << field;
        }
      }
      ++found;
    }
  }
  EXPECT_GT(found, 100);
}

TEST(HandOver, RefusalsNameTheAxis) {
  Plan plan = small_moe_plan(4, 2);
  plan.layout.pp = 2;
  const std::map<std::string, std::string> axis = {{"xtuner", "p.json:/layout/pp"},
                                                   {"deepspeed", "p.json:/layout/pp"}};
  for (const Format& format : formats()) {
    const auto expected = axis.find(std::string(format.name));
    if (expected == axis.end()) continue;
    const Result<HandedOver> made = write(format, recipe_of(plan), "p.json");
    ASSERT_FALSE(made.ok()) << format.name;
    EXPECT_EQ(made.error().problems.front().where, expected->second);
  }
}

// Rows of several documents need a word from the data loader, but in XTuner, whose packs have it.
TEST(HandOver, DocumentsAreNoted) {
  const Plan plan = small_dense_plan(4);
  ASSERT_GT(plan.workload.document_tokens.size(), 1U);
  for (const Format& format : formats()) {
    const Result<HandedOver> made = write(format, recipe_of(plan), "p.json");
    ASSERT_TRUE(made.ok()) << made.error().text();
    bool noted = false;
    for (const Unsaid& u : made.value().unsaid) noted = noted || u.field == "documents";
    EXPECT_EQ(noted, format.name != "xtuner") << format.name;
  }
}

// A name may not leave its comment: the file is a script.
TEST(HandOver, NamesStayInTheirComments) {
  Plan plan = small_dense_plan(4);
  plan.cluster.name = "x\nrm -rf y";
  for (const Format& format : formats()) {
    const Result<HandedOver> made = write(format, recipe_of(plan), "p.json");
    ASSERT_TRUE(made.ok()) << made.error().text();
    EXPECT_EQ(made.value().text.find("\nrm"), std::string::npos) << format.name;
  }
}

}  // namespace
}  // namespace orrery::handover
