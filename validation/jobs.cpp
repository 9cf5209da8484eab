// A job from a row: stack, model, cluster, layout, batch, and what the row says beside.
#include "validation/jobs.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "core/hardware.h"
#include "validation/words.h"

namespace orrery::validation {
namespace {

// Keys of "extra" that tell a framework, its release and how it runs.
constexpr const char* kStackKeys[] = {"framework", "container", "recipe_tag", "scheme", "compile"};

const Stack& stack_of(const PublishedRow& row, const std::vector<Stack>& stacks, RowJob& out) {
  CHECK(!stacks.empty(), "no stacks");
  const Stack* chosen = choose_stack(stacks, stack_words(row), row.date);
  if (chosen != nullptr) return *chosen;
  chosen = &stacks.front();
  for (const Stack& stack : stacks) {
    if (stack.name == "generic") chosen = &stack;
  }
  const std::string name = extra_of(row.plan, "framework");
  out.completed.push_back(
      fmt::format("stack={} ({})", chosen->name,
                  name.empty() ? "no framework is stated" : "the framework has no file"));
  return *chosen;
}

Recompute recompute_of_row(const PublishedRow& row, const Stack& stack, RowJob& out) {
  std::string words = row.plan.recompute, unknown;
  if (words.empty()) {
    words = stack.recompute;
    out.completed.push_back(fmt::format("recompute={} (default of {})", words, stack.name));
  }
  if (lower_case(words) == "selective" && stack.selective != "core_attn") {
    words = "selective: " + stack.selective;
    out.completed.push_back(fmt::format("recompute={} (of {})", words, stack.name));
  }
  if (mentions(words, "offload")) {
    out.refused.push_back({"plan.recompute", "activations on the host are not priced"});
    return {};
  }
  auto recompute = recompute_of(words, unknown);
  if (!recompute) {
    out.refused.push_back({"plan.recompute", "'" + unknown + "' is no part of a layer known here"});
    return {};
  }
  const std::string layers = extra_of(row.plan, "recipe_fields.recompute_num_layers");
  if (recompute->full && !layers.empty()) {
    std::int64_t n = 0;
    const auto [end, error] = std::from_chars(layers.data(), layers.data() + layers.size(), n);
    if (error == std::errc() && n > 0) recompute->full_layers = n;
  }
  return *recompute;
}

void set_batch(const PublishedRow& row, Job& job, RowJob& out) {
  const Layout& l = job.layout;
  Count batch = row.plan.global_batch;
  if (!batch) {
    for (const char* key : {"grad_accum", "ga"}) {
      const std::string text = extra_of(row.plan, key);
      std::int64_t n = 0;
      std::from_chars(text.data(), text.data() + text.size(), n);
      if (n < 1 || n > (1 << 16) || !row.plan.micro_batch) continue;
      batch = l.dp * l.micro_batch * n;
      out.completed.push_back(fmt::format("global_batch={} (dp x micro_batch x {})", *batch, key));
      break;
    }
  }
  job.global_sequences = required(batch, "plan.global_batch", out);
  if (!out.refused.empty()) return;
  if (job.global_sequences % (l.dp * l.micro_batch) != 0) {
    out.refused.push_back(
        {"plan.global_batch", fmt::format("{} is no multiple of dp x micro_batch = {}",
                                          job.global_sequences, l.dp * l.micro_batch)});
    return;
  }
  job.layout.accumulation = job.global_sequences / (l.dp * l.micro_batch);
}

void set_dispatcher(const PublishedRow& row, Job& job, RowJob& out) {
  if (!job.model.is_moe()) return;
  std::string word;
  for (const char* key : {"dispatcher", "features.moe_dispatcher", "recipe_fields.dispatcher"}) {
    if (word.empty()) word = extra_of(row.plan, key);
  }
  if (word.empty() && (mentions(extra_of(row.plan, "kernels"), "DeepEP") ||
                       mentions(extra_of(row.plan, "framework"), "DeepEP"))) {
    word = "DeepEP";
  }
  if (word.empty()) {
    word = job.stack.dispatcher;
    out.completed.push_back(fmt::format("dispatcher={} (default of {})", word, job.stack.name));
  }
  const auto dispatcher = dispatcher_of(word);
  if (!dispatcher) {
    out.refused.push_back({"plan.extra.dispatcher", "'" + word + "' is not known"});
    return;
  }
  job.dispatcher = *dispatcher;
  const std::string routing = extra_of(row.plan, "moe_routing");
  if (mentions(routing, "balanced") || mentions(routing, "drop")) return;
  // An assumption, between what benchmarks force (0) and configs/workloads (0.3). It was 0.3 until
  // errors had been seen, so it counts as a parameter.
  job.expert_load_cv = 0.15;
  out.completed.push_back(fmt::format("expert_load_cv=0.15 (routing {})",
                                      routing.empty() ? "not stated" : "is natural"));
}

// What a row says against its stack's defaults.
void set_switches(const PublishedRow& row, Job& job) {
  const auto says = [&](const char* key, const char* word) {
    return mentions(extra_of(row.plan, key), word);
  };
  Stack& s = job.stack;
  if (says("flash", "false") && is_flash(s.attention)) {
    s.attention = AttentionKernel::kFusedSoftmax;
  }
  if (says("flash", "true") && !is_flash(s.attention)) s.attention = AttentionKernel::kFlash;
  if (says("framework", "no flash")) s.attention = AttentionKernel::kFusedSoftmax;
  if (says("async_tp", "true") || says("tp_comm_overlap", "true") || says("mc2", "true")) {
    s.overlaps_tensor = true;
  }
  if (says("optimizer", "fp32 grad")) s.fp32_gradients = true;
  // Composer's mixed precision: DEFAULT reduces in fp32, PURE as it computes.
  if (says("mp_mode", "default")) s.fp32_gradients = true;
  if (says("mp_mode", "pure")) s.fp32_gradients = false;
  if (says("framework", "chunked loss")) s.loss = LossKernel::kChunked;
  // Transformer Engine's, with its other kernels.
  if (says("kernels", "TE +")) s.loss = LossKernel::kFused;
  if (says("framework", "fused cross entropy")) s.loss = LossKernel::kFused;
  if (says("a2a_overlap_1f1b", "true")) s.overlaps_experts = true;
  if (says("grad_overlap", "false")) s.overlaps_gradients = false;
  if (says("framework", "overlap paths switched off")) {
    s.overlaps_gradients = s.overlaps_parameters = s.overlaps_tensor = s.overlaps_stages =
        s.overlaps_experts = false;
  }
  for (const char* key : {"cuda_graph", "recipe_fields.cuda_graph"}) {
    const std::string graph = extra_of(row.plan, key);
    if (!graph.empty() && !mentions(graph, "off") && !mentions(graph, "none")) s.graphs = true;
  }
  for (const char* key : {"cp_type", "cp_algo"}) {
    if (says(key, "ulysses") || says(key, "a2a")) job.context = ContextExchange::kAllToAll;
    if (says(key, "all_gather")) job.context = ContextExchange::kAllGather;
  }
  job.trains_adapters = says("task", "lora");
}

void set_schedule(const PublishedRow& row, Job& job, RowJob& out) {
  job.virtual_stages = row.plan.vpp.value_or(1);
  if (!row.plan.vpp && mentions(extra_of(row.plan, "pp_schedule"), "interleaved")) {
    job.virtual_stages = 2;
    out.completed.push_back("vpp=2 (the schedule is interleaved)");
  } else if (!row.plan.vpp && job.layout.pp > 1) {
    out.completed.push_back("vpp=1 (not stated)");
  }
  if (job.layout.pp == 1) job.virtual_stages = 1;
  if (job.virtual_stages > 1) job.schedule = PipelineSchedule::kInterleaved;
  set_stage_layers(row, job, out);
  const std::string words = extra_of(row.plan, "pp_schedule");
  if (mentions(words, "gpipe")) job.schedule = PipelineSchedule::kGpipe;
  if (mentions(words, "zero") || mentions(words, "zb")) {
    job.schedule = PipelineSchedule::kZeroBubble;
  }
  for (const char* key : {"a2a_overlap_1f1b", "recipe_fields.a2a_overlap"}) {
    const bool expected = job.layout.pp == 1 || job.virtual_stages > 1;  // as Megatron-Core has it
    if (expected && mentions(extra_of(row.plan, key), "true")) {
      job.schedule = PipelineSchedule::kOverlapped;
    }
  }
  bool other = mentions(extra_of(row.plan, "framework"), "DualPipe");
  for (const char* word : {"v-half", "v-min", "zbv", "dualpipe"}) {
    other = other || mentions(words, word);
  }
  if (other) out.refused.push_back({"plan.extra.pp_schedule", "this schedule is not priced"});
}

// Several documents in a sequence, where a row says so: attention stays inside them.
void set_documents(const PublishedRow& row, Job& job, RowJob& out) {
  for (const char* key : {"mean_document_tokens", "recipe_fields.mean_document_tokens"}) {
    const std::string text = extra_of(row.plan, key);
    double mean = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), mean);
    if (error != std::errc() || mean < 1) continue;
    job.documents = equal_documents(job.sequence_tokens, mean);
    return;
  }
  for (const char* key : {"packed", "packing"}) {
    if (!mentions(extra_of(row.plan, key), "true")) continue;
    out.completed.push_back("documents=1 (packed, their lengths not stated)");
    return;
  }
}

