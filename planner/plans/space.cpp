// Enumeration: layouts by the divisors of the world, the experts and the batch; chunks by the
// powers of two; recompute by every depth, with and without the host's memory. A pin replaces the
// list of its axis, so a pinned value need not be in it.
#include "planner/plans/space.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <optional>
#include <set>
#include <utility>

namespace orrery::planner {
namespace {

// Smaller chunks only add launches: a chunk of so many rows is small beside a layer's tape.
constexpr std::int64_t kLeastChunk = 512, kLeastChunkOfShortRows = 64;

using Pair = std::pair<std::int64_t, std::int64_t>;
using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t>;

std::int64_t share(std::int64_t whole, std::int64_t part) {
  return part > 0 ? std::max<std::int64_t>(1, whole / part) : 1;
}

// Factors (a, b) with a x b = whole, as far as the pins let them.
std::vector<Pair> factor_pairs(std::int64_t whole, std::optional<std::int64_t> a,
                               std::optional<std::int64_t> b) {
  if (a && b) return {{*a, *b}};
  if (a) return {{*a, share(whole, *a)}};
  if (b) return {{share(whole, *b), *b}};
  std::vector<Pair> pairs;
  for (const std::int64_t d : divisors(whole)) pairs.emplace_back(d, whole / d);
  return pairs;
}

// Whole (0), then the powers of two below the whole, the largest first. A chunk as large as the
// whole is the same program as no chunk.
std::vector<std::int64_t> chunk_sizes(std::int64_t whole, std::int64_t sequence) {
  std::vector<std::int64_t> sizes;
  const std::int64_t least = sequence > kLeastChunk ? kLeastChunk : kLeastChunkOfShortRows;
  for (std::int64_t rows = least; rows < whole; rows *= 2) sizes.push_back(rows);
  sizes.push_back(0);
  std::reverse(sizes.begin(), sizes.end());
  return sizes;
}

Key key_of(const Layout& l, bool parts) {
  return {l.micro_batch, l.sp, parts ? l.ep : 0};
}

class Enumeration {
 public:
  Enumeration(const Request& request, Pins pins)
      : request_(request), pins_(std::move(pins)), policies_(policies()) {
    space_.chunks_by_ep = pins_.get("exchange_parts", 1) > 1;
    for (const auto& line : policies_) lines_ += static_cast<std::int64_t>(line.size());
  }

  Result<Space> run() {
    std::vector<Pair> data = factor_pairs(world(), pins_.get("dp"), pins_.get("sp"));
    std::reverse(data.begin(), data.end());  // whole sequences first
    for (const auto& [dp, sp] : data) {
      for (const auto& [micro_batch, accumulation] : batches(dp)) {
        layouts_of(dp, sp, micro_batch, accumulation);
      }
    }
    if (space_.legal == 0) return nothing_legal();
    for (const auto& [rule, count] : rejected_) space_.rejected.push_back({rule, count});
    space_.pins = std::move(pins_);
    return std::move(space_);
  }

 private:
  // Every split of the batch, also those that do not come out even: the rule counts them.
  std::vector<Pair> batches(std::int64_t dp) const {
    const std::int64_t domino = std::max<std::int64_t>(1, pins_.get("domino", 1));
    const std::int64_t per_rank = share(share(request_.workload.global_sequences, dp), domino);
    const auto micro_batch = pins_.get("micro_batch"), accumulation = pins_.get("accumulation");
    if (micro_batch || accumulation) return factor_pairs(per_rank, micro_batch, accumulation);
    std::vector<Pair> pairs;
    for (const std::int64_t d : divisors(request_.workload.global_sequences)) {
      pairs.emplace_back(d, share(per_rank, d));
    }
    return pairs;
  }

  void layouts_of(std::int64_t dp, std::int64_t sp, std::int64_t micro_batch,
                  std::int64_t accumulation) {
    Layout base;
    base.dp = dp;
    base.cp = pins_.get("cp", 1);
    base.sp = sp;
    base.tp = pins_.get("tp", 1);
    base.pp = pins_.get("pp", 1);
    base.etp = pins_.get("etp", 1);
    base.micro_batch = micro_batch;
    base.accumulation = accumulation;
    std::vector<Layout> layouts;
    for (const Layout& dense : dense_layouts(base)) {
      for (const std::string& dispatcher : pins_.words("dispatcher", {base.dispatcher})) {
        std::vector<Layout> full = expert_layouts(dense);
        for (Layout& l : full) l.dispatcher = dispatcher;
        layouts.insert(layouts.end(), full.begin(), full.end());
      }
    }
    const std::vector<Chunks> all = chunks_of(base);
    // Batch and heads are the same for all of these.
    if (const auto broken = broken_rule(layouts.front(), {chunks_of_batch(), {}}, 0, true)) {
      const std::int64_t count = static_cast<std::int64_t>(layouts.size() * all.size()) * lines_;
      space_.enumerated += count;
      rejected_[*broken] += count;
      return;
    }
    for (const Layout& layout : layouts) consider(layout, all);
  }

