// Enumeration: layouts by the divisors of the world, the experts and the batch; chunks by the
// powers of two; recompute by every depth. A pin replaces the list of its axis, so a pinned value
// need not be in it.
#include "planner/space.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <numeric>
#include <optional>
#include <set>
#include <utility>

#include "core/quantity.h"

namespace orrery::planner {
namespace {

// Smaller chunks only add launches: a chunk of so many rows is small beside a layer's tape.
constexpr std::int64_t kLeastChunk = 512, kLeastChunkOfShortRows = 64;

const std::vector<std::string>& numeric_pins() {
  static const std::vector<std::string> kNames = {"dp",
                                                  "cp",
                                                  "sp",
                                                  "tp",
                                                  "pp",
                                                  "replicate_d",
                                                  "fsdp_d",
                                                  "replicate_e",
                                                  "fsdp_e",
                                                  "ep",
                                                  "etp",
                                                  "micro_batch",
                                                  "accumulation",
                                                  "loss_tokens",
                                                  "attention_query",
                                                  "prefetch_depth",
                                                  "recompute_layers"};
  return kNames;
}

const std::vector<std::string>& order_pins() {
  static const std::vector<std::string> kNames = {"dense_inner", "expert_inner"};
  return kNames;
}

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// The request's pins, read.
class Pins {
 public:
  static Result<Pins> parse(const Request& request) {
    Pins pins;
    Error error;
    error.code = ErrorCode::kUsage;
    for (const auto& [name, text] : request.pins) {
      const std::string where = "--pin " + name;
      if (pins.numbers_.count(name) + pins.orders_.count(name) > 0) {
        error.problems.push_back({where, "is given twice", "keep one"});
      } else if (contains(order_pins(), name)) {
        const std::vector<std::string> values = {"fsdp",
                                                 name == "dense_inner" ? "replicate" : "ep"};
        if (contains(values, text)) pins.orders_[name] = text;
        if (!contains(values, text)) {
          error.problems.push_back({where, "'" + text + "' is not an axis of it",
                                    "write '" + values[0] + "' or '" + values[1] + "'"});
        }
      } else if (!contains(numeric_pins(), name)) {
        const std::string close = nearest(name, pinnable());
        error.problems.push_back({where, "is no axis or chunk of a plan",
                                  close.empty() ? "" : "did you mean '" + close + "'?"});
      } else {
        const bool all = name == "recompute_layers" && text == "all";
        const std::optional<std::int64_t> value =
            all ? std::optional<std::int64_t>(request.model.layers) : number(text);
        if (value) pins.numbers_[name] = *value;
        if (!value) {
          error.problems.push_back({where, "'" + text + "' is not a whole number", "--pin ep=8"});
        }
      }
    }
    if (!error.problems.empty()) return error;
    return pins;
  }

  std::optional<std::int64_t> get(const char* name) const {
    const auto found = numbers_.find(name);
    if (found == numbers_.end()) return std::nullopt;
    return found->second;
  }
  std::int64_t get(const char* name, std::int64_t otherwise) const {
    return get(name).value_or(otherwise);
  }
  std::vector<std::int64_t> list(const char* name, std::vector<std::int64_t> otherwise) const {
    if (const auto value = get(name)) return {*value};
    return otherwise;
  }
  std::vector<std::string> order(const char* name, std::vector<std::string> otherwise) const {
    const auto found = orders_.find(name);
    if (found == orders_.end()) return otherwise;
    return {found->second};
  }
  bool any() const { return !numbers_.empty() || !orders_.empty(); }

 private:
  static std::optional<std::int64_t> number(const std::string& text) {
    std::int64_t value = 0;
    const char* end = text.data() + text.size();
    const auto [rest, failed] = std::from_chars(text.data(), end, value);
    if (failed != std::errc() || rest != end || text.empty()) return std::nullopt;
    return value;
  }

