// Trials of changes, what binds, and searches under other circumstances. See explain.h.
#include "planner/jobs/explain.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "core/quantity.h"
#include "planner/jobs/search.h"

namespace orrery::planner::jobs {
namespace {

using simulator::JobPrediction;

constexpr double kPredicted = 0.5;   // as likely to fit as not
constexpr double kGain = 1.01;       // of speed, below which a change is not worth its words
constexpr double kOfWeight = 0.005;  // of a step, for a term that is named
// Circumstances are searched where a search begins with so many bounds at most.
constexpr std::size_t kMostBlocks = 12'000;

double tokens_of(const Job& job) {
  return static_cast<double>(job.sequence_tokens) * static_cast<double>(job.global_sequences);
}

std::string gib(double bytes) {
  return format_bytes(Bytes(static_cast<std::int64_t>(bytes)));
}

std::string share(double part) {
  return std::to_string(static_cast<int>(std::lround(100 * part))) + " %";
}

double needed(const PlannedJob& p) {
  return p.predicted.peak_bytes;
}

class Trials {
 public:
  Trials(const Question& question, const PlannedJob& own)
      : question_(question), own_(own), changes_(changes_of(question.job)) {}

  // All single changes; then, where none of them makes it fit, pairs.
  void run(Diagnosis& d) {
    for (const Change& change : changes_) {
      if (auto trial = make({change})) single_.push_back(std::move(*trial));
    }
    if (!d.sure) {
      d.fixes = best_of_axes(
          single_, [&](const Trial& t) { return fits(t); }, false);
      if (d.fixes.empty()) d.fixes = pairs();
      if (d.fixes.empty()) d.helps = helps();
    }
    if (own_.predicted.probability_fits < kPredicted) return;
    d.faster = best_of_axes(
        single_,
        [&](const Trial& t) {
          return t.speed >= kGain && keeps(t) && t.changes.front().kind != ChangeKind::kDevices;
        },
        true);
    d.faster_pairs = faster_pairs();
  }

 private:
  bool fits(const Trial& t) const {
    return t.after.predicted.probability_fits >= question_.probability_fits;
  }

  // Fits at least as surely as the job does.
  bool keeps(const Trial& t) const {
    return t.after.predicted.probability_fits >=
           std::min(question_.probability_fits, own_.predicted.probability_fits);
  }

  // Of two axes, or an axis and a dispatcher: the fastest few, where no single change of the same
  // kinds comes near.
  std::vector<Trial> faster_pairs() const {
    constexpr double kClearly = 1.03;
    constexpr std::size_t kMost = 3;
    const auto layout = [](const Change& c) {
      return c.kind == ChangeKind::kAxis || c.axis == "dispatcher";
    };
    double least = kClearly;
    for (const Trial& t : single_) {
      if (layout(t.changes.front()) && keeps(t)) least = std::max(least, kClearly * t.speed);
    }
    std::map<std::pair<std::string, std::string>, Trial> best;
    for (std::size_t i = 0; i < changes_.size(); ++i) {
      for (std::size_t k = i + 1; k < changes_.size(); ++k) {
        const Change &a = changes_[i], &b = changes_[k];
        if (!layout(a) || !layout(b) || a.axis == b.axis) continue;
        // First the one that makes room for the other.
        auto trial = make({a, b});
        if (!trial) trial = make({b, a});
        if (!trial || trial->speed < least || !keeps(*trial)) continue;
        const auto found = best.find({a.axis, b.axis});
        if (found == best.end()) {
          best.emplace(std::pair(a.axis, b.axis), std::move(*trial));
        } else if (trial->speed > found->second.speed) {
          found->second = std::move(*trial);
        }
      }
    }
    std::vector<Trial> out;
    for (auto& [axes, trial] : best) out.push_back(std::move(trial));
    std::stable_sort(out.begin(), out.end(),
                     [](const Trial& a, const Trial& b) { return a.speed > b.speed; });
    if (out.size() > kMost) out.resize(kMost);
    return out;
  }

  std::optional<Trial> make(const std::vector<Change>& changes) const {
    Trial trial{changes, {question_.job, {}}, 1, ""};
    for (const Change& change : changes) {
      if (!change.apply(trial.after.job)) return std::nullopt;
    }
    Job priced = trial.after.job;
    simulator::apply(question_.parameters.values, priced);
    trial.after.predicted = simulator::predict(priced);
    const double tokens = tokens_of(trial.after.job) / tokens_of(own_.job);
    const double step = trial.after.predicted.step.value();
    trial.speed = tokens * own_.predicted.step.value() / step;
    trial.saves = saved_by(own_.predicted, trial.after.predicted, 1 / tokens);
    return trial;
  }