// Default-made where it is refused.
Cluster cluster_of_row(const ClusterFacts& facts, RowJob& out) {
  const std::int64_t gpus = required(facts.gpus, "cluster.gpus", out);
  const std::int64_t per_node =
      std::min(gpus, completed(facts.gpus_per_node, "gpus_per_node", 8, "usual with it", out));
  if (gpus % per_node != 0) {
    out.refused.push_back(
        {"cluster.gpus", fmt::format("{} devices are no whole nodes of {}", gpus, per_node)});
    return {};
  }
  Result<Cluster> cluster =
      cluster_of(facts.gpu, gpus, per_node, facts.intra_gbyte_s.value_or(0) * 1e9,
                 facts.inter_gbit_s.value_or(0) * 1e9);
  if (!cluster.ok()) {
    for (const Problem& p : cluster.error().problems) {
      out.refused.push_back({"cluster.gpu", p.message});
    }
    return {};
  }
  const Cluster& c = cluster.value();
  if (!facts.intra_gbyte_s && per_node > 1) {
    out.completed.push_back(fmt::format("intra_node={:g} GB/s a direction (of its kind of node)",
                                        c.tiers.front().bandwidth.value() / 1e9));
  }
  if (!facts.inter_gbit_s && gpus > per_node) {
    out.completed.push_back(fmt::format("inter_node={:g} Gb/s (of its kind of node)",
                                        c.tiers.back().bandwidth.value() * 8 / 1e9));
  }
  return std::move(cluster).value();
}

