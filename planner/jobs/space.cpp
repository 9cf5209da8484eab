// Enumeration of blocks, and counts of jobs without visiting them. See space.h.
#include "planner/jobs/space.h"

#include <algorithm>
#include <utility>

namespace orrery::planner::jobs {
namespace {

std::int32_t narrow(std::int64_t value) {
  return static_cast<std::int32_t>(value);
}

const char* broken_stages(const Job& base, const Choices& c, std::int64_t pp, std::int64_t v,
                          std::int64_t micro_batches) {
  if (deals_of(c.deal, base.model.layers, pp * v).empty()) return "layers_divide";
  if (v > 1 && pp == 1) return "schedule";
  if (v > 1 && micro_batches > pp && micro_batches % pp != 0) return "schedule";
  return nullptr;
}

class Enumeration {
 public:
  Enumeration(const Job& base, Choices choices) : base_(base), c_(out_.choices) {
    out_.choices = std::move(choices);
  }
  Space run() {
    const auto inner =
        static_cast<std::int64_t>(c_.pp.size() * c_.micro_batch.size() * c_.ep.size() *
                                  c_.etp.size() * c_.virtual_stages.size());
    for (const std::int64_t tp : c_.tp) {
      for (const std::int64_t cp : c_.cp) {
        for (const std::int64_t sp : c_.sp) {
          if (base_.cluster.devices % (tp * cp * sp) != 0) {
            out_.removed["world"] += inner;
            continue;
          }
          for (const std::int64_t pp : c_.pp) {
            for (const std::int64_t mb : c_.micro_batch) layout({tp, cp, sp, pp, mb});
          }
        }
      }
    }
    std::sort(out_.blocks.begin(), out_.blocks.end(), [](const Block& a, const Block& b) {
      return std::tuple(a.layer_key(), a.pp) < std::tuple(b.layer_key(), b.pp);
    });
    return std::move(out_);
  }

 private:
  struct Axes {
    std::int64_t tp, cp, sp, pp, mb;
    std::int64_t used() const { return tp * cp * sp * pp; }
  };

  // The first rule that axes outside of experts and virtual stages break; nullptr: none.
  const char* broken(const Axes& a) const {
    const auto& [tp, cp, sp, pp, mb] = a;
    const Model& m = base_.model;
    const std::int64_t world = base_.cluster.devices, used = a.used();
    if (world % used != 0) return "world";
    const std::int64_t dp = world / used;
    if (base_.global_sequences % (dp * mb) != 0) return "batch";
    const bool moved = cp > 1 && c_.exchange.front() == ContextExchange::kAllToAll;
    const std::int64_t over = tp * sp, all = over * (moved ? cp : 1);
    if (all > m.heads || (!m.is_latent() && m.heads % over != 0)) return "heads_divide";
    if (base_.sequence_tokens % (cp * sp) != 0) return "context";
    if (tp > c_.most_tensor) return "tensor_domain";
    if (cp * sp > 1 && base_.sequence_tokens / (cp * sp) < c_.least_rows) return "context_rows";
    if (mb > c_.most_micro_batch) return "micro_batch_tokens";
    return nullptr;
  }

  const char* broken_experts(std::int64_t ranks, std::int64_t ep, std::int64_t etp) const {
    const Model& m = base_.model;
    if (m.is_moe() ? m.experts % ep != 0 || ranks % (ep * etp) != 0 : ep > 1) {
      return "experts_divide";
    }
    return etp > c_.most_tensor ? "tensor_domain" : nullptr;
  }

  void layout(const Axes& a) {
    const auto& [tp, cp, sp, pp, mb] = a;
    const auto experts = static_cast<std::int64_t>(c_.ep.size() * c_.etp.size());
    const auto chunks = static_cast<std::int64_t>(c_.virtual_stages.size());
    if (const char* rule = broken(a)) {
      out_.removed[rule] += experts * chunks;
      return;
    }
    const std::int64_t dp = base_.cluster.devices / a.used();
    if (c_.dp > 0 && c_.dp != dp) return;
    const std::int64_t micro_batches = base_.global_sequences / (dp * mb);
    for (const std::int64_t v : c_.virtual_stages) {
      if (const char* rule = broken_stages(base_, c_, pp, v, micro_batches)) {
        out_.removed[rule] += experts;
      }
    }
    const std::vector<std::int64_t> legal_chunks = virtual_stages_of(base_, c_, pp, micro_batches);
    for (const std::int64_t ep : c_.ep) {
      for (const std::int64_t etp : c_.etp) {
        if (const char* rule = broken_experts(dp * cp * sp * tp, ep, etp)) {
          if (!legal_chunks.empty()) {
            out_.removed[rule] += static_cast<std::int64_t>(legal_chunks.size());
          }
        } else {
          Block block;
          block.tp = narrow(tp);
          block.cp = narrow(cp);
          block.sp = narrow(sp);
          block.pp = narrow(pp);
          block.dp = narrow(dp);
          block.ep = narrow(ep);
          block.etp = narrow(etp);
          block.micro_batch = narrow(mb);
          add_blocks(block, legal_chunks);
        }
      }
    }
  }