  // Of each axis the fastest that is wanted; the smallest kinds of change first, else the fastest.
  template <class Wanted>
  static std::vector<Trial> best_of_axes(const std::vector<Trial>& all, Wanted wanted,
                                         bool by_speed) {
    std::map<std::string, const Trial*> best;
    for (const Trial& t : all) {
      if (!wanted(t)) continue;
      const Trial*& of_axis = best[t.changes.front().axis];
      // Less of an enlargement is enough.
      const bool enlarges = t.changes.front().kind >= ChangeKind::kWorkload;
      if (of_axis == nullptr || (!enlarges && t.speed > of_axis->speed)) of_axis = &t;
    }
    std::vector<Trial> out;
    for (const auto& [axis, trial] : best) out.push_back(*trial);
    std::stable_sort(out.begin(), out.end(), [&](const Trial& a, const Trial& b) {
      const ChangeKind mine = a.changes.front().kind, its = b.changes.front().kind;
      if (!by_speed && mine != its) return mine < its;
      return a.speed > b.speed;
    });
    constexpr std::size_t kMost = 10;
    if (out.size() > kMost) out.resize(kMost);
    return out;
  }

  // Of each axis the change that frees most.
  std::vector<Trial> freeing() const {
    std::map<std::string, const Trial*> best;
    for (const Trial& t : single_) {
      const Trial*& of_axis = best[t.changes.front().axis];
      if (needed(t.after) >= needed(own_)) continue;
      if (of_axis == nullptr || needed(t.after) < needed(of_axis->after)) of_axis = &t;
    }
    std::vector<Trial> out;
    for (const auto& [axis, trial] : best) {
      if (trial != nullptr) out.push_back(*trial);
    }
    std::stable_sort(out.begin(), out.end(), [](const Trial& a, const Trial& b) {
      return needed(a.after) < needed(b.after);
    });
    return out;
  }

  std::vector<Trial> helps() const {
    constexpr std::size_t kMost = 6;
    std::vector<Trial> out = freeing();
    if (out.size() > kMost) out.resize(kMost);
    return out;
  }

  // Two changes of different axes: of those that free most.
  std::vector<Trial> pairs() const {
    constexpr std::size_t kFrom = 16, kMost = 5;
    std::vector<Trial> of = freeing(), out;
    if (of.size() > kFrom) of.resize(kFrom);
    for (std::size_t i = 0; i < of.size(); ++i) {
      for (std::size_t k = i + 1; k < of.size(); ++k) {
        auto trial = make({of[i].changes.front(), of[k].changes.front()});
        if (trial && fits(*trial)) out.push_back(std::move(*trial));
      }
    }
    const auto kind = [](const Trial& t) {
      return std::max(t.changes.front().kind, t.changes.back().kind);
    };
    std::stable_sort(out.begin(), out.end(), [&](const Trial& a, const Trial& b) {
      return kind(a) != kind(b) ? kind(a) < kind(b) : a.speed > b.speed;
    });
    if (out.size() > kMost) out.resize(kMost);
    return out;
  }

  const Question& question_;
  const PlannedJob& own_;
  std::vector<Change> changes_;
  std::vector<Trial> single_;
};

std::string binding_memory(const Diagnosis& d) {
  using simulator::MemoryClass;
  const simulator::MemoryParts& m = d.memory;
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < m.bytes.size(); ++i) order.push_back(i);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return m.bytes[a] > m.bytes[b]; });
  std::string text = "memory: " + gib(m.total()) + " needed of " +
                     gib(d.own.predicted.usable_bytes) + ", most of it ";
  for (std::size_t i = 0; i < 2; ++i) {
    if (i == 1 && m.bytes[order[i]] < 0.1 * m.total()) break;
    text += (i > 0 ? " and " : "") + std::string(name_of(static_cast<MemoryClass>(order[i]))) +
            " (" + share(m.bytes[order[i]] / m.total()) + ")";
  }
  text += m.in_update
              ? ", fullest while the optimizer updates"
              : ", fullest in a backward with the activations of " + std::to_string(m.cells) +
                    (d.own.job.virtual_stages > 1 ? " chunks of micro-batches"
                     : m.cells == 1               ? " micro-batch"
                                                  : " micro-batches");
  if (d.own.job.layout.pp > 1) text += ", on stage " + std::to_string(m.stage);
  return text;
}

