// Lowering as properties of random legal plans: what every program keeps, whatever the layout.
#include "core/program/lower.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "core/program/lowering.h"
#include "core/program/verify.h"
#include "tests/support/plans.h"

namespace orrery {
namespace {

constexpr std::uint64_t kSeeds = 400;

const Group& group(const Program& p, std::int32_t g) {
  return p.groups[static_cast<std::size_t>(g)];
}
const Buffer& buffer(const Role& r, BufferId b) {
  return r.buffers[static_cast<std::size_t>(b)];
}
const Unit& unit(const Role& r, std::int32_t u) {
  return r.units[static_cast<std::size_t>(u)];
}

bool persistent(const Buffer& b) {
  return b.cls == BufferClass::kParameterShard || b.cls == BufferClass::kOptimizer;
}

std::string label(std::uint64_t seed, const Plan& plan) {
  return "seed " + std::to_string(seed) + ": " + describe(plan.layout, plan.chunks, plan.policy) +
         (plan.model.tied_head ? " tied" : "") + " layers " + std::to_string(plan.model.layers) +
         " experts " + std::to_string(plan.model.experts);
}

template <class Test>
void for_seeds(std::uint64_t count, Test test) {
  for (std::uint64_t seed = 0; seed < count; ++seed) {
    const Plan plan = random_plan(seed);
    SCOPED_TRACE(label(seed, plan));
    test(plan, lower(plan));
    if (::testing::Test::HasFailure()) return;  // one program is enough to read
  }
}

std::int64_t count_ops(const Role& role, OpKind kind) {
  return std::count_if(role.ops.begin(), role.ops.end(),
                       [&](const Op& op) { return op.kind == kind; });
}

TEST(Lowering, EveryProgramVerifies) {
  for_seeds(kSeeds, [](const Plan&, const Program& p) {
    for (const Finding& f : verify(p)) ADD_FAILURE() << f.rule << ": " << f.message;
  });
}

TEST(Lowering, EveryProgramOfAllMechanismsVerifies) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Plan plan = random_mechanism_plan(seed);
    SCOPED_TRACE(label(seed, plan));
    for (const Finding& f : verify(lower(plan))) ADD_FAILURE() << f.rule << ": " << f.message;
    if (::testing::Test::HasFailure()) return;  // one program is enough to read
  }
}

TEST(Lowering, BuffersBalance) {
  for_seeds(kSeeds, [](const Plan&, const Program& p) {
    const Role& role = p.roles[0];
    std::vector<int> taken(role.buffers.size(), 0), freed(role.buffers.size(), 0);
    std::set<BufferId> live;
    for (std::size_t i = 0; i < role.ops.size(); ++i) {
      const Op& op = role.ops[i];
      for (std::size_t b = 0; b < role.buffers.size(); ++b) {
        if (role.buffers[b].taken_by != static_cast<OpId>(i)) continue;
        ++taken[b];
        EXPECT_TRUE(live.insert(static_cast<BufferId>(b)).second);
      }
      for (const auto* list : {&op.in, &op.out, &op.params, &op.updates}) {
        for (const BufferId b : *list) {
          if (b < 0 || persistent(buffer(role, b))) continue;
          EXPECT_EQ(live.count(b), 1U) << op.path << " uses " << buffer(role, b).name;
        }
      }
      for (const BufferId b : op.frees) {
        ++freed[static_cast<std::size_t>(b)];
        EXPECT_EQ(live.erase(b), 1U) << buffer(role, b).name;
        EXPECT_EQ(buffer(role, b).freed_by, static_cast<OpId>(i));
      }
    }
    EXPECT_TRUE(live.empty());
    for (std::size_t b = 0; b < role.buffers.size(); ++b) {
      const int expected = persistent(role.buffers[b]) ? 0 : 1;
      EXPECT_EQ(taken[b], expected) << role.buffers[b].name;
      EXPECT_EQ(freed[b], expected) << role.buffers[b].name;
    }
  });
}