  std::map<std::string, std::int64_t> numbers_;
  std::map<std::string, std::string> orders_;
};

using Pair = std::pair<std::int64_t, std::int64_t>;

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

class Enumeration {
 public:
  Enumeration(const Request& request, const Pins& pins)
      : request_(request), pins_(pins), recompute_(recompute()) {}

  Result<Space> run() {
    for (const auto& [micro_batch, accumulation] : batches()) layouts_of(micro_batch, accumulation);
    if (space_.legal == 0) return nothing_legal();
    for (const auto& [rule, count] : rejected_) space_.rejected.push_back({rule, count});
    return std::move(space_);
  }

 private:
  // Every split of the batch, also those that do not come out even: the rule counts them.
  std::vector<Pair> batches() const {
    const std::int64_t per_rank = share(request_.workload.global_sequences, world());
    const auto micro_batch = pins_.get("micro_batch"), accumulation = pins_.get("accumulation");
    if (micro_batch || accumulation) return factor_pairs(per_rank, micro_batch, accumulation);
    std::vector<Pair> pairs;
    for (const std::int64_t d : divisors(request_.workload.global_sequences)) {
      pairs.emplace_back(d, share(per_rank, d));
    }
    return pairs;
  }

  void layouts_of(std::int64_t micro_batch, std::int64_t accumulation) {
    Layout base;
    base.dp = pins_.get("dp", world());
    base.cp = pins_.get("cp", 1);
    base.sp = pins_.get("sp", 1);
    base.tp = pins_.get("tp", 1);
    base.pp = pins_.get("pp", 1);
    base.etp = pins_.get("etp", 1);
    base.micro_batch = micro_batch;
    base.accumulation = accumulation;
    const std::vector<Chunks> all = chunks_of(micro_batch);
    for (const Layout& layout : dense_layouts(base)) {
      for (const Layout& full : expert_layouts(layout)) consider(full, all);
    }
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
           pins_.order("dense_inner", both ? std::vector<std::string>{"fsdp", "replicate"}
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
             pins_.order("expert_inner", both ? std::vector<std::string>{"ep", "fsdp"}
                                              : std::vector<std::string>{"ep"})) {
          l.expert_inner = inner;
          out.push_back(l);
        }
      }
    }
    return out;
  }

  std::vector<Chunks> chunks_of(std::int64_t micro_batch) const {
    const std::int64_t sequence = request_.workload.sequence_tokens;
    const std::vector<std::int64_t> loss = chunk_sizes(micro_batch * sequence, sequence);
    const std::vector<std::int64_t> query = chunk_sizes(sequence, sequence);
    std::vector<Chunks> out;
    for (const std::int64_t l : pins_.list("loss_tokens", loss)) {
      for (const std::int64_t q : pins_.list("attention_query", query)) {
        for (const std::int64_t p : pins_.list("prefetch_depth", {1, 2, 0})) {
          Chunks chunks;
          chunks.loss_tokens = l;
          chunks.attention_query = q;
          chunks.prefetch_depth = p;
          out.push_back(chunks);
        }
      }
    }
    return out;
  }

  // Any number of layers may be run again.
  std::vector<std::int64_t> recompute() const {
    std::vector<std::int64_t> all(static_cast<std::size_t>(request_.model.layers + 1));
    std::iota(all.begin(), all.end(), 0);
    return pins_.list("recompute_layers", all);
  }