std::string binding_time(const Diagnosis& d) {
  const double step = d.own.predicted.step.value();
  const std::vector<Term> terms = terms_of(d.own.predicted.parts);
  const Term* wait = nullptr;
  double compute = 0;
  for (const Term& t : terms) {
    if (t.name == "compute") {
      compute = t.seconds;
    } else if (wait == nullptr || t.seconds > wait->seconds) {
      wait = &t;
    }
  }
  std::string text = "time: " + share(compute / step) + " of the step computes";
  if (wait->seconds < kOfWeight * step) return text;
  static const std::map<std::string, std::string> kMeaning = {
      {"host", "the host, which launches kernels more slowly than they run"},
      {"tensor", "exchanges of the tensor axis"},
      {"context", "exchanges of the context axis"},
      {"experts", "exchanges of experts' rows"},
      {"data", "gathering and reducing over the data axis"},
      {"bubble", "the pipeline's bubble and sends"},
      {"optimizer", "the optimizer"},
      {"fixed", "what every step costs beyond its work"},
      {"stragglers", "the slowest rank"}};
  return text + "; what it waits for most is " + kMeaning.at(wait->name) + " (" +
         share(wait->seconds / step) + ")";
}

// Rules of thumb that hold whatever the figures are.
std::vector<std::string> notes_of(const Diagnosis& d) {
  const Job& job = d.own.job;
  const Layout& l = job.layout;
  std::vector<std::string> notes;
  const std::int64_t node = job.cluster.tiers.front().domain;
  const bool nodes = job.cluster.tiers.size() > 1;
  if (!job.model.is_latent() && l.tp > job.model.kv_heads) {
    notes.push_back("tp " + std::to_string(l.tp) + " is more than the " +
                    std::to_string(job.model.kv_heads) +
                    " heads of keys and values: each is held by several ranks where the framework "
                    "can copy it (Megatron), and the run is refused where it cannot (torchtitan)");
  }
  if (nodes && l.tp > node) notes.push_back("the tensor axis crosses nodes");
  if (nodes && l.ep > 1 && l.ep * l.etp > node) {
    notes.push_back("the exchange of experts crosses nodes: " + std::to_string(l.ep * l.etp) +
                    " ranks, " + std::to_string(node) + " on a node's links");
  }
  const std::vector<double>& stages = d.memory.stage_bytes;
  if (stages.size() > 1) {
    const double least = *std::min_element(stages.begin(), stages.end());
    if (least < 0.85 * d.memory.total()) {
      notes.push_back("stages are not alike: the fullest needs " + gib(d.memory.total()) +
                      ", the emptiest " + gib(least));
    }
  }
  const double states = d.memory.bytes[simulator::kOptimizerStates];
  if (!d.sure && states > 0.1 * d.memory.total()) {
    const double left = d.memory.total() - states;
    const double p = simulator::probability_fits(left, d.own.predicted.usable_bytes);
    notes.push_back("with the optimizer states on the host it would need " + gib(left) +
                    (p >= kPredicted ? " and fit" : " and still not fit") +
                    " (what that costs in time is not simulated)");
  }
  return notes;
}

Request request_of(const Question& q) {
  Request r;
  const Job& job = q.job;
  r.model = job.model;
  r.cluster = job.cluster;
  r.stack = job.stack;
  r.parameters = q.parameters;
  r.workload.name = "of the job";
  r.workload.sequence_tokens = job.sequence_tokens;
  r.workload.global_sequences = job.global_sequences;
  r.workload.document_tokens = job.documents;
  if (job.documents.empty()) r.workload.document_tokens = {job.sequence_tokens};
  r.workload.expert_load_cv = job.expert_load_cv;
  r.pins = q.pins;
  const auto pinned = [&](const auto& pin) { return pin.first == "precision"; };
  const bool other = job.precision != Precision::kBf16;
  if (other && std::none_of(r.pins.begin(), r.pins.end(), pinned)) {
    r.pins.emplace_back("precision", name_of(job.precision));
  }
  r.probability_fits = q.probability_fits;
  r.threads = q.threads;
  return r;
}

bool searchable(const Job& job) {
  const Precision p = job.precision;
  return !job.trains_adapters &&
         (p == Precision::kBf16 || p == Precision::kFp8 || p == Precision::kFp32);
}

struct Circumstance {
  std::string words;
  std::function<void(Job&)> change;
};

std::vector<Circumstance> circumstances(const Job& job) {
  std::vector<Circumstance> out;
  const auto links = [&](const char* words, std::size_t tier, double times) {
    out.push_back({words, [=](Job& j) {
                     LinkTier& t = j.cluster.tiers[tier];
                     t.bandwidth = BytesPerSecond(t.bandwidth.value() * times);
                   }});
  };
  const auto memory = [&](const char* words, double times) {
    out.push_back({words, [=](Job& j) {
                     Bytes& m = j.cluster.device.memory;
                     m = Bytes(static_cast<std::int64_t>(static_cast<double>(m.value()) * times));
                   }});
  };
  const std::size_t last = job.cluster.tiers.size() - 1;
  const bool nodes = last > 0 && job.cluster.devices > job.cluster.tiers.front().domain;
  if (nodes) {
    links("links between nodes twice as fast", last, 2);
    links("links between nodes half as fast", last, 0.5);
  } else if (job.cluster.devices > 1) {
    links("links twice as fast", 0, 2);
    links("links half as fast", 0, 0.5);
  }
  memory("memory 25 % larger", 1.25);
  memory("memory 25 % smaller", 0.75);
  out.push_back({"a batch twice as large", [](Job& j) { j.global_sequences *= 2; }});
  if (job.global_sequences % 2 == 0) {
    out.push_back({"a batch half as large", [](Job& j) { j.global_sequences /= 2; }});
  }
  constexpr double kUneven = 0.3;
  if (job.model.is_moe() && job.expert_load_cv > 0) {
    out.push_back({"experts of equal load", [](Job& j) { j.expert_load_cv = 0; }});
  } else if (job.model.is_moe()) {
    out.push_back({"experts' loads that vary by 30 %", [](Job& j) { j.expert_load_cv = kUneven; }});
  }
  return out;
}

