// The list of changes, and what follows from each. See changes.h.
#include "planner/jobs/changes.h"

#include <algorithm>
#include <utility>

#include "core/job_json.h"
#include "planner/jobs/choices.h"

namespace orrery::planner::jobs {
namespace {

// Values of an axis are tried up to this factor from the one that is there.
constexpr std::int64_t kMostTimes = 8;

// dp, the shards, the micro-batch and the schedule of a job whose axes or batch have changed;
// `shards` of the data axis are kept where that divides it. False where no rule lets it run.
bool settle(Job& job, bool all_shards, std::int64_t micro_batch) {
  Layout& l = job.layout;
  const std::int64_t used = l.cp * l.sp * l.tp * l.pp;
  if (used < 1 || job.cluster.devices % used != 0) return false;
  l.dp = job.cluster.devices / used;
  if (job.global_sequences % l.dp != 0) return false;
  const std::int64_t own = job.global_sequences / l.dp;
  l.micro_batch = std::min(micro_batch, own);
  while (own % l.micro_batch != 0) --l.micro_batch;
  const std::int64_t data = l.dp * l.cp * l.sp;
  if (all_shards || data % l.fsdp_d != 0) l.fsdp_d = data;
  l.replicate_d = data / l.fsdp_d;
  if (l.pp == 1) {
    job.virtual_stages = 1;
    job.schedule = PipelineSchedule::kOneForwardOneBackward;
  }
  if (l.tp == 1) job.sequence_parallel = false;
  return violations(job).empty();
}

bool settle(Job& job, const Job& before) {
  const Layout& l = before.layout;
  return settle(job, l.replicate_d == 1, l.micro_batch);
}

std::string instead(const std::string& axis, std::int64_t value, std::int64_t before) {
  return axis + " " + std::to_string(value) + " instead of " + std::to_string(before);
}

class List {
 public:
  explicit List(const Job& job) : job_(job) {}
  std::vector<Change> all() {
    recompute();
    sharding();
    schedules();
    micro_batches();
    words();
    stage_layers();
    axes();
    kernels();
    workload();
    return std::move(out_);
  }

 private:
  void add(const std::string& axis, const std::string& text, ChangeKind kind,
           std::function<void(Job&)> change) {
    out_.push_back({axis, text, kind, [change = std::move(change)](Job& job) {
                      const Job before = job;
                      change(job);
                      return settle(job, before) && differs(job, before);
                    }});
  }

  static bool differs(const Job& job, const Job& before) {
    return !(axes_json(job) == axes_json(before) && job.stack == before.stack &&
             job.cluster == before.cluster);
  }

  void recompute() {
    Pins none;
    Job base = job_;
    const Choices choices = choices_of(base, none);
    const std::string before = words_of(job_.recompute);
    for (const RecomputeChoice& choice : choices.recompute) {
      for (const std::int64_t layers :
           choice.full() ? full_layers_of(choices, job_.model.layers, job_.stages())
                         : std::vector<std::int64_t>{0}) {
        Recompute r = choice.recompute;
        r.full_layers = layers;
        add("recompute", "recompute " + words_of(r) + " instead of " + before, ChangeKind::kSwitch,
            [r](Job& job) { job.recompute = r; });
      }
    }
  }

  void sharding() {
    using S = Sharding;
    for (const S s : {S::kNone, S::kOptimizer, S::kGradients, S::kParameters}) {
      if (s == job_.sharding) continue;
      add("sharding",
          std::string("sharding of ") + (s == S::kNone ? "nothing" : name_of(s)) + " instead of " +
              (job_.sharding == S::kNone ? "nothing" : name_of(job_.sharding)),
          ChangeKind::kSwitch, [s](Job& job) {
            job.sharding = s;
            if (s != S::kParameters) job.keeps_gathered = false;
          });
    }
    const std::int64_t data = job_.layout.dp * job_.layout.cp * job_.layout.sp;
    if (job_.sharding == S::kNone) return;
    for (const std::int64_t shards : divisors(data)) {
      if (shards == job_.layout.fsdp_d) continue;
      out_.push_back({"fsdp_d", instead("sharded over", shards, job_.layout.fsdp_d),
                      ChangeKind::kSwitch, [shards](Job& job) {
                        if (job.layout.fsdp_d == shards) return false;
                        job.layout.fsdp_d = shards;
                        const Layout& l = job.layout;
                        return (l.dp * l.cp * l.sp) % shards == 0 &&
                               settle(job, false, job.layout.micro_batch);
                      }});
    }
    if (job_.sharding == S::kParameters && job_.layout.pp == 1) {
      add("keeps_gathered",
          job_.keeps_gathered ? "parameters given back after forward"
                              : "parameters kept gathered until backward",
          ChangeKind::kSwitch, [](Job& job) { job.keeps_gathered = !job.keeps_gathered; });
    }
  }

