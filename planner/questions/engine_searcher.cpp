// See engine_searcher.h.
#include "planner/questions/engine_searcher.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/job_json.h"
#include "planner/plans/explain.h"
#include "planner/plans/space.h"

namespace orrery::planner {
namespace {

// A plan so near to the step that is wanted may meet it by mechanisms beyond the listed space.
constexpr double kNear = 1.15;
// Beyond so many pins no other values are tried.
constexpr std::size_t kMostPins = 8;

// Chunks of 0 rows are the whole.
std::string chunks_against(const char* what, std::int64_t own, std::int64_t best) {
  const auto rows = [](std::int64_t n) { return n == 0 ? "whole" : std::to_string(n); };
  return own == best ? "" : fmt::format("{} {} against {}", what, rows(own), rows(best));
}

// What of the layouts decides a term, where it differs.
std::string cause_of(const std::string& term, const Plan& own, const Plan& best) {
  const Layout &a = own.layout, &b = best.layout;
  const Chunks &c = own.chunks, &d = best.chunks;
  const MemoryPolicy &p = own.policy, &q = best.policy;
  const auto micro_batch = against("micro-batch", a.micro_batch, b.micro_batch);
  const auto passes = against("passes a step", a.accumulation, b.accumulation);
  const auto sp = against("sp", a.sp, b.sp), ep = against("ep", a.ep, b.ep);
  if (term == "forward" || term == "backward") {
    return joined({micro_batch, sp, ep, chunks_against("loss chunk", c.loss_tokens, d.loss_tokens),
                   chunks_against("attention chunk", c.attention_query, d.attention_query),
                   against("interleaved", c.domino, d.domino)});
  }
  if (term == "recompute") {
    return joined({against("layers run again", p.recompute_layers, q.recompute_layers),
                   against("of attention", p.recompute_attention, q.recompute_attention),
                   against("of the MLP", p.recompute_ffn, q.recompute_ffn),
                   against("of the experts", p.recompute_experts, q.recompute_experts)});
  }
  if (term == "optimizer") {
    return joined({against("fsdp", a.fsdp_d, b.fsdp_d), against("expert fsdp", a.fsdp_e, b.fsdp_e),
                   p.host_optimizer == q.host_optimizer ? ""
                   : p.host_optimizer                   ? "moments on the host"
                                                        : "moments on the device"});
  }
  if (term == "exposed gathers and reductions") {
    return joined({against("fsdp", a.fsdp_d, b.fsdp_d), against("expert fsdp", a.fsdp_e, b.fsdp_e),
                   passes, against("prefetch", c.prefetch_depth, d.prefetch_depth),
                   against("layers a bucket", c.gather_layers, d.gather_layers)});
  }
  if (term == "exposed expert exchanges") {
    return joined({ep,
                   a.dispatcher == b.dispatcher ? "" : a.dispatcher + " against " + b.dispatcher,
                   against("exchange parts", c.exchange_parts, d.exchange_parts),
                   against("interleaved", c.domino, d.domino)});
  }
  if (term == "exposed sequence exchanges") return sp;
  if (term == "waiting") return joined({ep, passes});
  return joined({against("layers swapped", p.swap_layers, q.swap_layers),
                 p.host_optimizer == q.host_optimizer ? "" : "place of the moments"});
}

Answer answer_from(Outcome outcome) {
  if (outcome.best) return answer_of(std::move(*outcome.best), true);
  Answer answer;
  if (outcome.nearest) answer = answer_of(std::move(*outcome.nearest), false);
  if (outcome.shortage) {
    answer.reason = does_not_fit(outcome.shortage->needed, outcome.shortage->usable);
  } else {
    answer.reason = "does not fit";
  }
  return answer;
}

}  // namespace

EngineSearcher::EngineSearcher(Request base, DecisionRule rule)
    : base_(std::move(base)), rule_(rule) {}

Request EngineSearcher::request_of(const Setting& setting) const {
  Request request = base_;
  request.model = setting.model;
  request.cluster = setting.cluster;
  request.workload = setting.workload;
  request.pins = setting.pins;
  return request;
}

Result<Answer> EngineSearcher::decided(const Setting& setting) const {
  TRY(Outcome outcome, decide(request_of(setting), rule_));
  return answer_from(std::move(outcome));
}

Result<Answer> EngineSearcher::fastest(const Setting& setting) const {
  Request request = request_of(setting);
  request.runners_up = 0;
  request.stop = nullptr;
  request.progress = nullptr;
  TRY(Outcome outcome, plan(request));
  return answer_from(std::move(outcome));
}

Answer EngineSearcher::quick(const Setting& setting, Seconds wanted) const {
  Request request = request_of(setting);
  request.runners_up = 0;
  request.progress = nullptr;
  Answer answer;
  answer.reason = "does not fit";
  std::optional<Plan> listed = fastest_that_fits(request);
  if (!listed) {
    const Result<Space> space = enumerate(request);
    answer.legal = space.ok();
    if (!space.ok()) answer.reason = reason_of(*this, setting, space.error());
    return answer;
  }
  answer = answer_of(std::move(*listed), true);
  if (answer.step <= wanted || answer.step > wanted * kNear) return answer;
  Result<Outcome> refined = plan(request);
  if (refined.ok() && refined.value().best) {
    return answer_of(std::move(*std::move(refined).value().best), true);
  }
  return answer;
}

Result<Answer> EngineSearcher::exactly(const Setting&, const Job& job) const {
  return Error::of(ErrorCode::kUsage, words_of(job), "is a job over all axes",
                   "--for simulate, or a plan of the engine");
}

std::optional<Nearest> EngineSearcher::advice(const Setting& setting) const {
  Advice found = planner::advice(request_of(setting));
  if (!found.nearest) return std::nullopt;
  return Nearest{found.nearest->change, answer_of(std::move(found.nearest->plan), true)};
}

// The batch can be divided over so many ranks: whole sequences, or shares of one by heads.
bool EngineSearcher::suits(const Setting& setting) const {
  const std::int64_t devices = setting.cluster.devices;
  for (const std::int64_t sp : divisors(devices)) {
    if (setting.model.heads % sp == 0 && setting.workload.global_sequences % (devices / sp) == 0) {
      return true;
    }
  }
  return false;
}

double EngineSearcher::least_device_seconds_a_token(const Setting& setting) const {
  const Workload& w = setting.workload;
  const double attended =
      static_cast<double>(w.pairs_per_sequence()) / static_cast<double>(w.sequence_tokens);
  return training_flops_per_token(setting.model, attended) /
         setting.cluster.device.peak(w.compute).value();
}

double EngineSearcher::checkpoint_bytes_a_parameter(const Setting& setting) const {
  constexpr double kCopies = 3;  // the shard and AdamW's two moments
  return kCopies * static_cast<double>(size_of(setting.workload.master));
}

Side EngineSearcher::side(const Setting&, const Answer& answer) const {
  Terms terms = terms_of(plan_of(answer));
  return {answer, std::move(terms.parts), std::move(terms.predicted.memory)};
}

std::string EngineSearcher::cause(const std::string& term, const Answer& own,
                                  const Answer& best) const {
  return cause_of(term, plan_of(own), plan_of(best));
}

// The error of the search names them with their numbers.
std::vector<Problem> EngineSearcher::broken(const Setting&) const {
  return {};
}

std::vector<PinChange> EngineSearcher::changes(const Setting& setting, std::size_t pins) const {
  std::vector<PinChange> out;
  for (std::size_t i = 0; i < pins && pins <= kMostPins; ++i) add_changes(setting, i, 0, out);
  return out;
}

PinList pins_of(const Plan& plan) {
  PinList pins;
  for (const Json& json : {to_json(plan.layout), to_json(plan.chunks), to_json(plan.policy)}) {
    for (const auto& [name, value] : json.members()) {
      pins.emplace_back(name, value.is_string() ? value.as_string() : value.dump(-1));
    }
  }
  return pins;
}

}  // namespace orrery::planner
