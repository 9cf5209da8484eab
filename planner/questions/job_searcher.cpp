// See job_searcher.h.
#include "planner/questions/job_searcher.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <utility>

#include "core/job_json.h"
#include "core/quantity.h"
#include "planner/jobs/choices.h"
#include "simulator/stages/speed.h"

namespace orrery::planner {
namespace {

std::string words_against(const char* what, const std::string& own, const std::string& best) {
  return own == best ? "" : fmt::format("{} {} against {}", what, own, best);
}

const char* yes_no(bool value) {
  return value ? "true" : "false";
}

// What of two jobs decides how long their stages compute.
std::string compute_cause(const Job& a, const Job& b) {
  return joined({against("micro-batch", a.layout.micro_batch, b.layout.micro_batch),
                 against("tp", a.layout.tp, b.layout.tp), against("cp", a.layout.cp, b.layout.cp),
                 against("pp", a.layout.pp, b.layout.pp),
                 words_against("recompute", words_of(a.recompute), words_of(b.recompute)),
                 words_against("precision", name_of(a.precision), name_of(b.precision))});
}

std::string data_cause(const Job& a, const Job& b) {
  return joined({words_against("sharding", name_of(a.sharding), name_of(b.sharding)),
                 against("split over", a.layout.fsdp_d, b.layout.fsdp_d),
                 against("dp", a.layout.dp, b.layout.dp),
                 words_against("kept gathered", yes_no(a.keeps_gathered), yes_no(b.keeps_gathered)),
                 against("passes a step", a.micro_batches(), b.micro_batches())});
}

std::string cause_of(const std::string& term, const Job& a, const Job& b) {
  const Layout &l = a.layout, &m = b.layout;
  if (term == "compute" || term == "host") return compute_cause(a, b);
  if (term == "data" || term == "optimizer") return data_cause(a, b);
  if (term == "tensor") {
    return joined(
        {against("tp", l.tp, m.tp), words_against("sequence parallel", yes_no(a.sequence_parallel),
                                                  yes_no(b.sequence_parallel))});
  }
  if (term == "context") {
    return joined({against("cp", l.cp, m.cp),
                   words_against("exchange", name_of(a.context), name_of(b.context))});
  }
  if (term == "experts") {
    return joined({against("ep", l.ep, m.ep), against("etp", l.etp, m.etp),
                   words_against("dispatcher", name_of(a.dispatcher), name_of(b.dispatcher))});
  }
  if (term == "bubble") {
    return joined({against("pp", l.pp, m.pp),
                   against("virtual stages", a.virtual_stages, b.virtual_stages),
                   words_against("schedule", name_of(a.schedule), name_of(b.schedule)),
                   against("micro-batches", a.micro_batches(), b.micro_batches())});
  }
  return "";
}

// By bytes, or by the odds where it would do without them.
std::string reason_of(const Answer& answer) {
  if (std::holds_alternative<std::monostate>(answer.best)) return "does not fit";
  const std::string bytes = format_bytes(answer.peak) + " of " + format_bytes(answer.usable);
  const simulator::JobPrediction& p = job_of(answer).predicted;
  if (!p.fits) return "does not fit: needs " + bytes;
  return fmt::format("does not fit surely enough: needs {}, a probability of {:.0f} %", bytes,
                     100 * p.probability_fits);
}

constexpr double kFar = 100;

bool groups_devices(const std::string& axis) {
  const std::vector<std::string> axes = {"tp", "cp", "pp", "dp", "ep", "etp"};
  return std::find(axes.begin(), axes.end(), axis) != axes.end();
}

// The job with so many ranks of an axis under the pins: what else they leave open is 1, and data
// parallel what is left.
Job pinned_job(const Job& base, const jobs::Pins& pins, std::int64_t tp, std::int64_t cp,
               std::int64_t pp) {
  Job job = base;
  Layout& l = job.layout;
  l = Layout{};
  l.tp = tp;
  l.cp = cp;
  l.pp = pp;
  l.ep = pins.number("ep").value_or(1);
  l.etp = pins.number("etp").value_or(1);
  l.micro_batch = pins.number("micro_batch").value_or(1);
  l.dp =
      pins.number("dp").value_or(std::max<std::int64_t>(1, base.cluster.devices / (tp * cp * pp)));
  const std::int64_t data = l.dp * l.cp;
  l.fsdp_d = pins.number("fsdp_d").value_or(data / pins.number("replicate_d").value_or(1));
  l.replicate_d = pins.number("replicate_d").value_or(data / std::max<std::int64_t>(1, l.fsdp_d));
  job.virtual_stages = pins.number("virtual_stages").value_or(1);
  if (job.virtual_stages > 1) job.schedule = PipelineSchedule::kInterleaved;
  return job;
}

// What is broken by the job under the pins that breaks fewest rules, of those the plainest.
std::vector<Violation> fewest_broken(const Job& base, const jobs::Pins& pins) {
  const auto values = [&](const char* axis) {
    const std::optional<std::int64_t> pinned = pins.number(axis);
    return pinned ? std::vector<std::int64_t>{*pinned} : jobs::divisors(base.cluster.devices);
  };
  std::optional<std::vector<Violation>> fewest;
  for (const std::int64_t pp : values("pp")) {
    for (const std::int64_t cp : values("cp")) {
      for (const std::int64_t tp : values("tp")) {
        std::vector<Violation> found = violations(pinned_job(base, pins, tp, cp, pp));
        if (!fewest || found.size() < fewest->size()) fewest = std::move(found);
      }
    }
  }
  return *fewest;
}

}  // namespace

JobSearcher::JobSearcher(jobs::Request base) : base_(std::move(base)) {}

jobs::Request JobSearcher::request_of(const Setting& setting) const {
  jobs::Request request = base_;
  request.model = setting.model;
  request.cluster = setting.cluster;
  request.workload = setting.workload;
  request.stack = setting.stack;
  request.pins = setting.pins;
  request.explains = false;
  return request;
}

Answer JobSearcher::answer_from(jobs::JobPlan plan) const {
  if (plan.best) return answer_of(std::move(*plan.best), true);
  Answer answer;
  if (plan.nearest) answer = answer_of(std::move(*plan.nearest), false);
  answer.reason = reason_of(answer);
  return answer;
}

Result<Answer> JobSearcher::decided(const Setting& setting) const {
  TRY(jobs::JobPlan plan, jobs::plan(request_of(setting)));
  return answer_from(std::move(plan));
}

Result<Answer> JobSearcher::fastest(const Setting& setting) const {
  jobs::Request request = request_of(setting);
  request.simplest = false;
  request.risk = Risk::kExpected;
  TRY(jobs::JobPlan plan, jobs::plan(request));
  return answer_from(std::move(plan));
}

Answer JobSearcher::quick(const Setting& setting, Seconds) const {
  Result<Answer> found = fastest(setting);
  if (found.ok()) return std::move(found).value();
  Answer answer;
  answer.legal = false;
  answer.reason = planner::reason_of(*this, setting, found.error());
  return answer;
}

Result<Answer> JobSearcher::exactly(const Setting& setting, const Job& given) const {
  const jobs::Request request = request_of(setting);
  Job job = given;
  const Job base = jobs::base_job(request);
  job.model = setting.model;
  job.cluster = setting.cluster;
  job.stack = setting.stack;
  job.sequence_tokens = base.sequence_tokens;
  job.global_sequences = base.global_sequences;
  job.documents = base.documents;
  job.expert_load_cv = base.expert_load_cv;
  std::vector<Problem> broken;
  for (const Violation& v : violations(job)) broken.push_back({v.rule, v.reason, ""});
  if (simulator::peak_of(job).value() <= 0) {
    broken.push_back({"precision",
                      job.cluster.device.name + " has no products in " + name_of(job.precision),
                      ""});
  }
  if (!broken.empty()) return Error{ErrorCode::kInfeasible, std::move(broken)};
  jobs::PlannedJob own = jobs::looked_at(request.parameters, std::move(job));
  const bool fits = own.predicted.probability_fits >= request.probability_fits;
  Answer answer = answer_of(std::move(own), fits);
  if (!fits) answer.reason = reason_of(answer);
  return answer;
}

std::optional<Nearest> JobSearcher::advice(const Setting& setting) const {
  jobs::Request request = request_of(setting);
  request.explains = true;
  Result<jobs::JobPlan> plan = jobs::plan(request);
  if (!plan.ok() || !plan.value().changed) return std::nullopt;
  return Nearest{plan.value().change, answer_of(*plan.value().changed, true)};
}

bool JobSearcher::suits(const Setting& setting) const {
  constexpr std::uint64_t kParts = 8;
  const auto devices = static_cast<std::uint64_t>(setting.cluster.devices);
  return setting.cluster.devices <= kAllSizes || devices % (std::bit_floor(devices) / kParts) == 0;
}

double JobSearcher::least_device_seconds_a_token(const Setting& setting) const {
  Job job = jobs::base_job(request_of(setting));
  double least = simulator::least_device_seconds_a_token(job);
  const Result<jobs::Pins> pins = jobs::Pins::parse(setting.pins);
  if (!pins.ok()) return least;
  // Of several precisions the fastest may be taken; a device without one has no peak for it.
  for (const Precision precision : pins.value().precisions()) {
    job.precision = precision;
    if (simulator::peak_of(job).value() <= 0) continue;
    least = std::min(least, simulator::least_device_seconds_a_token(job));
  }
  return least;
}

double JobSearcher::checkpoint_bytes_a_parameter(const Setting&) const {
  return 3 * 4;  // in fp32, whatever products run in
}

Side JobSearcher::side(const Setting&, const Answer& answer) const {
  Side side{answer, {}, {}};
  const jobs::PlannedJob& planned = job_of(answer);
  for (const jobs::Term& term : jobs::terms_of(planned.predicted.parts)) {
    side.terms.push_back({term.name, Seconds(term.seconds)});
  }
  side.memory = planned.memory;
  return side;
}

std::string JobSearcher::cause(const std::string& term, const Answer& own,
                               const Answer& best) const {
  return cause_of(term, job_of(own).job, job_of(best).job);
}

std::vector<Problem> JobSearcher::broken(const Setting& setting) const {
  const Result<jobs::Pins> pins = jobs::Pins::parse(setting.pins);
  if (!pins.ok()) return {};
  std::vector<Problem> problems;
  const Job base = jobs::base_job(request_of(setting));
  for (const Violation& v : fewest_broken(base, pins.value())) {
    problems.push_back({v.rule, v.reason, ""});
  }
  return problems;
}

// Other groups of devices are further than whatever the same devices do otherwise.
std::vector<PinChange> JobSearcher::changes(const Setting& setting, std::size_t pins) const {
  std::vector<PinChange> out;
  for (std::size_t i = 0; i < pins; ++i) {
    const auto& [name, value] = setting.pins[i];
    const std::vector<std::string> words = jobs::values_of(name);
    if (words.empty()) {
      const std::size_t before = out.size();
      add_changes(setting, i, 1, out);
      for (std::size_t c = before; c < out.size(); ++c)
        out[c].far += groups_devices(name) ? kFar : 0;
      continue;
    }
    const auto own = std::find(words.begin(), words.end(), value) - words.begin();
    for (std::size_t w = 0; w < words.size(); ++w) {
      if (words[w] == value) continue;
      const auto far = static_cast<double>(std::abs(static_cast<std::ptrdiff_t>(w) - own));
      out.push_back({far, i, words[w]});
    }
  }
  return out;
}

PinList pins_of(const Job& job) {
  const Layout& l = job.layout;
  PinList pins;
  for (const auto& [name, value] :
       {std::pair{"tp", l.tp}, std::pair{"cp", l.cp}, std::pair{"pp", l.pp}, std::pair{"ep", l.ep},
        std::pair{"etp", l.etp}, std::pair{"micro_batch", l.micro_batch},
        std::pair{"virtual_stages", job.virtual_stages}}) {
    pins.emplace_back(name, std::to_string(value));
  }
  if (l.pp > 1) pins.emplace_back("schedule", name_of(job.schedule));
  pins.emplace_back("sharding", name_of(job.sharding));
  if (l.tp > 1) pins.emplace_back("sequence_parallel", yes_no(job.sequence_parallel));
  if (l.cp > 1) pins.emplace_back("exchange", name_of(job.context));
  if (l.ep > 1) pins.emplace_back("dispatcher", name_of(job.dispatcher));
  for (const jobs::RecomputeChoice& choice : jobs::choices_of(job, jobs::Pins()).recompute) {
    Recompute listed = choice.recompute;
    listed.full_layers = job.recompute.full_layers;
    if (listed != job.recompute) continue;
    pins.emplace_back("recompute", choice.name);
    break;
  }
  const std::vector<std::string> precisions = jobs::values_of("precision");
  if (std::find(precisions.begin(), precisions.end(), name_of(job.precision)) != precisions.end()) {
    pins.emplace_back("precision", name_of(job.precision));
  }
  return pins;
}

}  // namespace orrery::planner