  void schedules() {
    if (job_.layout.pp == 1) return;
    using P = PipelineSchedule;
    const auto words = [](P schedule, std::int64_t v) {
      std::string text = name_of(schedule);
      if (v > 1) text += " of " + std::to_string(v) + " virtual stages";
      return text;
    };
    for (const P schedule :
         {P::kOneForwardOneBackward, P::kInterleaved, P::kZeroBubble, P::kOverlapped}) {
      const bool chunks = schedule == P::kInterleaved || schedule == P::kOverlapped;
      for (const std::int64_t v :
           chunks ? std::vector<std::int64_t>{1, 2, 4} : std::vector<std::int64_t>{1}) {
        if (schedule == P::kInterleaved && v == 1) continue;
        if (schedule == P::kOverlapped && job_.layout.ep == 1) continue;
        add("schedule",
            "schedule " + words(schedule, v) + " instead of " +
                words(job_.schedule, job_.virtual_stages),
            ChangeKind::kSwitch, [=](Job& job) {
              job.schedule = schedule;
              if (job.virtual_stages != v) job.stage_layers.clear();
              job.virtual_stages = v;
            });
      }
    }
  }

  void micro_batches() {
    const std::int64_t before = job_.layout.micro_batch;
    for (const std::int64_t rows : divisors(job_.global_sequences / job_.layout.dp)) {
      if (rows == before || rows > before * kMostTimes || before > rows * kMostTimes) continue;
      out_.push_back({"micro_batch", instead("micro-batch", rows, before), ChangeKind::kSwitch,
                      [rows](Job& job) { return settle(job, job.layout.replicate_d == 1, rows); }});
    }
  }

  void words() {
    if (job_.layout.tp > 1) {
      add("sequence_parallel",
          job_.sequence_parallel ? "no sequence parallelism" : "sequence parallelism",
          ChangeKind::kSwitch, [](Job& job) { job.sequence_parallel = !job.sequence_parallel; });
    }
    for (const Dispatcher d :
         {Dispatcher::kAllToAll, Dispatcher::kDeduplicated, Dispatcher::kAllGather}) {
      if (job_.layout.ep == 1 || d == job_.dispatcher) continue;
      add("dispatcher",
          std::string("dispatcher ") + name_of(d) + " instead of " + name_of(job_.dispatcher),
          ChangeKind::kSwitch, [d](Job& job) { job.dispatcher = d; });
    }
    for (const ContextExchange x :
         {ContextExchange::kRing, ContextExchange::kAllToAll, ContextExchange::kAllGather}) {
      if (job_.layout.cp == 1 || x == job_.context) continue;
      add("exchange",
          std::string("context exchange ") + name_of(x) + " instead of " + name_of(job_.context),
          ChangeKind::kSwitch, [x](Job& job) { job.context = x; });
    }
  }

  // Layers of the ends of a pipeline dealt to the stages between, since they have the embedding and
  // the head, and the first keeps most micro-batches.
  void stage_layers() {
    const std::int64_t stages = job_.stages(), layers = job_.model.layers;
    if (stages < 2) return;
    if (!job_.stage_layers.empty()) {
      add("stage_layers", "layers dealt out evenly", ChangeKind::kSwitch,
          [](Job& job) { job.stage_layers.clear(); });
    }
    constexpr std::int64_t kMostFewer = 3;
    for (std::int64_t first = 0; first <= kMostFewer; ++first) {
      for (std::int64_t last = 0; last <= kMostFewer; ++last) {
        const std::int64_t even = layers / stages;
        if (first + last == 0 || even <= std::max(first, last)) continue;
        if (stages == 2 && first > 0 && last > 0) continue;  // nobody to take them
        std::vector<std::int64_t> counts(static_cast<std::size_t>(stages), even);
        counts.front() -= first;
        counts.back() -= last;
        std::int64_t left = layers - even * stages + first + last;
        // From the end: later stages keep fewer micro-batches.
        for (std::int64_t i = stages - 1; left > 0; i = i > 0 ? i - 1 : stages - 1) {
          const bool end = i == 0 ? first > 0 : i == stages - 1 && last > 0;
          if (end) continue;
          ++counts[static_cast<std::size_t>(i)];
          --left;
        }
        if (counts == job_.stage_layers) continue;
        std::string text = "layers of the stages";
        for (const std::int64_t count : counts) text += " " + std::to_string(count);
        add("stage_layers", text, ChangeKind::kSwitch,
            [counts](Job& job) { job.stage_layers = counts; });
      }
    }
  }