TEST(Lowering, KeysAreUniqueAndOrderIsTotal) {
  for_seeds(kSeeds, [](const Plan&, const Program& p) {
    const Role& role = p.roles[0];
    std::set<std::uint64_t> keys;
    std::set<std::tuple<std::string, Phase, int, int>> names;
    for (std::size_t i = 0; i < role.ops.size(); ++i) {
      const Op& op = role.ops[i];
      EXPECT_TRUE(keys.insert(op.key).second) << op.path;
      EXPECT_TRUE(names.insert({op.path, op.phase, op.micro_batch, op.chunk}).second) << op.path;
      EXPECT_EQ(op.key, op_key(op.path, op.phase, op.micro_batch, op.chunk));
      for (const OpId dep : op.deps) {
        EXPECT_GE(dep, 0);
        EXPECT_LT(dep, static_cast<OpId>(i));
      }
    }
    ASSERT_EQ(p.roles.size(), 1U);
    EXPECT_EQ(role.ranks.size(), static_cast<std::size_t>(p.world));
  });
}

// A block sees a parameter buffer that its own unit's gather wrote, or the resident shard.
TEST(Lowering, UnitsAreGatheredWhenUsed) {
  for_seeds(kSeeds, [](const Plan& plan, const Program& p) {
    const Role& role = p.roles[0];
    std::map<BufferId, std::int32_t> written_by_gather_of;
    for (const Op& op : role.ops) {
      if (op.kind == OpKind::kAllGather || op.kind == OpKind::kUnshard) {
        EXPECT_FALSE(unit(role, op.unit).resident);
        EXPECT_EQ(op.in, std::vector<BufferId>{unit(role, op.unit).shard});
        EXPECT_EQ(buffer(role, op.out[0]).dtype, plan.workload.compute);
        EXPECT_GE(buffer(role, op.out[0]).rows.c0, unit(role, op.unit).numel);
        written_by_gather_of[op.out[0]] = op.unit;
      }
      for (std::size_t i = 0; i < op.units.size(); ++i) {
        if (op.path == "embed" && op.kind == OpKind::kBackward) continue;  // reads no parameter
        const Unit& u = unit(role, op.units[i]);
        if (u.resident) {
          EXPECT_EQ(op.params[i], u.shard);
        } else {
          ASSERT_EQ(written_by_gather_of.count(op.params[i]), 1U) << op.path << " of " << u.name;
          EXPECT_EQ(written_by_gather_of[op.params[i]], op.units[i]);
        }
      }
    }
  });
}

// Every parameter that a block asks for is in one of the op's units, with the same gradient dtype.
TEST(Lowering, UnitsHoldWhatBlocksAskFor) {
  for_seeds(kSeeds, [](const Plan&, const Program& p) {
    const Role& role = p.roles[0];
    for (const Op& op : role.ops) {
      if (op.block < 0) continue;
      for (const BlockParam& want : role.blocks[static_cast<std::size_t>(op.block)].params) {
        int found = 0;
        for (const std::int32_t u : op.units) {
          for (const Param& have : unit(role, u).params) {
            if (have.short_name != want.name) continue;
            ++found;
            EXPECT_EQ(have.shape, want.shape) << have.name;
            EXPECT_EQ(unit(role, u).grad_dtype, want.grad_dtype) << op.path << " " << have.name;
          }
        }
        EXPECT_EQ(found, 1) << op.path << " needs " << want.name;
      }
    }
  });
}

