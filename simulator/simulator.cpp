// Simulation: durations from the costs, the clock's replay, memory, breakdown and events.
#include "simulator/simulator.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string>

#include "core/clock/clock.h"
#include "simulator/binding.h"
#include "simulator/breakdown.h"
#include "simulator/document_cost.h"
#include "simulator/op_cost.h"

namespace orrery::simulator {
namespace {

struct RankInput {
  std::int32_t rank = 0;
  const Role* role = nullptr;
  Binding binding;
};

// All ranks of a small world. Of a large one: one rank where all do the same, or one expert group
// where loads are drawn, whose slowest member every collective then waits for.
std::vector<std::int32_t> ranks_to_replay(const Plan& plan, const Program& program) {
  std::vector<std::int32_t> ranks;
  if (program.world <= kMaxUnfolded) {
    for (std::int32_t r = 0; r < program.world; ++r) ranks.push_back(r);
    return ranks;
  }
  const Group& ep = program.ep_group();
  const bool drawn = plan.workload.expert_load_cv > 0 && plan.model.is_moe();
  for (std::int32_t i = 0; i < (drawn ? ep.size : 1); ++i) ranks.push_back(i * ep.stride);
  return ranks;
}

Result<std::vector<RankInput>> inputs_of(const Plan& plan, const Program& program,
                                         const Options& options) {
  std::vector<RankInput> inputs;
  if (options.bindings.empty()) {
    const Loads loads = draw_loads(plan, program.roles[0], options.seed);
    for (const std::int32_t r : ranks_to_replay(plan, program)) {
      inputs.push_back({r, &program.role_of(r), binding_of(plan, program, r, loads)});
    }
    return inputs;
  }
  for (const Binding& b : options.bindings) {
    const std::string reason = misfit(plan, program, b);
    if (!reason.empty()) {
      return Error::of(ErrorCode::kInvalid, "binding of rank " + std::to_string(b.rank),
                       "does not fit the program: " + reason, "bind a run of this very plan");
    }
    inputs.push_back({b.rank, &program.role_of(b.rank), b});
  }
  std::sort(inputs.begin(), inputs.end(),
            [](const RankInput& a, const RankInput& b) { return a.rank < b.rank; });
  for (std::size_t i = 1; i < inputs.size(); ++i) {
    if (inputs[i].rank != inputs[i - 1].rank) continue;
    return Error::of(ErrorCode::kInvalid, "binding of rank " + std::to_string(inputs[i].rank),
                     "is there twice", "give the bindings of one step");
  }
  return inputs;
}

std::vector<MemoryRow> memory_rows(const std::vector<std::int64_t>& by_class) {
  std::vector<MemoryRow> rows;
  for (std::size_t c = 0; c < by_class.size(); ++c) {
    rows.push_back({name_of(static_cast<BufferClass>(c)), Bytes(by_class[c])});
  }
  return rows;
}

void add_memory_events(const RankInput& input, const std::vector<OpTimes>& times,
                       const MemoryTimeline& timeline, TraceEvents& events) {
  const Role& role = *input.role;
  for (std::size_t b = 0; b < role.buffers.size(); ++b) {
    const Buffer& buffer = role.buffers[b];
    if (buffer.taken_by < 0) continue;
    const std::int64_t bytes = buffer.bytes.eval(input.binding.values, buffer.vars);
    const auto cls =
        buffer.space == MemorySpace::kHost ? kHostClass : static_cast<std::int32_t>(buffer.cls);
    events.allocs.push_back({input.rank, 0, buffer.taken_by, cls,
                             times[static_cast<std::size_t>(buffer.taken_by)].posted_ns, bytes});
    events.allocs.push_back({input.rank, 0, buffer.freed_by, cls,
                             times[static_cast<std::size_t>(buffer.freed_by)].end_ns, -bytes});
  }
  events.peaks.push_back({input.rank, 0, -1, timeline.peak});
  for (std::size_t c = 0; c < timeline.class_peaks.size(); ++c) {
    events.peaks.push_back({input.rank, 0, static_cast<std::int32_t>(c), timeline.class_peaks[c]});
  }
  if (timeline.host_peak > 0) {
    events.peaks.push_back({input.rank, 0, kHostClass, timeline.host_peak});
  }
}

void add_events(const Plan& plan, const Program& program, const RankInput& input,
                const std::vector<OpTimes>& times, std::int64_t end_ns, TraceEvents& events) {
  StepEvent step;
  step.rank = input.rank;
  step.end_ns = end_ns;
  step.tokens = plan.workload.global_tokens();
  // A simulation computes no values: nothing was measured here.
  step.loss = step.balance_loss = step.z_loss = step.grad_norm = step.lr =
      std::numeric_limits<double>::quiet_NaN();
  events.steps.push_back(step);
  std::array<std::vector<std::int64_t>, kNumLanes> sequence;
  for (auto& counts : sequence) counts.assign(program.groups.size(), 0);
  for (std::size_t i = 0; i < input.role->ops.size(); ++i) {
    const Op& op = input.role->ops[i];
    const OpTimes& t = times[i];
    const auto id = static_cast<std::int32_t>(i);
    events.spans.push_back({input.rank, 0, id, t.posted_ns, t.start_ns, t.end_ns});
    if (!is_collective(op.kind) || op.lane == Lane::kCompute) continue;
    const WireBytes wire = wire_bytes(program, *input.role, op, input.rank, input.binding.values);
    std::int64_t& number =
        sequence[static_cast<std::size_t>(op.lane)][static_cast<std::size_t>(op.group)];
    events.collectives.push_back({input.rank, 0, id, op.group, number++, t.posted_ns, t.start_ns,
                                  t.end_ns, wire.sent, wire.received});
  }
  events.bindings.push_back(input.binding);
}

Prediction predict(const Plan& plan, const Simulation& s) {
  Prediction p;
  p.step = to_seconds(s.step);
  // Until runs of this device have been compared, the profile says how far it may be off.
  p.p10 = Seconds(p.step.value() * (1 - plan.cluster.uncertainty));
  p.p90 = Seconds(p.step.value() * (1 + plan.cluster.uncertainty));
  p.peak = s.peak;
  p.memory = s.at_peak;
  const auto tokens = static_cast<double>(plan.workload.global_tokens());
  const double attended = static_cast<double>(plan.workload.pairs_per_sequence()) /
                          static_cast<double>(plan.workload.sequence_tokens);
  p.tokens_per_s = tokens / p.step.value();
  p.mfu = p.tokens_per_s * training_flops_per_token(plan.model, attended) /
          (static_cast<double>(plan.cluster.devices) *
           plan.cluster.device.peak(plan.workload.compute).value());
  return p;
}

}  // namespace

Result<Simulation> simulate(const Plan& plan, const Program& program, const Options& options) {
  TRY(const std::vector<RankInput> inputs, inputs_of(plan, program, options));
  std::vector<RankDurations> durations;
  for (const RankInput& input : inputs) {
    durations.push_back(
        rank_durations(plan.cluster, program, *input.role, input.rank, input.binding.values));
  }
  const auto replayed = static_cast<std::int32_t>(inputs.size());
  const Replay run = replay(program, durations, clock_rates(plan.cluster, replayed));
  Simulation s;
  s.step = run.end;
  std::vector<std::int64_t> class_peaks(kNumBufferClasses, 0);
  for (std::size_t r = 0; r < inputs.size(); ++r) {
    s.ranks.push_back(breakdown(*inputs[r].role, inputs[r].rank, run.times[r], run.end));
    const MemoryTimeline timeline = memory_timeline(*inputs[r].role, inputs[r].binding.values);
    if (timeline.peak > s.peak.value()) {
      s.peak = Bytes(timeline.peak);
      s.peak_rank = inputs[r].rank;
      s.at_peak = memory_rows(timeline.at_peak);
    }
    s.host_peak = std::max(s.host_peak, Bytes(timeline.host_peak));
    for (std::size_t c = 0; c < class_peaks.size(); ++c) {
      class_peaks[c] = std::max(class_peaks[c], timeline.class_peaks[c]);
    }
    if (options.events) {
      add_events(plan, program, inputs[r], run.times[r], run.end.value(), s.events);
      add_memory_events(inputs[r], run.times[r], timeline, s.events);
    }
  }
  s.class_peaks = memory_rows(class_peaks);
  s.prediction = predict(plan, s);
  if (options.document_cost) s.prediction.document_cost = document_cost(plan);
  return s;
}

}  // namespace orrery::simulator
