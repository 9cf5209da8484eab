// Lists of axis values. See choices.h.
#include "planner/jobs/choices.h"

#include <algorithm>

namespace orrery::planner::jobs {
namespace {

constexpr std::int64_t kMostListed = 4096;  // of any axis but data
constexpr std::int64_t kMostVirtual = 8;
constexpr std::int64_t kLeastRows = 256;
constexpr std::int64_t kMostMicroTokens = 65536;

struct NamedModules {
  const char* name;
  std::vector<Module> modules;
};

// What published runs name alone or together. Full recompute and Recompute::ops come behind.
const std::vector<NamedModules>& module_sets() {
  static const std::vector<NamedModules> kSets = {
      {"none", {}},
      {"core_attention", {Module::kCoreAttention}},
      {"activations", {Module::kNorm, Module::kLatentUp, Module::kExpertActivation}},
      {"activations+core_attention",
       {Module::kNorm, Module::kLatentUp, Module::kExpertActivation, Module::kCoreAttention}},
      {"feed_forward",
       {Module::kMlp, Module::kExperts, Module::kExpertActivation, Module::kSharedExperts}},
  };
  return kSets;
}

std::vector<RecomputeChoice> all_recomputes() {
  std::vector<RecomputeChoice> out;
  for (const NamedModules& set : module_sets()) {
    RecomputeChoice choice{set.name, {}};
    for (const Module m : set.modules) {
      choice.recompute.modules[static_cast<std::size_t>(m)] = true;
    }
    out.push_back(std::move(choice));
  }
  RecomputeChoice ops{"ops", {}};
  ops.recompute.ops = true;
  out.push_back(ops);
  RecomputeChoice full{"full", {}};
  full.recompute.full = true;
  out.push_back(full);
  return out;
}

std::vector<std::int64_t> list_or(const std::optional<std::int64_t>& pinned,
                                  std::vector<std::int64_t> list) {
  if (pinned) return {*pinned};
  list.erase(std::remove_if(list.begin(), list.end(),
                            [](std::int64_t value) { return value > kMostListed; }),
             list.end());
  return list;
}

template <class Enum>
std::vector<Enum> words_or(const std::optional<std::string>& pinned, std::vector<Enum> list,
                           std::initializer_list<Enum> all) {
  if (!pinned) return list;
  for (const Enum value : all) {
    if (*pinned == name_of(value)) return {value};
  }
  return list;
}

std::vector<bool> flags_or(const std::optional<std::string>& pinned) {
  if (!pinned) return {false, true};
  return {*pinned == "true"};
}

void choose_words(const Job& base, const Pins& pins, Choices& c) {
  c.sequence_parallel = flags_or(pins.word("sequence_parallel"));
  c.keeps_gathered = flags_or(pins.word("keeps_gathered"));
  using X = ContextExchange;
  c.exchange = words_or(pins.word("exchange"), {X::kRing, X::kAllGather},
                        {X::kRing, X::kAllToAll, X::kAllGather});
  c.precision = pins.precisions();
  if (c.precision.empty()) c.precision = {base.precision};
  using D = Dispatcher;
  std::vector<D> dispatchers = {D::kAllToAll, D::kAllGather};
  // A dispatcher of its own kind (DeepEP): where the stack has it.
  if (base.stack.dispatcher == name_of(D::kDeduplicated)) {
    dispatchers.insert(dispatchers.begin() + 1, D::kDeduplicated);
  }
  c.dispatcher = words_or(pins.word("dispatcher"), dispatchers,
                          {D::kAllToAll, D::kDeduplicated, D::kAllGather});
  using P = PipelineSchedule;
  const auto schedules = {P::kOneForwardOneBackward, P::kGpipe, P::kInterleaved, P::kZeroBubble,
                          P::kOverlapped};
  c.schedule = words_or(pins.word("schedule"), std::vector<P>(schedules), schedules);
  using S = Sharding;
  const auto shardings = {S::kNone, S::kOptimizer, S::kGradients, S::kParameters};
  c.sharding = words_or(pins.word("sharding"), std::vector<S>(shardings), shardings);
  using L = Deal;
  const auto deals = {L::kEven, L::kLast, L::kFirst, L::kEnds, L::kBalanced};
  c.deal = words_or(pins.word("stage_layers"), std::vector<L>(deals), deals);
  c.recompute = all_recomputes();
  if (const auto pinned = pins.word("recompute")) c.recompute = {*recompute_named(*pinned)};
}

}  // namespace

std::vector<std::string> recompute_names() {
  std::vector<std::string> names;
  for (const RecomputeChoice& choice : all_recomputes()) names.push_back(choice.name);
  return names;
}

std::optional<RecomputeChoice> recompute_named(const std::string& name) {
  for (RecomputeChoice& choice : all_recomputes()) {
    if (choice.name == name) return std::move(choice);
  }
  RecomputeChoice choice{name, {}};
  for (std::size_t at = 0; at <= name.size();) {
    const std::size_t plus = std::min(name.find('+', at), name.size());
    const std::string word = name.substr(at, plus - at);
    bool known = false;
    for (int m = 0; m < kNumModules; ++m) {
      if (word != name_of(static_cast<Module>(m))) continue;
      choice.recompute.modules[static_cast<std::size_t>(m)] = known = true;
    }
    if (!known) return std::nullopt;
    at = plus + 1;
  }
  return choice;
}

std::vector<std::int64_t> divisors(std::int64_t whole) {
  std::vector<std::int64_t> low, high;
  for (std::int64_t d = 1; d * d <= whole; ++d) {
    if (whole % d != 0) continue;
    low.push_back(d);
    if (d != whole / d) high.push_back(whole / d);
  }
  low.insert(low.end(), high.rbegin(), high.rend());
  return low;
}

Choices choices_of(const Job& base, const Pins& pins) {
  Choices c;
  const std::vector<std::int64_t> of_world = divisors(base.cluster.devices);
  c.tp = list_or(pins.number("tp"), of_world);
  c.cp = list_or(pins.number("cp"), of_world);
  c.sp = list_or(pins.number("sp"), of_world);
  c.pp = list_or(pins.number("pp"), of_world);
  const bool moe = base.model.is_moe();
  using List = std::vector<std::int64_t>;
  c.ep = list_or(pins.number("ep"), moe ? divisors(base.model.experts) : List{1});
  c.etp = list_or(pins.number("etp"), moe ? of_world : List{1});
  c.micro_batch = list_or(pins.number("micro_batch"), divisors(base.global_sequences));
  List chunks;
  for (std::int64_t v = 1; v <= kMostVirtual; ++v) chunks.push_back(v);
  c.virtual_stages = list_or(pins.number("virtual_stages"), chunks);
  c.dp = pins.number("dp").value_or(0);
  c.fsdp_d = pins.number("fsdp_d").value_or(0);
  c.replicate_d = pins.number("replicate_d").value_or(0);
  c.full_layers = pins.number("full_layers").value_or(0);
  const std::int64_t domain = std::max<std::int64_t>(1, base.cluster.tiers.front().domain);
  const bool free_tensor = !pins.number("tp") && !pins.number("etp");
  c.most_tensor = free_tensor && base.cluster.tiers.size() > 1 ? domain : base.cluster.devices;
  c.least_rows =
      pins.number("cp") || pins.number("sp") ? 1 : std::min(kLeastRows, base.sequence_tokens);
  c.most_micro_batch =
      pins.number("micro_batch")
          ? base.global_sequences
          : std::max<std::int64_t>(
                1, kMostMicroTokens / std::max<std::int64_t>(1, base.sequence_tokens));
  choose_words(base, pins, c);
  return c;
}

std::vector<PipelineSchedule> schedules_of(const Choices& choices, std::int64_t pp,
                                           std::int64_t virtual_stages, std::int64_t ep) {
  using P = PipelineSchedule;
  if (pp == 1) {
    const P only = P::kOneForwardOneBackward;
    const bool listed =
        std::find(choices.schedule.begin(), choices.schedule.end(), only) != choices.schedule.end();
    if (virtual_stages > 1 || !listed) return {};
    return {only};
  }
  std::vector<P> out;
  for (const P schedule : choices.schedule) {
    const bool chunks = schedule == P::kInterleaved || schedule == P::kOverlapped;
    // Overlapped is the same as the others but for exchanges of experts.
    if (schedule == P::kOverlapped && ep == 1) continue;
    if (schedule == P::kInterleaved && virtual_stages == 1) continue;
    if (chunks || virtual_stages == 1) out.push_back(schedule);
  }
  return out;
}

std::vector<std::int64_t> full_layers_of(const Choices& choices, std::int64_t layers,
                                         std::int64_t stages) {
  if (choices.full_layers > 0) return {choices.full_layers};
  const std::int64_t own = (layers + stages - 1) / stages;
  std::vector<std::int64_t> out;
  constexpr std::int64_t kParts = 8;
  for (std::int64_t i = 1; i < std::min(own, kParts); ++i) {
    out.push_back(own <= kParts ? i : (i * own + kParts / 2) / kParts);
  }
  out.push_back(0);
  return out;
}

std::vector<std::int64_t> depths_of(const Choices& choices, std::size_t recompute,
                                    std::int64_t layers, std::int64_t stages) {
  if (!choices.recompute[recompute].full()) return {0};
  return full_layers_of(choices, layers, stages);
}

std::vector<ShardingChoice> shardings_of(const Choices& choices, std::int64_t data,
                                         std::int64_t pp) {
  std::vector<ShardingChoice> out;
  const auto allowed = [&](std::int64_t shards) {
    return (choices.fsdp_d == 0 || choices.fsdp_d == shards) &&
           (choices.replicate_d == 0 || choices.replicate_d * shards == data);
  };
  const std::vector<std::int64_t> shards = divisors(data);
  for (const Sharding sharding : choices.sharding) {
    if (sharding == Sharding::kNone) {
      if (allowed(data)) out.push_back({sharding, data, false});
      continue;
    }
    for (const std::int64_t d : shards) {
      if (!allowed(d)) continue;
      for (const bool keeps : choices.keeps_gathered) {
        // Between stages parameters are gathered once a step.
        if (keeps && (sharding != Sharding::kParameters || pp > 1)) continue;
        out.push_back({sharding, d, keeps});
      }
    }
  }
  return out;
}

}  // namespace orrery::planner::jobs