TEST(Lowering, UnitsAreReducedOnceAMicroBatchAndUpdatedOnce) {
  for_seeds(kSeeds, [](const Plan& plan, const Program& p) {
    const Role& role = p.roles[0];
    const std::int64_t accumulation = plan.layout.accumulation;
    std::map<std::int32_t, std::map<std::int32_t, int>> reduced, accumulated;
    std::map<std::int32_t, int> replicated, updated;
    for (const Op& op : role.ops) {
      if (op.kind == OpKind::kReduceScatter) ++reduced[op.unit][op.micro_batch];
      if (op.kind == OpKind::kAccumulate) ++accumulated[op.unit][op.micro_batch];
      if (op.kind == OpKind::kAllReduce && op.unit >= 0) ++replicated[op.unit];
      if (op.kind == OpKind::kOptimizerStep) ++updated[op.unit];
    }
    for (std::int32_t u = 0; u < static_cast<std::int32_t>(role.units.size()); ++u) {
      const Unit& it = unit(role, u);
      const bool sharded = group(p, it.shard_group).size > 1;
      for (std::int32_t m = 0; m < static_cast<std::int32_t>(accumulation); ++m) {
        EXPECT_EQ(reduced[u][m], sharded ? 1 : 0) << it.name;
        EXPECT_EQ(accumulated[u][m], 1) << it.name;
      }
      EXPECT_EQ(reduced[u].size(), static_cast<std::size_t>(accumulation));
      EXPECT_EQ(accumulated[u].size(), static_cast<std::size_t>(accumulation));
      EXPECT_EQ(replicated[u], group(p, it.replicate_group).size > 1 ? 1 : 0) << it.name;
      EXPECT_EQ(updated[u], 1) << it.name;
    }
  });
}

// All gradients of a unit come before its reduction, and none is lost: one use of the unit forward
// is one addition to its gradient (the loss does both at once).
TEST(Lowering, EveryUseOfAUnitContributesToItsGradient) {
  for_seeds(kSeeds, [](const Plan& plan, const Program& p) {
    const Role& role = p.roles[0];
    std::map<std::int32_t, std::int64_t> uses, additions;
    for (const Op& op : role.ops) {
      for (std::size_t i = 0; i < op.units.size(); ++i) {
        if (op.phase == Phase::kForward) ++uses[op.units[i]];
        const bool adds = i < op.updates.size() && op.updates[i] >= 0;
        if (adds) ++additions[op.units[i]];
        EXPECT_EQ(adds, op.kind == OpKind::kBackward || op.kind == OpKind::kForwardBackward);
      }
    }
    EXPECT_EQ(uses, additions);
    const std::int64_t rows = plan.layout.micro_batch * plan.workload.sequence_tokens;
    const std::int64_t chunk = plan.chunks.loss_tokens > 0 ? plan.chunks.loss_tokens : rows;
    const std::int64_t chunks = plan.layout.accumulation * ((rows + chunk - 1) / chunk);
    for (std::size_t u = 0; u < role.units.size(); ++u) {
      if (role.units[u].name != "head") continue;
      EXPECT_EQ(uses[static_cast<std::int32_t>(u)], chunks);
    }
  });
}

TEST(Lowering, LossChunksCoverEveryRowOnce) {
  for_seeds(kSeeds, [](const Plan& plan, const Program& p) {
    const std::int64_t rows = plan.layout.micro_batch * plan.workload.sequence_tokens;
    std::map<std::int32_t, std::int64_t> covered;
    for (const Op& op : p.roles[0].ops) {
      if (op.path != "head/loss") continue;
      EXPECT_EQ(op.row_begin, covered[op.micro_batch]);
      EXPECT_GT(op.row_end, op.row_begin);
      covered[op.micro_batch] = op.row_end;
    }
    EXPECT_EQ(covered.size(), static_cast<std::size_t>(plan.layout.accumulation));
    for (const auto& [m, end] : covered) EXPECT_EQ(end, rows) << "micro-batch " << m;
  });
}

