// See plan_explain.h.
#include "cli/plan_explain.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "cli/plan_report.h"
#include "cli/table.h"
#include "core/quantity.h"
#include "planner/plans/terms.h"

namespace orrery::cli {
namespace {

using planner::Terms;

std::string memory_words(const Plan& plan) {
  std::vector<MemoryRow> rows = plan.predicted.memory;
  std::stable_sort(rows.begin(), rows.end(), [](const MemoryRow& a, const MemoryRow& b) {
    return a.bytes.value() > b.bytes.value();
  });
  const Bytes usable = usable_memory(plan.cluster);
  std::string text = fmt::format("memory: {} of {} at the peak", format_bytes(plan.predicted.peak),
                                 format_bytes(usable));
  for (std::size_t i = 0; i < std::min<std::size_t>(2, rows.size()); ++i) {
    text += fmt::format("{} {} {}", i == 0 ? ", most of it" : " and", rows[i].cls,
                        format_bytes(rows[i].bytes));
  }
  return text;
}

std::string time_words(const Terms& terms) {
  const double step = terms.step.value();
  const planner::Term* most = nullptr;
  // Compute's phases stand before the lanes and the waiting.
  for (const planner::Term& t : terms.parts) {
    const bool computes = t.name == "forward" || t.name == "backward" || t.name == "optimizer";
    if (!computes && (most == nullptr || most->time < t.time)) most = &t;
  }
  std::string text = fmt::format(
      "time: {} of the step computes, {} is exposed communication, {} "
      "waiting",
      percent(terms.compute().value() / step), percent(terms.exposed().value() / step),
      percent(terms.waiting().value() / step));
  if (most != nullptr && most->time.value() > 0) {
    text += fmt::format("; beyond forward and backward the most is {} ({})", most->name,
                        format_seconds(most->time));
  }
  return text;
}

struct Circumstance {
  const char* words;
  std::function<void(Plan&)> change;
};

std::vector<Circumstance> circumstances(const Plan& plan) {
  std::vector<Circumstance> out;
  const auto links = [&](const char* words, double times) {
    out.push_back({words, [times](Plan& p) {
                     LinkTier& t = p.cluster.tiers.back();
                     t.bandwidth = BytesPerSecond(t.bandwidth.value() * times);
                   }});
  };
  if (plan.cluster.devices > 1) {
    links("the outermost links twice as fast", 2);
    links("the outermost links half as fast", 0.5);
  }
  if (plan.model.is_moe() && plan.workload.expert_load_cv > 0) {
    out.push_back({"experts of equal load", [](Plan& p) { p.workload.expert_load_cv = 0; }});
  }
  return out;
}

// Below it, of a step, a rival is not faster: noise.
constexpr double kTie = 0.02;

// The plan and the runners-up that fit, as plans; a replay of each takes milliseconds.
std::vector<Plan> contenders(const Plan& plan) {
  constexpr std::size_t kMost = 24;
  std::vector<const RunnerUp*> order;
  for (const RunnerUp& r : plan.runners_up) {
    if (r.predicted.peak <= usable_memory(plan.cluster)) order.push_back(&r);
  }
  std::stable_sort(order.begin(), order.end(), [](const RunnerUp* a, const RunnerUp* b) {
    return a->predicted.step < b->predicted.step;
  });
  std::vector<Plan> out = {plan};
  for (std::size_t i = 0; i < order.size() && out.size() < kMost; ++i) {
    Plan p = plan;
    p.layout = order[i]->layout;
    p.chunks = order[i]->chunks;
    p.policy = order[i]->policy;
    out.push_back(std::move(p));
  }
  return out;
}

void print_lines(const std::string& text, Output& out) {
  for (const std::string& line : wrap(text, kTerminalColumns - 2)) out.line("  " + line);
}

}  // namespace

Json explain_plan(const Plan& plan, Output& out) {
  const Terms now = planner::terms_of(plan);
  const std::string memory = memory_words(plan), time = time_words(now);
  out.heading("what binds it");
  print_lines(memory, out);
  print_lines(time, out);
  Json terms = Json::object(), rows = Json::array();
  for (const planner::Term& t : now.parts) terms.set(t.name, t.time.value());
  const std::vector<Plan> plans = contenders(plan);
  TextTable table({{"with"}, {"its step", Align::kRight}, {"", Align::kRight}, {"fastest then"}});
  for (const Circumstance& c : circumstances(plan)) {
    double own = 0, best = 0;
    std::size_t fastest = 0;
    for (std::size_t i = 0; i < plans.size(); ++i) {
      Plan changed = plans[i];
      c.change(changed);
      const double step = planner::terms_of(changed).step.value();
      if (i == 0) own = best = step;
      if (step < best) {
        best = step;
        fastest = i;
      }
    }
    if (own <= (1 + kTie) * best) fastest = 0;
    const Plan& p = plans[fastest];
    const std::string layout = layout_text(p.model, p.layout, p.chunks, p.policy);
    table.row({c.words, format_seconds(Seconds(own)), signed_percent(own / now.step.value() - 1),
               fastest == 0 ? "this plan" : format_seconds(Seconds(best)) + ": " + layout});
    rows.push(Json::object()
                  .set("with", c.words)
                  .set("own_step_s", own)
                  .set("fastest_step_s", best)
                  .set("fastest", layout));
  }
  if (!table.empty()) {
    out.heading("what would change the answer");
    out.line(table.text());
    out.line(fmt::format("  of this plan and {} that fit, replayed and not searched again; what is",
                         plural(plans.size() - 1, "rival")));
    out.line(fmt::format("  not {} faster counts as the same", percent(kTie)));
  }
  Json json = to_json(plan);
  return json.set("binding", Json::object().set("memory", memory).set("time", time))
      .set("terms", std::move(terms))
      .set("what_if", std::move(rows));
}

}  // namespace orrery::cli