PlannedJob predicted(const Question& q, const Job& job) {
  Job priced = job;
  simulator::apply(q.parameters.values, priced);
  return {job, simulator::predict(priced)};
}

// Whether the best of now still fits under the circumstance, and is as fast as the best then but
// for noise.
bool keeps_up(const Question& q, const Diagnosis& d, const Circumstance& c,
              const PlannedJob& best) {
  Job job = d.best->job;
  c.change(job);
  if (!violations(job).empty()) return false;
  const PlannedJob now = predicted(q, job);
  return now.predicted.probability_fits >= q.probability_fits &&
         now.predicted.step.value() <= (1 + kTie) * best.predicted.step.value();
}

void look_at_circumstances(const Question& q, Diagnosis& d) {
  bool searches = searchable(q.job) && d.best;
  if (searches) {
    const Request r = request_of(q);
    const Result<Pins> pins = Pins::parse(r.pins);
    const Job base = base_job(r);
    searches =
        pins.ok() && make_space(base, choices_of(base, pins.value())).blocks.size() <= kMostBlocks;
  }
  for (const Circumstance& c : circumstances(q.job)) {
    Question other = q;
    c.change(other.job);
    WhatIf what{c.words, {}, std::nullopt, searches, ""};
    // A batch that the layout does not divide any more: the job cannot run as it is.
    what.own = {other.job, {}};
    if (violations(other.job).empty()) what.own = predicted(q, other.job);
    if (searches) {
      Request r = request_of(other);
      r.explains = r.simplest = false;
      const Result<JobPlan> plan = jobs::plan(r);
      if (plan.ok()) what.best = plan.value().best;
      if (what.best && !keeps_up(q, d, c, *what.best)) {
        what.otherwise = difference_words(d.best->job, what.best->job, false);
      }
    }
    d.what_ifs.push_back(std::move(what));
  }
}

void look_for_best(const Question& q, Diagnosis& d) {
  if (!searchable(q.job)) return;
  Request r = request_of(q);
  r.explains = r.simplest = false;
  Result<JobPlan> searched = jobs::plan(r);
  if (!searched.ok()) return;
  JobPlan plan = std::move(searched).value();
  if (!plan.best) find_change(r, plan);
  d.best = plan.best;
  d.changed = plan.changed;
  d.change = plan.change;
  if (d.best) d.best_words = difference_words(q.job, d.best->job);
}

}  // namespace

std::string Trial::words() const {
  std::string text;
  for (const Change& change : changes) text += (text.empty() ? "" : " and ") + change.words;
  return text;
}

std::string saved_by(const JobPrediction& more, const JobPrediction& less, double scale) {
  std::vector<Term> terms = terms_of(more.parts);
  const std::vector<Term> other = terms_of(less.parts);
  for (std::size_t i = 0; i < terms.size(); ++i) terms[i].seconds -= scale * other[i].seconds;
  std::stable_sort(terms.begin(), terms.end(),
                   [](const Term& a, const Term& b) { return a.seconds > b.seconds; });
  std::string text;
  for (std::size_t i = 0; i < 2; ++i) {
    if (terms[i].seconds < kOfWeight * more.step.value()) break;
    text += (text.empty() ? "" : ", ") + terms[i].name + " -" +
            format_seconds(Seconds(terms[i].seconds));
  }
  return text;
}

Diagnosis diagnose(const Question& question) {
  Diagnosis d;
  Job priced = question.job;
  simulator::apply(question.parameters.values, priced);
  d.own = {question.job, simulator::predict_with(question.parameters, question.job)};
  d.memory = simulator::memory_parts(priced);
  d.sure = d.own.predicted.probability_fits >= question.probability_fits;
  d.binding = d.own.predicted.probability_fits < kPredicted ? binding_memory(d) : binding_time(d);
  Trials(question, d.own).run(d);
  d.notes = notes_of(d);
  look_for_best(question, d);
  look_at_circumstances(question, d);
  return d;
}

}  // namespace orrery::planner::jobs