  void axes() {
    const Layout& l = job_.layout;
    const auto axis = [&](const char* name, std::int64_t Layout::*member, std::int64_t whole) {
      const std::int64_t before = l.*member;
      for (const std::int64_t value : divisors(whole)) {
        if (value == before || value > before * kMostTimes || before > value * kMostTimes) continue;
        add(name, instead(name, value, before), ChangeKind::kAxis, [=](Job& job) {
          const bool had = job.layout.tp > 1;
          job.layout.*member = value;
          if (job.layout.tp > 1 && !had) job.sequence_parallel = true;
          if (member == &Layout::pp) {
            job.stage_layers.clear();
            if (job.stages() > job.model.layers) job.virtual_stages = 1;
            if (job.virtual_stages == 1 && job.schedule == PipelineSchedule::kInterleaved) {
              job.schedule = PipelineSchedule::kOneForwardOneBackward;
            }
          }
        });
      }
    };
    axis("tp", &Layout::tp, job_.cluster.devices);
    axis("pp", &Layout::pp, job_.cluster.devices);
    axis("cp", &Layout::cp, job_.cluster.devices);
    if (!job_.model.is_moe()) return;
    axis("ep", &Layout::ep, job_.model.experts);
    axis("etp", &Layout::etp, job_.cluster.devices);
  }

  void kernels() {
    const auto add_kernel = [&](const char* text, std::function<void(Stack&)> change) {
      add(text, text, ChangeKind::kKernel,
          [change = std::move(change)](Job& job) { change(job.stack); });
    };
    if (!is_flash(job_.stack.attention)) {
      add_kernel("flash attention", [](Stack& s) { s.attention = AttentionKernel::kFlash; });
    }
    if (job_.stack.loss != LossKernel::kChunked) {
      add_kernel("a loss in chunks of rows", [](Stack& s) { s.loss = LossKernel::kChunked; });
    }
    if (!job_.stack.fused_optimizer) {
      add_kernel("a fused optimizer", [](Stack& s) { s.fused_optimizer = true; });
    }
    if (!job_.stack.fused_passes) {
      add_kernel("element-wise operations fused (compiled)",
                 [](Stack& s) { s.fused_passes = true; });
    }
    if (!job_.stack.overlaps_gradients) {
      add_kernel("gradients reduced beside backward",
                 [](Stack& s) { s.overlaps_gradients = true; });
    }
    if (job_.stack.fp32_gradients && job_.precision != Precision::kFp32) {
      add("gradients", "gradients in 16 bit", ChangeKind::kPrecision,
          [](Job& job) { job.stack.fp32_gradients = false; });
    }
    const bool half = job_.precision == Precision::kBf16 || job_.precision == Precision::kFp16;
    if (half && job_.cluster.device.peak_fp8.value() > 0) {
      add("precision", std::string("precision fp8 instead of ") + name_of(job_.precision),
          ChangeKind::kPrecision, [](Job& job) { job.precision = Precision::kFp8; });
    } else if (!half && job_.precision != Precision::kFp8) {
      add("precision", std::string("precision bf16 instead of ") + name_of(job_.precision),
          ChangeKind::kPrecision, [](Job& job) { job.precision = Precision::kBf16; });
    }
  }

