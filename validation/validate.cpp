// See validate.h.
#include "validation/validate.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "core/check.h"
#include "simulator/stages/parameters.h"

namespace orrery::validation {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

// Everything of a job but its layout and what it recomputes; the release is the stack's words.
std::string group_of(const PublishedRow& row, const Job& job) {
  const Model& m = job.model;
  std::string key =
      fmt::format("L{} h{} f{} a{}/{}x{} v{} e{}k{}f{}s{}d{} {}{}{}{}", m.layers, m.hidden, m.ffn,
                  m.heads, m.kv_heads, m.head_dim, m.vocab, m.experts, m.top_k, m.moe_ffn,
                  m.shared_ffn, row.model.dense_first_layers.value_or(0), m.gated, m.tied_head,
                  m.latent.kv_rank, m.mtp_layers);
  for (std::size_t i = 0; i < std::min<std::size_t>(2, m.window.size()); ++i) {
    key += fmt::format(" w{}", m.window[i]);
  }
  if (!job.documents.empty()) key += fmt::format(" docs{}", fmt::join(job.documents, ","));
  return key + fmt::format(" | {} {} {:.6g} {:.6g} | s{} b{} {} {} lora{} | {} {} {} {}",
                           row.cluster.gpu, job.cluster.devices,
                           job.cluster.tiers.front().bandwidth.value(),
                           job.cluster.tiers.back().bandwidth.value(), job.sequence_tokens,
                           job.global_sequences, name_of(job.precision), job.expert_load_cv,
                           job.trains_adapters, job.stack.name, extra_of(row.plan, "framework"),
                           extra_of(row.plan, "container"), extra_of(row.plan, "recipe_tag"));
}

std::string layout_words(const Job& job) {
  const Layout& l = job.layout;
  std::string text = fmt::format("dp {} tp {} pp {}", l.dp, l.tp, l.pp);
  if (job.virtual_stages > 1) text += fmt::format(" vpp {}", job.virtual_stages);
  if (job.schedule > PipelineSchedule::kInterleaved) {
    text += std::string(" ") + name_of(job.schedule);
  }
  if (!job.stage_layers.empty()) {
    text += fmt::format(" layers {}", fmt::join(job.stage_layers, ","));
  }
  if (l.cp > 1) text += fmt::format(" cp {}", l.cp);
  if (l.sp > 1) text += fmt::format(" sp {}", l.sp);
  if (job.model.is_moe()) text += fmt::format(" ep {} etp {}", l.ep, l.etp);
  text += fmt::format(" mb {} {}", l.micro_batch, name_of(job.sharding));
  if (job.layout.fsdp_d > 1) text += fmt::format(" {}", l.fsdp_d);
  if (job.recompute.ops) text += " ops";
  if (job.recompute.full) text += fmt::format(" full {}", job.recompute.full_layers);
  for (int i = 0; i < kNumModules; ++i) {
    const auto module = static_cast<Module>(i);
    if (job.recompute.again(module)) text += std::string(" ") + name_of(module);
  }
  return text;
}

SourceSummary summary_of(const std::string& name, const std::vector<const Outcome*>& outcomes) {
  SourceSummary out;
  out.source = name;
  std::vector<Pair> steps;
  std::vector<double> memory, sizes;
  for (const Outcome* o : outcomes) {
    ++out.rows;
    if (!o->prediction) ++out.refused;
    if (o->step) steps.push_back(*o->step);
    const double error = o->memory_error();
    if (!std::isfinite(error)) continue;
    memory.push_back(error);
    sizes.push_back(std::abs(error));
  }
  out.step = accuracy(steps);
  out.memory_rows = memory.size();
  out.memory_error = median(sizes);
  out.memory_bias = median(memory);
  return out;
}

void count_fits(const std::vector<Outcome>& outcomes, Summary& out) {
  for (const Outcome& o : outcomes) {
    if (!o.prediction) continue;
    if (o.row.measured.out_of_memory) {
      ++out.out_of_memory;
      if (o.prediction->fits) ++out.false_fits;
    } else if (o.row.step_s() || o.row.measured.memory) {
      ++out.ran;
      if (!o.prediction->fits) ++out.false_misfits;
    }
  }
}

std::string job_words(const Outcome& o) {
  const PublishedRow& row = o.row;
  return fmt::format("{} of {} layers, {} x {}, {} x {} tokens, {}", row.model.name,
                     row.model.layers.value_or(0), row.cluster.gpus.value_or(0), row.cluster.gpu,
                     row.plan.global_batch.value_or(0), row.model.sequence_tokens.value_or(0),
                     o.stack);
}

// The same layout measured twice in a group counts once, by the median of both.
void summarise_groups(const std::vector<Outcome>& outcomes, Summary& out) {
  std::map<std::string, std::map<std::string, std::vector<const Outcome*>>> groups;
  for (const Outcome& o : outcomes) {
    if (o.step) groups[o.group][o.layout].push_back(&o);
  }
  std::vector<double> regrets, taus, hits;
  for (const auto& [key, layouts] : groups) {
    if (layouts.size() < kSmallestGroup) continue;
    std::vector<Choice> choices;
    for (const auto& [words, rows] : layouts) {
      std::vector<double> predicted, measured;
      for (const Outcome* o : rows) {
        predicted.push_back(o->step->predicted);
        measured.push_back(o->step->measured);
      }
      choices.push_back({median(predicted), median(measured)});
    }
    GroupSummary g;
    g.key = key;
    g.source = layouts.begin()->second.front()->row.source;
    g.job = job_words(*layouts.begin()->second.front());
    g.layouts = choices.size();
    g.best_s = choices.front().measured;
    for (const Choice& c : choices) g.best_s = std::min(g.best_s, c.measured);
    g.regret = regret(choices);
    g.tau = kendall_tau(choices);
    g.best_in_top_quarter = best_in_top_quarter(choices);
    regrets.push_back(g.regret);
    if (std::isfinite(g.tau)) taus.push_back(g.tau);
    hits.push_back(g.best_in_top_quarter ? 1 : 0);
    out.groups.push_back(std::move(g));
  }
  out.mean_regret = mean(regrets);
  out.worst_regret = quantile(regrets, 1);
  out.mean_tau = mean(taus);
  out.top_quarter = mean(hits);
}

}  // namespace