// Parameters of a model, counted over the ranks: each replica of the dense part is one copy of it,
// spread over fsdp_d; each replica of the experts is spread over ep x fsdp_e.
TEST(Lowering, ParametersAddUpToTheModel) {
  for_seeds(kSeeds, [](const Plan& plan, const Program& p) {
    std::int64_t dense = 0, experts = 0;
    for (const Unit& u : p.roles[0].units) {
      std::int64_t numel = 0;
      for (const Param& param : u.params) {
        numel += param.numel();
        EXPECT_EQ(param.is_expert, u.is_expert);
      }
      EXPECT_EQ(numel, u.numel);
      const std::int64_t shards = group(p, u.shard_group).size;
      EXPECT_EQ(shards, u.is_expert ? plan.layout.fsdp_e : plan.layout.fsdp_d);
      EXPECT_GE(u.shard_numel * shards, u.numel);           // padded ...
      EXPECT_LT(u.shard_numel * shards, u.numel + shards);  // ... by less than one a rank
      EXPECT_EQ(group(p, u.replicate_group).size,
                u.is_expert ? plan.layout.replicate_e : plan.layout.replicate_d);
      (u.is_expert ? experts : dense) += numel;
    }
    EXPECT_EQ(dense + experts * plan.layout.ep, parameter_count(plan.model));
  });
}

TEST(Lowering, ResidentExpertBytesAreTheTotalOverTheExpertRanks) {
  int exact = 0;
  for_seeds(kSeeds, [&](const Plan& plan, const Program& p) {
    std::int64_t total = 0, resident = 0;
    for (const Unit& u : p.roles[0].units) {
      if (!u.is_expert) continue;
      resident += buffer(p.roles[0], u.shard).bytes.c0;
      total += plan.model.experts * 3 * plan.model.hidden * plan.model.moe_ffn *
               size_of(plan.workload.master);
      EXPECT_EQ(buffer(p.roles[0], u.moment1).bytes, buffer(p.roles[0], u.shard).bytes);
      EXPECT_EQ(buffer(p.roles[0], u.moment2).bytes, buffer(p.roles[0], u.shard).bytes);
    }
    const std::int64_t ranks = plan.layout.ep * plan.layout.fsdp_e;
    const std::int64_t padding = size_of(plan.workload.master) * plan.model.layers;
    EXPECT_GE(resident * ranks, total);
    EXPECT_LT(resident, total / ranks + padding + 1);
    if (resident > 0 && resident * ranks == total) ++exact;
  });
  EXPECT_GT(exact, 50);  // without padding the equation is exact
}

TEST(Lowering, CollectiveBytesAreTheirFormulas) {
  for_seeds(kSeeds, [](const Plan& plan, const Program& p) {
    const Role& role = p.roles[0];
    const std::vector<std::int64_t> binding(static_cast<std::size_t>(role.num_vars), 3);
    for (const Op& op : role.ops) {
      if (!is_collective(op.kind)) continue;
      const WireBytes wire = wire_bytes(p, role, op, p.world - 1, binding);
      const std::int64_t n = group(p, op.group).size, others = n - 1;
      const std::int64_t row = plan.model.hidden * size_of(plan.workload.compute);
      std::int64_t sent = wire.sent;
      switch (op.kind) {
        case OpKind::kAllGather:
          sent = others * unit(role, op.unit).shard_numel * size_of(plan.workload.compute);
          break;
        case OpKind::kReduceScatter:
          sent = others * unit(role, op.unit).shard_numel * size_of(unit(role, op.unit).grad_dtype);
          break;
        case OpKind::kCountTokens:
          sent = others * 8;
          break;
        case OpKind::kReduceMetrics:
          sent = others * kNumMetrics * 8;
          break;
        case OpKind::kExchangeCounts:
          sent = others * (plan.model.experts / n) * 8;
          break;
        case OpKind::kAllToAllV:
          sent = others * 3 * row;
          break;
        default:
          EXPECT_EQ(op.kind, OpKind::kAllReduce);
      }
      EXPECT_EQ(wire.sent, sent) << op.path;
      EXPECT_EQ(wire.received, wire.sent) << op.path;
    }
  });
}

