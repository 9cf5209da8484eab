// The verifier of outlines: silent on random legal jobs over all axes and published models, and it
// names the rule when one task of an outline is lost or changed.
#include "core/outline/verify.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>

#include "tests/outline/jobs.h"
#include "tests/support/plans.h"
#include "tests/support/random_jobs.h"

namespace orrery::outline {
namespace {

std::string words(const std::vector<Violation>& found) {
  std::string text;
  for (std::size_t i = 0; i < std::min<std::size_t>(found.size(), 6); ++i) {
    text += found[i].rule + ": " + found[i].reason + "\n";
  }
  return text;
}

TEST(OutlineVerifier, IsSilentOnRandomLegalJobs) {
  const std::vector<Model> models = published_models();
  ASSERT_GT(models.size(), 20U);
  int failed = 0;
  for (std::uint64_t seed = 0; seed < 4000 && failed < 5; ++seed) {
    const Job job = random_job(models, seed);
    const std::vector<Violation> found = verify(job, pieces_of(job));
    if (found.empty()) continue;
    ++failed;
    ADD_FAILURE() << "seed " << seed << ", " << describe(job) << "\n" << words(found);
  }
}

bool names(const std::vector<Violation>& found, const std::string& rule) {
  return std::any_of(found.begin(), found.end(),
                     [&](const Violation& v) { return v.rule == rule; });
}

// Experts behind every axis.
Job split_job() {
  Job job = moe_job(32, 4);
  job.model.shared_ffn = 512;
  job.model.moe_layer[0] = false;
  Layout& l = job.layout;
  l.tp = 2;
  l.cp = 2;
  l.sp = 2;
  l.dp = 4;
  l.fsdp_d = 16;
  l.ep = 4;
  l.etp = 2;
  job.sequence_parallel = true;
  return job;
}

// Every task of a layer's forward and backward, taken away once: something is missed.
TEST(OutlineVerifier, MissesEveryLostTaskThatComputesOrMoves) {
  for (const bool parallel : {true, false}) {
    Job job = split_job();
    job.sequence_parallel = parallel;
    const Pieces sound = pieces_of(job);
    ASSERT_TRUE(verify(job, sound).empty()) << words(verify(job, sound));
    for (const std::size_t layer : {0, 1}) {
      for (const auto list : {&Outline::forward, &Outline::backward}) {
        const std::size_t tasks = (sound.layers[layer].outline.*list).size();
        for (std::size_t i = 0; i < tasks; ++i) {
          Pieces broken = sound;
          std::vector<Task>& own = broken.layers[layer].outline.*list;
          const Task lost = own[i];
          if (lost.kind == TaskKind::kPass) continue;
          own.erase(own.begin() + static_cast<std::ptrdiff_t>(i));
          const std::vector<Violation> found = verify(job, broken);
          const bool moves = lost.kind == TaskKind::kCollective;
          const char* rule = !moves                      ? "flops_conserved"
                             : list == &Outline::forward ? "axis_of_group"
                                                         : "collective_pairs";
          EXPECT_TRUE(names(found, rule)) << lost.name << " lost, found:\n" << words(found);
        }
      }
    }
  }
}

struct Fault {
  const char* rule;
  const char* task;  // of layer 1's forward, or nullptr
  std::function<void(Outline&, std::size_t)> change;
};

// One task of forward, changed.
std::vector<Fault> task_faults() {
  const auto times = [](double Task::*member, double factor) {
    return [=](Outline& o, std::size_t i) { o.forward[i].*member *= factor; };
  };
  return {
      {"flops_conserved", "qkv", times(&Task::flops, 2)},
      {"flops_conserved", "core", times(&Task::flops, 0.5)},
      {"flops_conserved", "experts_up", times(&Task::flops, 0)},
      {"collective_bytes", "dispatch", times(&Task::bytes, 0.5)},
      {"collective_bytes", "keys", times(&Task::bytes, 0.5)},
      {"reads_what_is_kept", "core", times(&Task::saves, 2)},
      {"axis_of_group", "keys",
       [](Outline& o, std::size_t i) { o.forward[i].axis = Axis::kStage; }},
      // Before the router has chosen.
      {"axis_of_group", "dispatch",
       [](Outline& o, std::size_t i) { std::swap(o.forward[i], o.forward[0]); }},
      // Serves no split.
      {"axis_of_group", "keys",
       [](Outline& o, std::size_t i) { o.forward.push_back(Task(o.forward[i])); }},
  };
}

// What an outline holds besides.
std::vector<Fault> outline_faults() {
  return {
      {"recompute_exact", nullptr, [](Outline& o, std::size_t) { o.again.pop_back(); }},
      {"recompute_exact", nullptr,
       [](Outline& o, std::size_t) { o.again.push_back(o.forward.front()); }},
      {"recompute_exact", nullptr, [](Outline& o, std::size_t) { o.again.front().bytes += 1; }},
      {"reads_what_is_kept", nullptr, [](Outline& o, std::size_t) { o.saves *= 1.5; }},
      {"reads_what_is_kept", nullptr, [](Outline& o, std::size_t) { o.worst = 0; }},
      {"reads_what_is_kept", nullptr,
       [](Outline& o, std::size_t) { o.backward.front().saves = 2; }},
      // Nobody keeps the normed rows.
      {"reads_what_is_kept", nullptr,
       [](Outline& o, std::size_t) {
         for (Task& t : o.forward) {
           if (t.k != 1024) continue;
           o.saves -= t.module == Module::kSharedExperts ? 0 : t.saves;
           t.saves = 0;
         }
       }},
      {"collective_pairs", nullptr,
       [](Outline& o, std::size_t) {
         for (Task& t : o.backward) {
           if (t.kind == TaskKind::kCollective) t.axis = Axis::kData;
         }
       }},
  };
}

TEST(OutlineVerifier, NamesTheRuleOfEveryChange) {
  Job job = split_job();
  job.recompute.modules[static_cast<std::size_t>(Module::kExpertActivation)] = true;
  job.recompute.modules[static_cast<std::size_t>(Module::kSharedExperts)] = true;
  const Pieces sound = pieces_of(job);
  ASSERT_TRUE(verify(job, sound).empty()) << words(verify(job, sound));
  std::vector<Fault> faults = task_faults();
  for (Fault& f : outline_faults()) faults.push_back(std::move(f));
  for (const Fault& f : faults) {
    Pieces broken = sound;
    Outline& outline = broken.layers[1].outline;
    std::size_t at = 0;
    while (f.task != nullptr && std::string(outline.forward.at(at).name) != f.task) ++at;
    f.change(outline, at);
    const std::vector<Violation> found = verify(job, broken);
    EXPECT_TRUE(names(found, f.rule)) << f.rule << " not named; found:\n" << words(found);
  }
}

TEST(OutlineVerifier, CountsParametersOfAllRanks) {
  Job job = split_job();
  job.model.mtp_layers = 2;
  const Pieces sound = pieces_of(job);
  ASSERT_TRUE(verify(job, sound).empty()) << words(verify(job, sound));
  const std::function<void(Pieces&)> changes[] = {
      [](Pieces& p) { p.layers[2].parameters.dense += 8; },
      [](Pieces& p) { p.layers[1].parameters.expert *= 2; },
      [](Pieces& p) { p.layers[1].parameters.replicated = 0; },
      [](Pieces& p) { p.head.parameters.dense = 0; }, [](Pieces& p) { p.layers.pop_back(); }};
  for (const auto& change : changes) {
    Pieces broken = sound;
    change(broken);
    EXPECT_TRUE(names(verify(job, broken), "parameters_conserved"));
  }
}

}  // namespace
}  // namespace orrery::outline
