// See figures.h.
#include "ui-export/html/figures.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

namespace orrery::html {
namespace {

Json number(double value) {
  return std::isfinite(value) ? Json(value) : Json();
}

Json rounded_ns(double seconds) {
  return std::isfinite(seconds) ? Json(static_cast<std::int64_t>(std::llround(seconds * 1e9)))
                                : Json();
}

double median_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

Json memory_rows(const std::vector<MemoryRow>& rows) {
  Json json = Json::array();
  for (const MemoryRow& row : rows) {
    json.push(Json::object().set("class", clean_text(row.cls)).set("bytes", row.bytes.value()));
  }
  return json;
}

Json runners_json(const Plan& plan) {
  Json rows = Json::array();
  for (const RunnerUp& runner : plan.runners_up) {
    rows.push(Json::object()
                  .set("layout", plan_words(plan, runner.layout, runner.chunks, runner.policy))
                  .set("step_s", runner.predicted.step.value())
                  .set("peak_bytes", runner.predicted.peak.value())
                  .set("lost_by", clean_text(runner.lost_by)));
  }
  return rows;
}

Json search_json(const Plan& plan) {
  Json rejected = Json::array();
  for (const Rejection& row : plan.rejected) {
    rejected.push(Json::object().set("rule", clean_text(row.rule)).set("count", row.count));
  }
  Json fits = Json::array();
  for (const FitReason& reason : plan.fits_because) {
    fits.push(Json::object()
                  .set("mechanism", clean_text(reason.mechanism))
                  .set("peak_bytes", reason.without_peak.value())
                  .set("fits_without", reason.fits_without));
  }
  const Proof& proof = plan.proof;
  return Json::object()
      .set("legal", proof.legal)
      .set("bounded", proof.bounded)
      .set("replayed", proof.replayed)
      .set("refined", proof.refined)
      .set("best_s", number(proof.best_s))
      .set("bound_remaining_s", number(proof.bound_remaining_s))
      .set("rejected", std::move(rejected))
      .set("fits", std::move(fits));
}

// "layer.7/moe/experts" -> "layer.*/moe/experts".
std::string without_layer(const std::string& path) {
  for (const std::string start : {"layer.", "layers."}) {
    if (path.rfind(start, 0) != 0) continue;
    const std::size_t end = path.find_first_not_of("0123456789", start.size());
    const bool whole = end == std::string::npos || path[end] == '/';
    if (end == start.size() || !whole) continue;
    return start + "*" + (end == std::string::npos ? "" : path.substr(end));
  }
  return path;
}

// The same op of all layers as one row, in the order in which they first come.
Json layers_json(const std::vector<CompareReport::OpRow>& rows, bool predicted, bool measured,
                 OpTable& ops) {
  struct Sum {
    const CompareReport::OpRow* first = nullptr;
    std::int64_t count = 0;
    Compared seconds;
  };
  std::map<std::tuple<std::string, std::string, std::string>, std::size_t> places;
  std::vector<Sum> sums;
  for (const CompareReport::OpRow& row : rows) {
    const auto [at, fresh] =
        places.try_emplace({without_layer(row.path), row.phase, row.kind}, sums.size());
    if (fresh) sums.push_back({&row, 0, {}});
    Sum& sum = sums[at->second];
    ++sum.count;
    sum.seconds.predicted += row.seconds.predicted;
    sum.seconds.measured += row.seconds.measured;
  }
  constexpr std::size_t kMost = 2000;  // more kinds of op than any model has
  Json list = Json::array();
  for (std::size_t i = 0; i < std::min(kMost, sums.size()); ++i) {
    const CompareReport::OpRow& row = *sums[i].first;
    list.push(
        Json::object()
            .set("path", clean_text(without_layer(row.path)))
            .set("phase", clean_text(row.phase))
            .set("kind", clean_text(row.kind))
            .set("op", ops.add(row.path, row.phase, row.kind, row.lane, row.micro_batch, row.chunk))
            .set("count", sums[i].count)
            .set("predicted", predicted ? rounded_ns(sums[i].seconds.predicted) : Json())
            .set("measured", measured ? rounded_ns(sums[i].seconds.measured) : Json()));
  }
  return list;
}

}  // namespace

std::string plan_words(const Plan& plan, Layout layout, const Chunks& chunks,
                       const MemoryPolicy& policy) {
  if (!plan.model.is_moe()) {
    layout.fsdp_e = layout.fsdp_d;
    layout.replicate_e = layout.replicate_d;
  }
  return clean_text(describe(layout, chunks, policy));
}

std::optional<Plan> plan_of(const RunInfo& run) {
  if (run.plan_json.empty()) return std::nullopt;
  Result<Plan> plan = parse_plan(run.plan_json, "run.plan_json");
  if (!plan.ok()) return std::nullopt;
  return std::move(plan).value();
}

Json headline_json(const Side& side, const std::optional<Plan>& plan) {
  Json json = Json::object();
  std::vector<double> seconds;
  std::int64_t tokens = 0;
  for (const std::int32_t step : side.counted) {
    seconds.push_back(side.steps.at(step).seconds);
    tokens = std::max(tokens, side.steps.at(step).first.tokens);
  }
  const double step_s = seconds.empty() ? 0 : median_of(seconds);
  const bool timed = step_s > 0;
  json.set("step_s", timed ? Json(step_s) : Json());
  const double rate = timed ? static_cast<double>(tokens) / step_s : 0;
  json.set("tokens_per_s", rate > 0 ? Json(rate) : Json());
  double mfu = 0;
  if (plan && rate > 0) {
    const double attended = static_cast<double>(plan->workload.pairs_per_sequence()) /
                            static_cast<double>(plan->workload.sequence_tokens);
    mfu = rate * training_flops_per_token(plan->model, attended) /
          (static_cast<double>(plan->cluster.devices) *
           plan->cluster.device.peak(plan->workload.compute).value());
  }
  json.set("mfu", mfu > 0 && std::isfinite(mfu) ? Json(mfu) : Json());
  std::int64_t peak = 0;
  for (const PeakEvent& row : side.peaks) {
    if (row.cls == -1) peak = std::max(peak, row.bytes);
  }
  json.set("peak_bytes", peak > 0 ? Json(peak) : Json());
  return json;
}

Json steps_json(const Side& side, std::size_t most, std::vector<std::string>& omitted) {
  const std::size_t every = (side.steps.size() + most - 1) / std::max<std::size_t>(1, most);
  if (every > 1) {
    omitted.push_back("The curves of steps show every " + std::to_string(every) + "th of " +
                      std::to_string(side.steps.size()) + " steps.");
  }
  std::size_t at = 0;
  Json step = Json::array(), seconds = Json::array(), loss = Json::array(),
       grad_norm = Json::array(), balance = Json::array(), z_loss = Json::array(),
       lr = Json::array(), tokens = Json::array(), counted = Json::array();
  for (const auto& [index, facts] : side.steps) {
    const bool taken = every <= 1 || at % every == 0 || index == side.default_step;
    ++at;
    if (!taken) continue;
    step.push(static_cast<int>(index));
    seconds.push(facts.seconds);
    loss.push(number(facts.first.loss));
    grad_norm.push(number(facts.first.grad_norm));
    balance.push(number(facts.first.balance_loss));
    z_loss.push(number(facts.first.z_loss));
    lr.push(number(facts.first.lr));
    tokens.push(facts.first.tokens);
    counted.push(side.counted.contains(index) ? 1 : 0);
  }
  return Json::object()
      .set("step", std::move(step))
      .set("seconds", std::move(seconds))
      .set("loss", std::move(loss))
      .set("grad_norm", std::move(grad_norm))
      .set("balance_loss", std::move(balance))
      .set("z_loss", std::move(z_loss))
      .set("lr", std::move(lr))
      .set("tokens", std::move(tokens))
      .set("counted", std::move(counted));
}

Json compare_json(const CompareReport& report, bool predicted, bool measured, std::size_t most,
                  OpTable& ops, std::vector<std::string>& omitted) {
  // A class that a side has no op of takes no time there: it is absent, not zero.
  const auto present = [](bool side, double seconds) {
    return side && seconds > 0 ? rounded_ns(seconds) : Json();
  };
  Json classes = Json::array();
  for (const auto& row : report.classes) {
    classes.push(Json::object()
                     .set("kind", clean_text(row.kind))
                     .set("phase", clean_text(row.phase))
                     .set("lane", clean_text(row.lane))
                     .set("predicted", present(predicted, row.seconds.predicted))
                     .set("measured", present(measured, row.seconds.measured)));
  }
  // One side alone has no differences: its longest ops come first.
  std::vector<CompareReport::OpRow> rows = report.ops;
  if (!predicted || !measured) {
    std::stable_sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) {
      return a.seconds.measured > b.seconds.measured;
    });
  }
  Json op = Json::array(), before = Json::array(), after = Json::array();
  for (std::size_t i = 0; i < std::min(most, rows.size()); ++i) {
    const CompareReport::OpRow& row = rows[i];
    op.push(ops.add(row.path, row.phase, row.kind, row.lane, row.micro_batch, row.chunk));
    before.push(predicted ? rounded_ns(row.seconds.predicted) : Json());
    after.push(measured ? rounded_ns(row.seconds.measured) : Json());
  }
  if (rows.size() > most) {
    const char* kept = predicted && measured ? "that differ most" : "that take longest";
    omitted.push_back("The table of ops holds the " + std::to_string(most) + " of " +
                      std::to_string(rows.size()) + " " + kept + ".");
  }
  return Json::object()
      .set("classes", std::move(classes))
      .set("ops", Json::object()
                      .set("op", std::move(op))
                      .set("predicted", std::move(before))
                      .set("measured", std::move(after)))
      .set("layers", layers_json(rows, predicted, measured, ops))
      .set("joined", report.joined_ops)
      .set("only_predicted", report.only_a)
      .set("only_measured", report.only_b)
      .set("same_program", report.same_program);
}