  std::vector<Layout> dense_layouts(const Layout& base) const {
    std::vector<Layout> out;
    for (const auto& [replicate, fsdp] :
         factor_pairs(world(), pins_.get("replicate_d"), pins_.get("fsdp_d"))) {
      Layout l = base;
      l.replicate_d = replicate;
      l.fsdp_d = fsdp;
      const bool both = replicate > 1 && fsdp > 1;
      for (const std::string& inner :
           pins_.words("dense_inner", both ? std::vector<std::string>{"fsdp", "replicate"}
                                           : std::vector<std::string>{"fsdp"})) {
        l.dense_inner = inner;
        out.push_back(l);
      }
    }
    return out;
  }

  std::vector<std::int64_t> expert_degrees() const {
    if (!request_.model.is_moe()) return {1};
    std::set<std::int64_t> degrees;
    for (const std::int64_t d : divisors(request_.model.experts)) degrees.insert(d);
    for (const std::int64_t d : divisors(world())) degrees.insert(d);
    return {degrees.begin(), degrees.end()};
  }

  std::vector<Layout> expert_layouts(const Layout& base) const {
    std::vector<Layout> out;
    const auto replicate = pins_.get("replicate_e"), fsdp = pins_.get("fsdp_e");
    for (const std::int64_t ep : pins_.list("ep", expert_degrees())) {
      std::vector<Pair> pairs = factor_pairs(share(world(), ep), replicate, fsdp);
      // The expert axes of a dense model shape nothing.
      if (!request_.model.is_moe()) pairs = {{replicate.value_or(1), fsdp.value_or(world())}};
      for (const auto& [r, f] : pairs) {
        Layout l = base;
        l.ep = ep;
        l.replicate_e = r;
        l.fsdp_e = f;
        const bool both = ep > 1 && f > 1;
        for (const std::string& inner :
             pins_.words("expert_inner", both ? std::vector<std::string>{"ep", "fsdp"}
                                              : std::vector<std::string>{"ep"})) {
          l.expert_inner = inner;
          out.push_back(l);
        }
      }
    }
    return out;
  }

  // What the batch depends on, of the chunks.
  Chunks chunks_of_batch() const {
    Chunks chunks;
    chunks.domino = pins_.get("domino", chunks.domino);
    return chunks;
  }

  std::vector<Chunks> chunks_of(const Layout& l) const {
    const std::int64_t sequence = request_.workload.sequence_tokens;
    const std::int64_t rows = l.sp > 0 ? (sequence + l.sp - 1) / l.sp : sequence;
    const std::vector<std::int64_t> loss = chunk_sizes(l.micro_batch * rows, sequence);
    const std::vector<std::int64_t> query = chunk_sizes(sequence, sequence);
    Chunks chunks = chunks_of_batch();
    chunks.gather_layers = pins_.get("gather_layers", chunks.gather_layers);
    chunks.exchange_parts = pins_.get("exchange_parts", chunks.exchange_parts);
    std::vector<Chunks> out;
    for (const std::int64_t tokens : pins_.list("loss_tokens", loss)) {
      for (const std::int64_t q : pins_.list("attention_query", query)) {
        for (const std::int64_t p : pins_.list("prefetch_depth", {1, 2, 0})) {
          chunks.loss_tokens = tokens;
          chunks.attention_query = q;
          chunks.prefetch_depth = p;
          out.push_back(chunks);
        }
      }
    }
    return out;
  }

  // Any number of layers may be run again; their inputs stay here or all go to the host.
  std::vector<std::vector<MemoryPolicy>> policies() const {
    std::vector<std::int64_t> depths(static_cast<std::size_t>(request_.model.layers + 1));
    std::iota(depths.begin(), depths.end(), 0);
    depths = pins_.list("recompute_layers", depths);
    MemoryPolicy p;
    p.recompute_attention = pins_.get("recompute_attention", 0);
    p.recompute_ffn = pins_.get("recompute_ffn", 0);
    p.recompute_experts = pins_.get("recompute_experts", 0);
    p.keep_layers = pins_.get("keep_layers", 0);
    p.swap_distance = pins_.get("swap_distance", p.swap_distance);
    const bool free_swap = !pins_.has("swap_layers");
    const auto fixed_swap = pins_.get("swap_layers");
    std::vector<std::vector<MemoryPolicy>> lines;
    for (const std::string& host : pins_.words("host_optimizer", {"false", "true"})) {
      p.host_optimizer = host == "true";
      for (const bool swap : free_swap ? std::vector<bool>{false, true} : std::vector<bool>{true}) {
        std::vector<MemoryPolicy> line;
        for (const std::int64_t depth : depths) {
          if (free_swap && swap && depth == 0) continue;  // the same as without
          p.recompute_layers = depth;
          p.swap_layers = swap ? fixed_swap.value_or(depth) : 0;
          line.push_back(p);
        }
        lines.push_back(std::move(line));
      }
    }
    return lines;
  }