// Recomputing n layers adds the ops of phase recompute, and changes no other op's name or order.
TEST(Lowering, RecomputeAddsOnlyItsOwnOps) {
  for_seeds(kSeeds, [](const Plan& plan, const Program& p) {
    Plan without = plan;
    without.policy.recompute_layers = 0;
    seal(without);
    const auto names = [](const Program& program, bool recompute) {
      std::vector<std::string> out;
      for (const Op& op : program.roles[0].ops) {
        if (op.phase == Phase::kRecompute && !recompute) continue;
        out.push_back(op.path + "|" + name_of(op.phase) + "|" + std::to_string(op.micro_batch) +
                      "|" + std::to_string(op.chunk));
      }
      return out;
    };
    EXPECT_EQ(names(p, false), names(lower(without), true));
    std::int64_t expected = 0;
    for (std::int64_t i = 0; i < plan.policy.recompute_layers; ++i) {
      // Attention and mlp; or attention, router, experts, with their two exchanges.
      const bool moe = plan.model.moe_layer[static_cast<std::size_t>(i)];
      expected += moe ? (plan.layout.ep > 1 ? 5 : 3) : 2;
    }
    const auto& ops = p.roles[0].ops;
    EXPECT_EQ(std::count_if(ops.begin(), ops.end(),
                            [](const Op& op) { return op.phase == Phase::kRecompute; }),
              expected * plan.layout.accumulation);
  });
}

TEST(Lowering, TheHashIsThePlans) {
  for_seeds(120, [](const Plan& plan, const Program& p) {
    EXPECT_EQ(lower(plan).hash(), p.hash());
    Plan other = plan;
    const std::int64_t rows = plan.layout.micro_batch * plan.workload.sequence_tokens;
    other.chunks.loss_tokens = plan.chunks.loss_tokens == rows / 2 ? rows : rows / 2;
    seal(other);
    EXPECT_NE(lower(other).hash(), p.hash());
  });
}

// The structure alone, without the plan's own hash, tells chunk sizes and rank orders apart.
TEST(Lowering, TheHashCoversWhatIsExecuted) {
  const auto structure = [](const Plan& plan) {
    Program p = lower(plan);
    p.plan_hash.clear();
    return p.hash();
  };
  Plan plan = small_moe_plan(8, 2);
  plan.layout.fsdp_d = 4;
  plan.layout.replicate_d = 2;
  plan.layout.fsdp_e = plan.layout.replicate_e = 2;
  std::vector<Plan> plans(9, plan);
  plans[1].chunks.loss_tokens = 4;
  plans[2].chunks.loss_tokens = 3;
  plans[3].chunks.attention_query = 4;
  plans[4].chunks.prefetch_depth = 2;
  plans[5].policy.recompute_layers = 1;
  plans[6].layout.dense_inner = "replicate";
  plans[7].layout.expert_inner = "fsdp";
  plans[8].workload.balance_scope = BalanceScope::kMicrobatchGlobal;
  std::set<std::uint64_t> hashes;
  for (Plan& it : plans) {
    seal(it);
    hashes.insert(structure(it));
  }
  EXPECT_EQ(hashes.size(), plans.size());
}

TEST(Lowering, GroupsPartitionTheWorldByTheirOrder) {
  Plan plan = small_moe_plan(8, 2);
  plan.layout.fsdp_d = 4;
  plan.layout.replicate_d = 2;
  plan.layout.fsdp_e = plan.layout.replicate_e = 2;
  plan.layout.expert_inner = "fsdp";
  seal(plan);
  const Program p = lower(plan);
  std::map<std::string, std::pair<int, int>> have;
  for (const Group& g : p.groups) have[g.name] = {g.size, g.stride};
  const std::map<std::string, std::pair<int, int>> want = {
      {"world", {8, 1}},  {"fsdp_d", {4, 1}},      {"replicate_d", {2, 4}}, {"ep", {2, 2}},
      {"fsdp_e", {2, 1}}, {"replicate_e", {2, 4}}, {"sp", {1, 1}}};
  EXPECT_EQ(have, want);
}

// A dense model has no experts to place: whatever its expert factors say is ignored.
TEST(Lowering, ExpertFactorsOfADenseModelShapeNothing) {
  Plan plan = small_dense_plan(4);
  plan.layout.fsdp_e = 3;
  seal(plan);
  EXPECT_TRUE(verify(lower(plan)).empty());
}