  // A block for each choice of words that matter where the axes are as they are.
  void add_blocks(Block block, const std::vector<std::int64_t>& chunks) {
    out_.layouts += static_cast<std::int64_t>(chunks.size());
    const std::int64_t members = members_of(block, chunks);
    if (members == 0) return;
    const std::vector<bool> once = {false};
    const std::vector<ContextExchange> ring = {ContextExchange::kRing};
    const std::vector<Dispatcher> plain = {Dispatcher::kAllToAll};
    for (const bool parallel : block.tp > 1 ? c_.sequence_parallel : once) {
      for (const ContextExchange exchange : block.cp > 1 ? c_.exchange : ring) {
        for (const Dispatcher dispatcher : block.ep > 1 ? c_.dispatcher : plain) {
          block.sequence_parallel = parallel;
          block.exchange = exchange;
          block.dispatcher = dispatcher;
          for (const Precision precision : c_.precision) {
            block.precision = precision;
            out_.blocks.push_back(block);
            out_.legal += members;
          }
        }
      }
    }
  }

  std::int64_t members_of(const Block& b, const std::vector<std::int64_t>& chunks) const {
    std::int64_t ways = 0;
    for (const std::int64_t v : chunks) {
      const auto schedules = static_cast<std::int64_t>(schedules_of(c_, b.pp, v, b.ep).size());
      std::int64_t recomputes = 0;
      for (const RecomputeChoice& r : c_.recompute) {
        recomputes +=
            r.full()
                ? static_cast<std::int64_t>(full_layers_of(c_, base_.model.layers, b.pp * v).size())
                : 1;
      }
      const auto deals =
          static_cast<std::int64_t>(deals_of(c_.deal, base_.model.layers, b.pp * v).size());
      ways += schedules * recomputes * deals;
    }
    return ways * static_cast<std::int64_t>(shardings_of(c_, b.data(), b.pp).size());
  }

  const Job& base_;
  Space out_;
  const Choices& c_;
};

}  // namespace

std::vector<std::int64_t> virtual_stages_of(const Job& base, const Choices& choices,
                                            std::int64_t pp, std::int64_t micro_batches) {
  std::vector<std::int64_t> legal;
  for (const std::int64_t v : choices.virtual_stages) {
    if (broken_stages(base, choices, pp, v, micro_batches) == nullptr) legal.push_back(v);
  }
  return legal;
}

void set_block(const Block& block, Job& job) {
  Layout& l = job.layout;
  l.tp = block.tp;
  l.cp = block.cp;
  l.sp = block.sp;
  l.pp = block.pp;
  l.dp = block.dp;
  l.ep = block.ep;
  l.etp = block.etp;
  l.micro_batch = block.micro_batch;
  job.sequence_parallel = block.sequence_parallel;
  job.context = block.exchange;
  job.dispatcher = block.dispatcher;
  job.precision = block.precision;
}

void set_member(const Choices& choices, const Member& member,
                std::vector<std::int64_t> stage_layers, Job& job) {
  job.stage_layers = std::move(stage_layers);
  job.virtual_stages = member.virtual_stages;
  job.schedule = member.schedule;
  job.recompute = choices.recompute[member.recompute].recompute;
  job.recompute.full_layers = member.full_layers;
  job.sharding = member.sharding;
  job.keeps_gathered = member.keeps_gathered;
  job.layout.fsdp_d = member.fsdp_d;
  job.layout.replicate_d = job.layout.dp * job.layout.cp * job.layout.sp / member.fsdp_d;
}

namespace {

int mechanisms(const Block& b, const Member& m) {
  int count = 0;
  for (const std::int32_t axis : {b.tp, b.cp, b.sp, b.pp, b.ep, b.etp, m.virtual_stages}) {
    count += axis > 1 ? 1 : 0;
  }
  const bool plain = m.schedule == PipelineSchedule::kOneForwardOneBackward ||
                     m.schedule == PipelineSchedule::kInterleaved;
  count += plain ? 0 : 1;
  count += m.deal == Deal::kEven ? 0 : 1;
  count += b.precision == Precision::kFp8 ? 1 : 0;
  count += m.recompute > 0 ? 1 : 0;
  count += m.sharding == Sharding::kParameters ? 1 : 0;
  count += m.fsdp_d < b.data() ? 1 : 0;
  count += b.dispatcher == Dispatcher::kAllToAll ? 0 : 1;
  return count;
}

}  // namespace

Simplicity simplicity(const Block& b, const Member& m) {
  return {mechanisms(b, m),
          b.pp,
          m.virtual_stages,
          b.cp,
          b.sp,
          b.tp,
          b.etp,
          b.ep,
          b.micro_batch,
          static_cast<int>(b.precision),
          m.recompute,
          m.full_layers,
          static_cast<int>(m.sharding),
          m.keeps_gathered,
          m.fsdp_d,
          static_cast<int>(m.schedule),
          static_cast<int>(m.deal),
          static_cast<int>(b.exchange),
          static_cast<int>(b.dispatcher),
          b.sequence_parallel};
}

Space make_space(const Job& base, Choices choices) {
  return Enumeration(base, std::move(choices)).run();
}

}  // namespace orrery::planner::jobs