// Figures that are no measurement of this job.
void refuse_unmeasured(const PublishedRow& row, RowJob& out) {
  if (!extra_of(row.plan, "analytic").empty()) {
    out.refused.push_back({"measured", "the figure is a formula's, not a measurement"});
  } else if (!row.step_s() && !row.measured.memory && !row.measured.out_of_memory) {
    out.refused.push_back({"measured", "neither a step time, tokens a second nor memory"});
  }
}

}  // namespace

std::int64_t required(const Count& value, const char* field, RowJob& out) {
  if (value) return *value;
  out.refused.push_back({field, "is missing"});
  return 1;
}

std::int64_t completed(const Count& value, const char* name, std::int64_t fallback,
                       const std::string& why, RowJob& out) {
  if (value) return *value;
  out.completed.push_back(fmt::format("{}={} ({})", name, fallback, why));
  return fallback;
}

std::string extra_of(const PlanFacts& plan, const std::string& key) {
  const auto found = plan.extra.find(key);
  return found == plan.extra.end() ? "" : found->second;
}

std::string stack_words(const PublishedRow& row) {
  std::string words;
  for (const char* key : kStackKeys) {
    const std::string value = extra_of(row.plan, key);
    if (!value.empty()) words += fmt::format("{}={}; ", key, value);
  }
  return words + "fsdp=" + row.plan.fsdp;
}

RowJob job_of(const PublishedRow& row, const std::vector<Stack>& stacks) {
  RowJob out;
  refuse_unmeasured(row, out);
  Job job;
  job.stack = stack_of(row, stacks, out);
  job.model = model_of(row.model, row.plan, job.stack, out);
  job.cluster = cluster_of_row(row.cluster, out);
  if (!out.refused.empty()) return out;
  job.sequence_tokens = *row.model.sequence_tokens;
  job.layout = layout_of(row, job.model, job.stack, out);
  if (!out.refused.empty()) return out;
  set_sharding(row, job, out);
  set_batch(row, job, out);
  set_schedule(row, job, out);
  job.sequence_parallel = row.plan.sequence_parallel.value_or(false) && job.layout.tp > 1;
  if (!row.plan.sequence_parallel && job.layout.tp > 1) {
    out.completed.push_back("sequence_parallel=false (not stated)");
  }
  if (const auto precision = precision_of(row.plan.precision); precision) {
    job.precision = *precision;
  } else {
    out.refused.push_back({"plan.precision", "'" + row.plan.precision + "' is not priced"});
  }
  job.recompute = recompute_of_row(row, job.stack, out);
  set_dispatcher(row, job, out);
  set_documents(row, job, out);
  set_switches(row, job);
  if (!out.refused.empty()) return out;
  for (const Violation& v : violations(job)) out.refused.push_back({v.rule, v.reason});
  if (out.refused.empty()) out.job = std::move(job);
  return out;
}

}  // namespace orrery::validation
