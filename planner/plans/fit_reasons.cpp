// Why a plan fits: what it would need without each of the mechanisms that save memory.
#include <functional>
#include <string>
#include <utility>

#include "planner/plans/explain.h"

namespace orrery::planner {
namespace {

struct Without {
  std::string mechanism;
  Subspace family;
};

Subspace layouts(std::function<bool(const Layout&)> member) {
  Subspace s;
  s.member = std::move(member);
  return s;
}

Subspace chunkings(std::function<bool(const Chunks&)> chunked) {
  Subspace s;
  s.chunked = std::move(chunked);
  return s;
}

Subspace policies(std::function<bool(const MemoryPolicy&)> policy) {
  Subspace s;
  s.policy = std::move(policy);
  return s;
}

// Of the mechanisms that a plan has, all that it could do without one.
std::vector<Without> mechanisms(const Layout& l, const Choice& c) {
  const MemoryPolicy& p = c.policy;
  std::vector<Without> out;
  if (l.sp > 1) out.push_back({"sp", layouts([](const Layout& o) { return o.sp == 1; })});
  if (p.swap_layers > 0) {
    out.push_back({"swap", policies([](const MemoryPolicy& o) { return o.swap_layers == 0; })});
  }
  if (p.host_optimizer) {
    out.push_back(
        {"host_optimizer", policies([](const MemoryPolicy& o) { return !o.host_optimizer; })});
  }
  if (p.recompute_layers > 0) {
    Subspace none;
    none.recompute = 0;
    out.push_back({"recompute", std::move(none)});
  }
  if (l.ep > 1) out.push_back({"ep", layouts([](const Layout& o) { return o.ep == 1; })});
  if (l.fsdp_d > 1) {
    out.push_back({"fsdp", layouts([](const Layout& o) { return o.fsdp_d == 1; })});
  }
  if (c.chunks.loss_tokens > 0) {
    out.push_back({"loss_chunks", chunkings([](const Chunks& o) { return o.loss_tokens == 0; })});
  }
  if (c.chunks.attention_query > 0) {
    out.push_back(
        {"attention_chunks", chunkings([](const Chunks& o) { return o.attention_query == 0; })});
  }
  return out;
}

// The fastest of a family that fits, else the least that it needs.
std::optional<Trial> look(Search& search, const Subspace& family) {
  if (auto found = search.best_of(family)) return found;
  return search.smallest_of(family);
}

bool is_plain(const Layout& l, const MemoryPolicy& p) {
  return l.sp == 1 && p.swap_layers == 0 && !p.host_optimizer;
}

}  // namespace

std::vector<FitReason> fit_reasons(Search& search, const Trial& chosen) {
  if (is_plain(chosen.layout, chosen.choice.policy)) return {};
  Subspace plain = layouts([](const Layout& l) { return l.sp == 1; });
  plain.policy = [](const MemoryPolicy& p) { return p.swap_layers == 0 && !p.host_optimizer; };
  const auto least = look(search, plain);
  if (!least || least->fits) return {};
  std::vector<FitReason> out = {{"sp, swap and host_optimizer", least->predicted.peak, false}};
  for (const auto& [mechanism, family] : mechanisms(chosen.layout, chosen.choice)) {
    const auto found = look(search, family);
    if (found) out.push_back({mechanism, found->predicted.peak, found->fits});
  }
  return out;
}

}  // namespace orrery::planner