  // Counts the candidates of a layout. Its own rules are looked at once, those of its chunks once a
  // micro-batch, those of recompute once: no rule spans two of them but through the micro-batch.
  void consider(const Layout& layout, const std::vector<Chunks>& all) {
    const auto depths = static_cast<std::int64_t>(recompute_.size());
    const std::int64_t count = static_cast<std::int64_t>(all.size()) * depths;
    space_.enumerated += count;
    if (const auto broken = broken_rule(layout, {}, 0)) {
      rejected_[*broken] += count;
      return;
    }
    if (space_.chunks.count(layout.micro_batch) == 0) legal_chunks(layout, all);
    for (const auto& [rule, times] : broken_chunks_[layout.micro_batch]) {
      rejected_[rule] += times * depths;
    }
    const auto left = static_cast<std::int64_t>(space_.chunks.at(layout.micro_batch).size());
    if (left == 0) return;
    if (!looked_) legal_recompute(layout);
    for (const auto& [rule, times] : broken_recompute_) rejected_[rule] += left * times;
    space_.legal += left * static_cast<std::int64_t>(space_.recompute.size());
    if (!space_.recompute.empty()) space_.layouts.push_back(layout);
  }

  void legal_chunks(const Layout& layout, const std::vector<Chunks>& all) {
    std::vector<Chunks>& legal = space_.chunks[layout.micro_batch];
    std::map<std::string, std::int64_t>& broken = broken_chunks_[layout.micro_batch];
    for (const Chunks& c : all) {
      const auto rule = broken_rule(layout, {c, {}}, 1);
      if (rule) ++broken[*rule];
      if (!rule) legal.push_back(c);
    }
  }

  void legal_recompute(const Layout& layout) {
    looked_ = true;
    for (const std::int64_t n : recompute_) {
      const auto rule = broken_rule(layout, {{}, MemoryPolicy{.recompute_layers = n}}, 2);
      if (rule) ++broken_recompute_[*rule];
      if (!rule) space_.recompute.push_back(n);
    }
  }

  // `stage`: what is looked at, a layout (0), its chunks (1) or recompute (2).
  std::optional<std::string> broken_rule(const Layout& layout, const Choice& choice,
                                         std::size_t stage) {
    const std::vector<Violation> found = violations(
        request_.model, request_.cluster, request_.workload, layout, choice.chunks, choice.policy);
    if (found.empty()) return std::nullopt;
    std::vector<Violation>& least = least_[stage];
    if (least.empty() || found.size() < least.size()) least = found;
    return found.front().rule;
  }

  Error nothing_legal() const {
    Error error;
    error.code = ErrorCode::kInfeasible;
    const std::int64_t batch = request_.workload.global_sequences, ranks = world();
    // The chunks were looked at only where a layout is legal, recompute only where chunks are too.
    const std::size_t stage = looked_ ? 2 : (space_.chunks.empty() ? 0 : 1);
    for (const Violation& v : least_[stage]) {
      std::string hint;
      if (v.rule == "batch_divides" && batch % ranks != 0) {
        const std::int64_t below = batch / ranks * ranks;
        hint = "a batch of " + (below > 0 ? std::to_string(below) + " or " : "") +
               std::to_string(below + ranks) + " sequences divides over " + std::to_string(ranks) +
               " devices";
      } else if (pins_.any()) {
        hint = "drop or change the pin";
      }
      error.problems.push_back({v.rule, v.reason, hint});
    }
    return error;
  }

  std::int64_t world() const { return request_.cluster.devices; }

  const Request& request_;
  const Pins& pins_;
  const std::vector<std::int64_t> recompute_;
  Space space_;
  std::map<std::string, std::int64_t> rejected_;
  std::map<std::int64_t, std::map<std::string, std::int64_t>> broken_chunks_;  // by micro_batch
  std::map<std::string, std::int64_t> broken_recompute_;
  bool looked_ = false;  // at the recompute depths
  // By stage: of the candidate that breaks the fewest rules.
  std::array<std::vector<Violation>, 3> least_;
};

}  // namespace

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

std::vector<std::string> pinnable() {
  std::vector<std::string> names = numeric_pins();
  names.insert(names.end(), order_pins().begin(), order_pins().end());
  std::sort(names.begin(), names.end());
  return names;
}

Result<Space> enumerate(const Request& request) {
  TRY(const Pins pins, Pins::parse(request));
  return Enumeration(request, pins).run();
}

}  // namespace orrery::planner
