// How a published row deals out its layers to stages, in the words of Megatron-Core's arguments.
#include <fmt/format.h>

#include <charconv>
#include <numeric>

#include "validation/jobs.h"
#include "validation/words.h"

namespace orrery::validation {
namespace {

// Under the key itself or as a field of a recipe.
std::string said(const PlanFacts& plan, const std::vector<const char*>& keys) {
  for (const char* key : keys) {
    for (const char* prefix : {"", "recipe_fields.", "features."}) {
      std::string text = extra_of(plan, std::string(prefix) + key);
      if (!text.empty()) return text;
    }
  }
  return "";
}

std::optional<std::int64_t> count_of(const std::string& text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

void refuse(RowJob& out, const std::string& reason) {
  out.refused.push_back({"plan.stage_layers", reason});
}

// Layers of each rank of the pipeline, divided by its virtual stages.
std::vector<std::int64_t> by_chunk(const Job& job, const std::vector<std::int64_t>& ranks,
                                   RowJob& out) {
  std::vector<std::int64_t> counts;
  for (std::int64_t c = 0; c < job.virtual_stages; ++c) {
    for (const std::int64_t layers : ranks) {
      if (layers % job.virtual_stages != 0) {
        refuse(out, fmt::format("{} layers are not divided by {} virtual stages", layers,
                                job.virtual_stages));
        return {};
      }
      counts.push_back(layers / job.virtual_stages);
    }
  }
  return counts;
}

// The first and last rank of the pipeline have what is said, the others equal parts of the rest.
std::vector<std::int64_t> with_ends(const Job& job, std::optional<std::int64_t> first,
                                    std::optional<std::int64_t> last, RowJob& out) {
  const std::int64_t pp = job.layout.pp;
  const std::int64_t others = pp - (first ? 1 : 0) - (last ? 1 : 0);
  const std::int64_t rest = job.model.layers - first.value_or(0) - last.value_or(0);
  if (others < 1 || rest < 0 || rest % others != 0) {
    refuse(out, fmt::format("{} layers are not divided by {} stages", rest, others));
    return {};
  }
  std::vector<std::int64_t> ranks(static_cast<std::size_t>(pp), rest / others);
  if (first) ranks.front() = *first;
  if (last) ranks.back() = *last;
  return by_chunk(job, ranks, out);
}

// Embedding or loss count as a layer of their stage.
std::vector<std::int64_t> with_counted_ends(const Job& job, bool embedding, bool loss,
                                            RowJob& out) {
  const std::int64_t counted = job.model.layers + (embedding ? 1 : 0) + (loss ? 1 : 0);
  if (counted % job.layout.pp != 0) {
    refuse(out, fmt::format("{} layers with their ends are not divided by {} stages", counted,
                            job.layout.pp));
    return {};
  }
  const std::vector<std::int64_t> ranks(static_cast<std::size_t>(job.layout.pp),
                                        counted / job.layout.pp);
  std::vector<std::int64_t> counts = by_chunk(job, ranks, out);
  if (counts.empty()) return counts;
  if (embedding) --counts.front();
  if (loss) --counts.back();
  return counts;
}

// "Et*4|(t*4|)*14tmL" written out: a factor repeats the letter or the bracket before it.
std::optional<std::string> written_out(const std::string& text) {
  std::string out;
  std::size_t last = 0, open = std::string::npos;  // where what a factor repeats begins
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '(' && open == std::string::npos) {
      open = out.size();
    } else if (c == ')' && open != std::string::npos) {
      last = open;
      open = std::string::npos;
    } else if (c == '*') {
      std::int64_t times = 0;
      const char* first = text.data() + i + 1;
      const auto [end, error] = std::from_chars(first, text.data() + text.size(), times);
      if (error != std::errc() || times < 1 || times > 1000) return std::nullopt;
      const std::string part = out.substr(last);
      for (std::int64_t n = 1; n < times; ++n) out += part;
      i = static_cast<std::size_t>(end - text.data()) - 1;
    } else if (std::string("EtmL|").find(c) != std::string::npos) {
      last = out.size();
      out += c;
    } else {
      return std::nullopt;
    }
  }
  if (open != std::string::npos) return std::nullopt;
  return out;
}

}  // namespace

std::optional<std::vector<std::int64_t>> layers_of_layout(const std::string& layout) {
  const std::optional<std::string> text = written_out(layout);
  if (!text) return std::nullopt;
  std::vector<std::int64_t> counts(1, 0);
  for (const char c : *text) {
    if (c == '|') counts.push_back(0);
    if (c == 't') ++counts.back();
  }
  return counts;
}

void set_stage_layers(const PublishedRow& row, Job& job, RowJob& out) {
  const PlanFacts& plan = row.plan;
  if (job.layout.pp == 1) return;
  const std::string layout = said(plan, {"layout", "pipeline_model_parallel_layout"});
  const auto first = count_of(
      said(plan, {"decoder_first_pipeline_num_layers", "num_layers_in_first_pipeline_stage"}));
  const auto last = count_of(
      said(plan, {"decoder_last_pipeline_num_layers", "num_layers_in_last_pipeline_stage"}));
  const bool embedding = mentions(said(plan, {"account_for_embedding_in_pipeline_split"}), "true");
  const bool loss = mentions(said(plan, {"account_for_loss_in_pipeline_split"}), "true");
  if (!layout.empty() && layout != "none") {
    const auto counts = layers_of_layout(layout);
    const bool fits =
        counts && static_cast<std::int64_t>(counts->size()) == job.stages() &&
        std::accumulate(counts->begin(), counts->end(), std::int64_t{0}) == job.model.layers;
    if (fits) {
      job.stage_layers = *counts;
    } else {
      // A recipe's layout of another number of stages than the row prints is not the row's.
      out.completed.push_back(
          fmt::format("stage_layers=even ('{}' is not of {} stages and {} layers)", layout,
                      job.stages(), job.model.layers));
    }
  } else if (first || last) {
    job.stage_layers = with_ends(job, first, last, out);
  } else if (embedding || loss) {
    job.stage_layers = with_counted_ends(job, embedding, loss, out);
  } else if (mentions(said(plan, {"standalone_embedding_stage"}), "true")) {
    job.stage_layers = with_ends(job, 0, std::nullopt, out);
  }
}

}  // namespace orrery::validation