TEST(Lowering, OneRankCommunicatesOnlyWithItself) {
  const Program p = lower(small_moe_plan(1, 1));
  const Role& role = p.roles[0];
  const std::vector<std::int64_t> binding(static_cast<std::size_t>(role.num_vars), 1);
  for (const Op& op : role.ops) {
    if (!is_collective(op.kind)) continue;
    EXPECT_EQ(wire_bytes(p, role, op, 0, binding).sent, 0) << op.path;
  }
  EXPECT_EQ(count_ops(role, OpKind::kAllGather), 0);
  EXPECT_EQ(count_ops(role, OpKind::kReduceScatter), 0);
  EXPECT_EQ(count_ops(role, OpKind::kAllToAllV), 0);
}

// Prefetch moves gathers earlier in the issue order and never changes what is computed.
TEST(Lowering, PrefetchMovesGathersOnly) {
  for_seeds(120, [](const Plan& plan, const Program& p) {
    const auto computed = [](const Program& program) {
      std::vector<std::string> out;
      for (const Op& op : program.roles[0].ops) {
        if (op.kind == OpKind::kAllGather || op.kind == OpKind::kUnshard) continue;
        out.push_back(op.path + name_of(op.phase) + std::to_string(op.micro_batch));
      }
      return out;
    };
    Plan none = plan;
    none.chunks.prefetch_depth = 0;
    seal(none);
    EXPECT_EQ(computed(lower(none)), computed(p));
  });
}

// Gathers run `prefetch_depth` segments ahead and no further: so many units are at hand at once,
// and the two segments that a unit is kept for. A segment has at most two units.
TEST(Lowering, PrefetchBoundsGatheredParameters) {
  for_seeds(kSeeds, [](const Plan& plan, const Program& p) {
    const Role& role = p.roles[0];
    std::int64_t live = 0, most = 0;
    for (const Op& op : role.ops) {
      if (op.kind == OpKind::kAllGather || op.kind == OpKind::kUnshard) ++live;
      most = std::max(most, live);
      for (const BufferId b : op.frees) {
        live -= buffer(role, b).cls == BufferClass::kGatheredParameter ? 1 : 0;
      }
    }
    EXPECT_EQ(live, 0);
    EXPECT_LE(most, 2 * std::max<std::int64_t>(plan.chunks.prefetch_depth + 1, 3));
  });
}

// Memory of the records: every variable has one record, named at its start, of the right length.
TEST(Lowering, RecordsOfVariablesFit) {
  for_seeds(kSeeds, [](const Plan& plan, const Program& p) {
    const Role& role = p.roles[0];
    std::int64_t moe = 0;
    for (const bool is : plan.model.moe_layer) moe += is ? 1 : 0;
    EXPECT_EQ(role.num_vars,
              plan.layout.accumulation * (BatchVars::size() + moe * role.route.size()));
    ASSERT_EQ(role.var_names.size(), static_cast<std::size_t>(role.num_vars));
    EXPECT_EQ(std::count_if(role.var_names.begin(), role.var_names.end(),
                            [](const std::string& n) { return !n.empty(); }),
              plan.layout.accumulation * (1 + moe));
    const auto fits = [&](const SizeExpr& e, VarBase vars) {
      if (e.is_constant()) return true;
      const std::int32_t base = e.scope == VarScope::kRoute ? vars.route : vars.batch;
      return base >= 0 && base + e.offset < role.num_vars;
    };
    for (const Buffer& b : role.buffers) {
      EXPECT_TRUE(fits(b.bytes, b.vars)) << b.name;
      EXPECT_TRUE(fits(b.rows, b.vars)) << b.name;
      if (b.cls != BufferClass::kSaved) {
        EXPECT_EQ(b.bytes, b.rows * (b.cols * size_of(b.dtype)));
      }
    }
  });
}

}  // namespace
}  // namespace orrery