  // Counts the candidates of a layout. Its own rules are looked at once, those of its chunks once a
  // micro-batch and sp, those of policies once: no rule spans two of them but through these.
  void consider(const Layout& layout, const std::vector<Chunks>& all) {
    const std::int64_t count = static_cast<std::int64_t>(all.size()) * lines_;
    space_.enumerated += count;
    if (const auto broken = broken_rule(layout, {chunks_of_batch(), {}}, 0)) {
      rejected_[*broken] += count;
      return;
    }
    const Key key = key_of(layout, space_.chunks_by_ep);
    if (space_.chunks.count(key) == 0) legal_chunks(layout, all, key);
    for (const auto& [rule, times] : broken_chunks_[key]) rejected_[rule] += times * lines_;
    const auto left = static_cast<std::int64_t>(space_.chunks.at(key).size());
    if (left == 0) return;
    if (!looked_) legal_policies(layout);
    for (const auto& [rule, times] : broken_policies_) rejected_[rule] += left * times;
    space_.legal += left * space_.policy_count();
    if (!space_.policies.empty()) space_.layouts.push_back(layout);
  }

  void legal_chunks(const Layout& layout, const std::vector<Chunks>& all, const Key& key) {
    std::vector<Chunks>& legal = space_.chunks[key];
    std::map<std::string, std::int64_t>& broken = broken_chunks_[key];
    for (const Chunks& c : all) {
      const auto rule = broken_rule(layout, {c, {}}, 1);
      if (rule) ++broken[*rule];
      if (!rule) legal.push_back(c);
    }
  }

  void legal_policies(const Layout& layout) {
    looked_ = true;
    for (const std::vector<MemoryPolicy>& line : policies_) {
      std::vector<MemoryPolicy> legal;
      for (const MemoryPolicy& p : line) {
        const auto rule = broken_rule(layout, {chunks_of_batch(), p}, 2);
        if (rule) ++broken_policies_[*rule];
        if (!rule) legal.push_back(p);
      }
      if (!legal.empty()) space_.policies.push_back(std::move(legal));
    }
  }

  // `stage`: what is looked at, a layout (0), its chunks (1) or its policy (2). With `of_batch`,
  // only the rules of batch and heads count.
  std::optional<std::string> broken_rule(const Layout& layout, const Choice& choice,
                                         std::size_t stage, bool of_batch = false) {
    const std::vector<Violation> found = violations(
        request_.model, request_.cluster, request_.workload, layout, choice.chunks, choice.policy);
    const auto counts = std::find_if(found.begin(), found.end(), [&](const Violation& v) {
      return !of_batch || v.rule == "batch_divides" || v.rule == "heads_divide";
    });
    if (counts == found.end()) return std::nullopt;
    std::vector<Violation>& least = least_[stage];
    if (least.empty() || found.size() < least.size()) least = found;
    return counts->rule;
  }

  Error nothing_legal() const {
    Error error;
    error.code = ErrorCode::kInfeasible;
    const std::int64_t batch = request_.workload.global_sequences, ranks = world();
    // The chunks were looked at only where a layout is legal, policies only where chunks are too.
    const std::size_t stage = looked_ ? 2 : (space_.chunks.empty() ? 0 : 1);
    for (const Violation& v : least_[stage]) {
      std::string hint;
      if (v.rule == "batch_divides" && batch % ranks != 0) {
        const std::int64_t below = batch / ranks * ranks;
        hint = "a batch of " + (below > 0 ? std::to_string(below) + " or " : "") +
               std::to_string(below + ranks) + " sequences divides over " + std::to_string(ranks) +
               " devices";
      } else if (v.rule == "engine_family") {
        hint = "`orrery list models` shows which are simulated only";
      } else if (pins_.any()) {
        hint = "drop or change the pin";
      }
      error.problems.push_back({v.rule, v.reason, hint});
    }
    return error;
  }

  std::int64_t world() const { return request_.cluster.devices; }

  const Request& request_;
  Pins pins_;
  const std::vector<std::vector<MemoryPolicy>> policies_;
  std::int64_t lines_ = 0;  // policies in all lines
  Space space_;
  std::map<std::string, std::int64_t> rejected_;
  std::map<Key, std::map<std::string, std::int64_t>> broken_chunks_;
  std::map<std::string, std::int64_t> broken_policies_;
  bool looked_ = false;  // at the policies
  // By stage: of the candidate that breaks the fewest rules.
  std::array<std::vector<Violation>, 3> least_;
};

}  // namespace

const std::vector<Chunks>& Space::chunks_of(const Layout& layout) const {
  return chunks.at(key_of(layout, chunks_by_ep));
}

std::int64_t Space::policy_count() const {
  std::int64_t count = 0;
  for (const auto& line : policies) count += static_cast<std::int64_t>(line.size());
  return count;
}

std::vector<std::int64_t> divisors(std::int64_t n) {
  std::vector<std::int64_t> low, high;
  for (std::int64_t d = 1; d * d <= n; ++d) {
    if (n % d != 0) continue;
    low.push_back(d);
    if (d != n / d) high.push_back(n / d);
  }
  low.insert(low.end(), high.rbegin(), high.rend());
  return low;
}

Result<Space> enumerate(const Request& request) {
  TRY(Pins pins, Pins::parse(request));
  return Enumeration(request, std::move(pins)).run();
}

}  // namespace orrery::planner