double Outcome::memory_bytes() const {
  if (!prediction) return kNone;
  return row.measured.memory_allocated ? prediction->allocated_bytes : prediction->peak_bytes;
}

double Outcome::memory_error() const {
  const auto measured = row.memory_bytes();
  return prediction && measured ? memory_bytes() / *measured - 1 : kNone;
}

Outcome validate_row(const PublishedRow& row, const std::vector<Stack>& stacks,
                     const Predictor& predict) {
  Outcome out;
  out.row = row;
  RowJob made = job_of(row, stacks);
  out.refused = std::move(made.refused);
  out.completed = std::move(made.completed);
  if (!made.job) return out;
  const Job& job = *made.job;
  out.stack = job.stack.name;
  out.group = group_of(row, job);
  out.layout = layout_words(job);
  out.prediction = predict(job);
  const simulator::JobPrediction& p = *out.prediction;
  CHECK(p.step.value() > 0 && std::isfinite(p.step.value()), "no step of " + row.id);
  if (const auto measured = row.step_s(); measured) {
    out.step = Pair{p.p10.value(), p.step.value(), p.p90.value(), *measured};
  }
  return out;
}

std::vector<Outcome> validate_rows(const std::vector<PublishedRow>& rows,
                                   const std::vector<Stack>& stacks, const Predictor& predict,
                                   const std::function<void(std::size_t)>& progress) {
  std::vector<Outcome> out;
  out.reserve(rows.size());
  for (const PublishedRow& row : rows) {
    out.push_back(validate_row(row, stacks, predict));
    if (progress) progress(out.size());
  }
  return out;
}

Summary summarise(const std::vector<Outcome>& outcomes) {
  Summary out;
  std::map<std::string, std::vector<const Outcome*>> sources;
  std::vector<const Outcome*> all;
  for (const Outcome& o : outcomes) {
    ++out.rows;
    if (o.prediction) ++out.predicted;
    if (o.step) ++out.judged;
    for (const Refusal& r : o.refused) ++out.refused[r.field + ": " + r.reason];
    sources[o.row.source].push_back(&o);
    all.push_back(&o);
  }
  out.all = summary_of("all rows", all);
  std::vector<double> errors, biases;
  for (const auto& [name, rows] : sources) {
    out.sources.push_back(summary_of(name, rows));
    if (out.sources.back().step.rows == 0) continue;
    errors.push_back(out.sources.back().step.median_error);
    biases.push_back(out.sources.back().step.bias);
  }
  out.mean_of_sources = mean(errors);
  out.mean_bias_of_sources = mean(biases);
  count_fits(outcomes, out);
  summarise_groups(outcomes, out);
  out.free_parameters = simulator::free_parameters().size();
  return out;
}

}  // namespace orrery::validation