  void workload() {
    constexpr std::int64_t kLeastTokens = 512, kMostDevices = std::int64_t{1} << 24;
    for (std::int64_t part = 2; part <= kMostTimes; part *= 2) {
      if (job_.sequence_tokens % part != 0 || job_.sequence_tokens / part < kLeastTokens) break;
      const std::int64_t tokens = job_.sequence_tokens / part;
      add("sequence_tokens",
          "sequences of " + std::to_string(tokens) + " tokens, " + std::to_string(part) +
              " times as many",
          ChangeKind::kWorkload, [=](Job& job) {
            const auto count = static_cast<double>(std::max<std::size_t>(1, job.documents.size()));
            const double mean = static_cast<double>(job.sequence_tokens) / count;
            job.sequence_tokens = tokens;
            job.global_sequences *= part;
            if (!job.documents.empty()) job.documents = equal_documents(tokens, mean);
          });
    }
    for (const std::int64_t times : {2, 4}) {
      add("global_sequences", "a batch " + std::to_string(times) + " times as large",
          ChangeKind::kWorkload, [=](Job& job) { job.global_sequences *= times; });
    }
    if (job_.cluster.devices > kMostDevices) return;
    for (std::int64_t times = 2; times <= kMostTimes; times *= 2) {
      const std::optional<Cluster> more = grown(job_.cluster, job_.cluster.devices * times);
      if (!more) break;
      add("devices", std::to_string(more->devices) + " devices", ChangeKind::kDevices,
          [cluster = *more](Job& job) { job.cluster = cluster; });
    }
  }

  const Job& job_;
  std::vector<Change> out_;
};

}  // namespace

const char* name_of(ChangeKind kind) {
  static constexpr const char* kNames[] = {"switch",    "axis",     "kernel",
                                           "precision", "workload", "devices"};
  return kNames[static_cast<std::size_t>(kind)];
}

std::vector<Change> changes_of(const Job& job) {
  return List(job).all();
}

std::string difference_words(const Job& from, const Job& to, bool olds) {
  std::string text;
  const auto add = [&](const std::string& name, const std::string& mine, const std::string& its) {
    if (mine == its) return;
    text += (text.empty() ? "" : ", ") + name + " " + its;
    if (olds) text += " instead of " + mine;
  };
  const Layout &a = from.layout, &b = to.layout;
  const auto axis = [&](const char* name, std::int64_t mine, std::int64_t its) {
    add(name, std::to_string(mine), std::to_string(its));
  };
  axis("tp", a.tp, b.tp);
  axis("cp", a.cp * a.sp, b.cp * b.sp);
  axis("pp", a.pp, b.pp);
  axis("virtual stages", from.virtual_stages, to.virtual_stages);
  axis("ep", a.ep, b.ep);
  axis("etp", a.etp, b.etp);
  add("sharding of", from.sharding == Sharding::kNone ? "nothing" : name_of(from.sharding),
      to.sharding == Sharding::kNone ? "nothing" : name_of(to.sharding));
  const bool shards = from.sharding != Sharding::kNone && to.sharding != Sharding::kNone;
  if (shards && a.replicate_d != b.replicate_d) axis("sharded over", a.fsdp_d, b.fsdp_d);
  axis("micro-batch", a.micro_batch, b.micro_batch);
  add("recompute", words_of(from.recompute), words_of(to.recompute));
  if (b.pp > 1) add("schedule", name_of(from.schedule), name_of(to.schedule));
  if (a.ep > 1 && b.ep > 1) add("dispatcher", name_of(from.dispatcher), name_of(to.dispatcher));
  if (a.cp > 1 && b.cp > 1) add("exchange", name_of(from.context), name_of(to.context));
  if (a.tp > 1 && b.tp > 1) {
    add("sequence parallelism", from.sequence_parallel ? "on" : "off",
        to.sequence_parallel ? "on" : "off");
  }
  add("precision", name_of(from.precision), name_of(to.precision));
  return text;
}

std::optional<Cluster> grown(const Cluster& cluster, std::int64_t devices) {
  if (const std::size_t x = cluster.name.rfind('x'); x != std::string::npos) {
    const std::string name = cluster.name.substr(0, x + 1) + std::to_string(devices);
    const Result<Cluster> larger = load_cluster(name);
    if (larger.ok() && larger.value().device == cluster.device) return larger.value();
  }
  if (cluster.tiers.size() < 2) return std::nullopt;
  Cluster out = cluster;
  out.devices = devices;
  return out;
}

}  // namespace orrery::planner::jobs