Json plan_json(const std::optional<Plan>& plan) {
  if (!plan) return {};
  const Prediction& predicted = plan->predicted;
  const Bytes usable = plan->cluster.device.memory - plan->cluster.device.reserved;
  Json json = Json::object()
                  .set("model", clean_text(plan->model.name))
                  .set("cluster", clean_text(plan->cluster.name))
                  .set("workload", clean_text(plan->workload.name))
                  .set("devices", plan->cluster.devices)
                  .set("device", clean_text(plan->cluster.device.name))
                  .set("tokens", plan->workload.global_tokens())
                  .set("parameters", parameter_count(plan->model))
                  .set("active_parameters", active_parameter_count(plan->model))
                  .set("layout", plan_words(*plan, plan->layout, plan->chunks, plan->policy))
                  .set("usable_bytes", usable.value())
                  .set("sha256", clean_text(plan->sha256));
  if (predicted.step.value() > 0) {
    json.set("predicted", Json::object()
                              .set("step_s", predicted.step.value())
                              .set("p10_s", predicted.p10.value())
                              .set("p90_s", predicted.p90.value())
                              .set("peak_bytes", predicted.peak.value())
                              .set("tokens_per_s", predicted.tokens_per_s)
                              .set("mfu", predicted.mfu)
                              .set("memory", memory_rows(predicted.memory)));
  } else {
    json.set("predicted", Json());
  }
  return json.set("runners_up", runners_json(*plan)).set("search", search_json(*plan));
}

}  // namespace orrery::html
