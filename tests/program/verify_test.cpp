// The verifier against programs that are wrong in one place: a table of seeded mutations, then
// every dependency and every op of a program left out in turn.
#include "core/program/verify.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "core/program/lower.h"
#include "core/program/lowering.h"
#include "tests/support/mutate.h"
#include "tests/support/plans.h"

namespace orrery {
namespace {

// Every kind of op and group is in it: 8 ranks, dense replicate 2 x fsdp 4, experts replicate 2 x
// fsdp 2 x ep 2, one dense layer, one recomputed, chunked loss, two micro-batches.
Plan rich_plan() {
  Plan plan = small_moe_plan(8, 2);
  plan.model = small_moe_model(3);
  plan.model.moe_layer[1] = false;
  plan.layout.fsdp_d = 4;
  plan.layout.replicate_d = 2;
  plan.layout.fsdp_e = plan.layout.replicate_e = 2;
  plan.chunks.loss_tokens = 3;
  plan.policy.recompute_layers = 1;
  seal(plan);
  return plan;
}

std::set<std::string> rules_of(const Program& program) {
  std::set<std::string> rules;
  for (const Finding& f : verify(program)) rules.insert(f.rule);
  return rules;
}

std::string text_of(const std::set<std::string>& rules) {
  std::string text;
  for (const std::string& rule : rules) text += rule + " ";
  return text;
}

Op& op_at(Role& role, const std::string& path, Phase phase, std::int32_t m = 0) {
  return role.ops[find_op(role, path, phase, m)];
}
Op& op_at(Role& role, OpKind kind) {
  return role.ops[find_op(role, kind)];
}
Buffer& buffer_at(Role& role, BufferId b) {
  return role.buffers[static_cast<std::size_t>(b)];
}

void drop_dependencies(Op& op) {
  op.deps.clear();
}

// An exchange of rows Y, and the last op X of the fsdp lane before it, which nothing between waits
// for: X and Y may run in either order.
std::pair<std::size_t, std::size_t> independent_collectives(const Role& role) {
  std::size_t x = role.ops.size();
  for (std::size_t y = 0; y < role.ops.size(); ++y) {
    if (role.ops[y].lane == Lane::kFsdp) x = y;
    if (role.ops[y].kind != OpKind::kAllToAllV || x == role.ops.size()) continue;
    bool free = true;
    for (std::size_t i = x + 1; i <= y; ++i) {
      const auto& deps = role.ops[i].deps;
      free = free && std::find(deps.begin(), deps.end(), static_cast<OpId>(x)) == deps.end();
    }
    if (free) return {x, y};
  }
  ADD_FAILURE() << "no independent collectives";
  return {0, 0};
}

struct Mutation {
  const char* name;
  const char* rule;
  bool split;  // into two roles; the mutation gets the second
  std::function<void(Program&, Role&)> damage;
};

const Phase kF = Phase::kForward, kB = Phase::kBackward, kO = Phase::kOptimizer;

std::vector<Mutation> world_mutations() {
  return {
      {"crossed_lanes", "cycle", true,
       [](Program& p, Role& odd) {
         const auto [x, y] = independent_collectives(odd);
         p.roles[0].ops[y].deps.push_back(static_cast<OpId>(x));
         move_op(odd, x, y);  // x now follows y, which is at y - 1
         odd.ops[y].deps.push_back(static_cast<OpId>(y) - 1);
       }},
      {"missing_member", "collective_members", true,
       [](Program&, Role& r) {
         drop_op(r, find_op(r, OpKind::kReduceScatter));
         relower(r);
       }},
      {"swapped_gathers", "collective_order", true,
       [](Program&, Role& r) {
         const std::size_t first = find_op(r, OpKind::kAllGather);
         ASSERT_EQ(r.ops[first + 1].kind, OpKind::kAllGather);
         move_op(r, first, first + 1);
       }},
      {"other_kind", "collective_order", true,
       [](Program&, Role& r) { op_at(r, OpKind::kAllGather).kind = OpKind::kReduceScatter; }},
      {"bad_stride", "bad_group", false, [](Program& p, Role&) { p.groups[1].stride = 3; }},
      {"bad_size_of_group", "bad_group", false, [](Program& p, Role&) { p.groups[3].size = 0; }},
      {"huge_group", "bad_group", false,
       [](Program& p, Role&) { p.groups[3].size = p.groups[3].stride = 1 << 20; }},
      {"exchange_in_another_group", "bad_group", false,
       [](Program&, Role& r) { op_at(r, OpKind::kAllToAllV).group = 4; }},
      {"metrics_of_a_part", "bad_group", false,
       [](Program&, Role& r) { op_at(r, OpKind::kReduceMetrics).group = 1; }},
      {"no_role", "role_ranks", false, [](Program&, Role& r) { r.ranks.pop_back(); }},
      {"two_roles", "role_ranks", true,
       [](Program& p, Role& r) { r.ranks.push_back(p.roles[0].ranks[0]); }},
      {"rank_outside", "role_ranks", false, [](Program&, Role& r) { r.ranks[0] = 99; }},
      {"empty_world", "role_ranks", false, [](Program& p, Role&) { p.world = 0; }},
  };
}

std::vector<Mutation> order_mutations() {
  return {
      {"duplicate_key", "unique_key", false,
       [](Program&, Role& r) { r.ops[5].key = r.ops[4].key; }},
      {"dependency_on_later", "dependency_order", false,
       [](Program&, Role& r) { r.ops[3].deps.push_back(7); }},
      {"dependency_on_itself", "dependency_order", false,
       [](Program&, Role& r) { r.ops[3].deps.push_back(3); }},
      {"dependency_outside", "dependency_order", false,
       [](Program&, Role& r) { r.ops[3].deps.push_back(1 << 20); }},
      {"gather_not_awaited", "race", false,
       [](Program&, Role& r) { drop_dependencies(op_at(r, "layer.0/attn", kF)); }},
      {"gradient_not_awaited", "race", false,
       [](Program&, Role& r) { drop_dependencies(op_at(r, "layer.2/reduce", kB)); }},
      {"norm_not_awaiting_replicas", "race", false,
       [](Program&, Role& r) { drop_dependencies(op_at(r, "optimizer/norm", kO, 1)); }},
      {"count_overwritten_while_read", "race", false,
       [](Program&, Role& r) {
         // The labels are written again, in place, without waiting for the count that reads them.
         Op& embed = op_at(r, "embed", kF);
         embed.metrics = op_at(r, OpKind::kLoadBatch).out[1];
         embed.deps.clear();
       }},
      {"gather_posted_early", "issue_order", false,
       [](Program&, Role& r) { drop_dependencies(op_at(r, "layer.1/gather", kF)); }},
      {"collective_on_compute", "lane_of_kind", false,
       [](Program&, Role& r) { op_at(r, OpKind::kAllGather).lane = Lane::kCompute; }},
      {"compute_on_ep", "lane_of_kind", false,
       [](Program&, Role& r) { op_at(r, "layer.0/attn", kF).lane = Lane::kEp; }},
      {"no_host_sync", "host_sync", false,
       [](Program&, Role& r) { op_at(r, OpKind::kExchangeCounts).host_sync = false; }},
      {"operand_outside", "operand_range", false,
       [](Program&, Role& r) { op_at(r, "layer.0/attn", kF).in[0] = 1 << 20; }},
      {"block_outside", "operand_range", false,
       [](Program&, Role& r) { op_at(r, "layer.0/attn", kF).block = 99; }},
      {"unit_missing", "operand_range", false,
       [](Program&, Role& r) { op_at(r, OpKind::kOptimizerStep).unit = -1; }},
      {"group_outside", "operand_range", false,
       [](Program&, Role& r) { op_at(r, OpKind::kAllGather).group = -1; }},
      {"free_of_nothing", "operand_range", false,
       [](Program&, Role& r) { r.ops[0].frees.push_back(-1); }},
  };
}

std::vector<Mutation> lifetime_mutations() {
  return {
      {"freed_too_early", "use_after_free", false,
       [](Program&, Role& r) {
         const BufferId x = op_at(r, "layer.1/attn", kF).in[0];
         Op& old = r.ops[static_cast<std::size_t>(buffer_at(r, x).freed_by)];
         old.frees.erase(std::find(old.frees.begin(), old.frees.end(), x));
         const std::size_t early = find_op(r, "layer.1/attn", kF);
         r.ops[early].frees.push_back(x);
         buffer_at(r, x).freed_by = static_cast<OpId>(early);
       }},
      {"leak", "leak", false,
       [](Program&, Role& r) {
         const BufferId x = op_at(r, "layer.1/attn", kF).in[0];
         Op& old = r.ops[static_cast<std::size_t>(buffer_at(r, x).freed_by)];
         old.frees.erase(std::find(old.frees.begin(), old.frees.end(), x));
       }},
      {"leak_by_buffer", "leak", false,
       [](Program&, Role& r) { buffer_at(r, op_at(r, "layer.1/attn", kF).in[0]).freed_by = -1; }},
      {"double_free", "free_mismatch", false,
       [](Program&, Role& r) {
         const BufferId x = op_at(r, "layer.1/attn", kF).in[0];
         op_at(r, OpKind::kGradNorm).frees.push_back(x);
       }},
      {"free_on_communication", "free_mismatch", false,
       [](Program&, Role& r) {
         const BufferId x = op_at(r, "layer.1/attn", kF).in[0];
         Op& old = r.ops[static_cast<std::size_t>(buffer_at(r, x).freed_by)];
         old.frees.erase(std::find(old.frees.begin(), old.frees.end(), x));
         const std::size_t late = find_op(r, OpKind::kReduceMetrics);
         r.ops[late].frees.push_back(x);
         buffer_at(r, x).freed_by = static_cast<OpId>(late);
       }},
      {"taken_by_another", "free_mismatch", false,
       [](Program&, Role& r) { ++buffer_at(r, op_at(r, "layer.1/attn", kF).out[0]).taken_by; }},
      {"freed_shard", "free_mismatch", false,
       [](Program&, Role& r) { r.ops.back().frees.push_back(r.units[0].shard); }},
  };
}

std::vector<Mutation> write_mutations() {
  return {
      {"read_before_write", "not_written", false,
       [](Program&, Role& r) {
         op_at(r, "layer.0/attn", kF).in[0] = op_at(r, "layer.2/attn", kF).in[0];
       }},
      {"dropped_gather", "not_written", false,
       [](Program&, Role& r) {
         drop_op(r, find_op(r, "layer.1/gather", kF));
         relower(r);
       }},
      {"written_twice", "written_twice", false,
       [](Program&, Role& r) {
         op_at(r, "layer.1/attn", kF).out[0] = op_at(r, "layer.0/attn", kF).out[0];
       }},
      {"slices_overlap", "written_twice", false,
       [](Program&, Role& r) {
         Op& second = r.ops[find_op(r, "head/loss", kF) + 1];
         second.row_begin -= 1;
         second.row_end -= 1;
       }},
      {"slices_leave_a_gap", "not_written", false,
       [](Program&, Role& r) {
         drop_op(r, find_op(r, "head/loss", kF) + 1);
         relower(r);
       }},
      {"negative_size", "bad_size", false,
       [](Program&, Role& r) { r.buffers[0].bytes = SizeExpr::constant(-8); }},
      {"variable_without_record", "bad_size", false,
       [](Program&, Role& r) {
         buffer_at(r, op_at(r, OpKind::kAllToAllV).out[0]).vars.route = -1;
       }},
      {"record_of_another_layer", "bad_size", false,
       [](Program&, Role& r) {
         op_at(r, "layer.2/moe/experts", kF).vars = op_at(r, "layer.0/moe/experts", kF).vars;
       }},
      {"record_outside_the_table", "bad_size", false,
       [](Program&, Role& r) { op_at(r, OpKind::kAllToAllV).vars.route = r.num_vars; }},
  };
}

std::vector<Mutation> size_mutations() {
  const auto other_rows = [](Role& r, BufferId b) { buffer_at(r, b).rows.c0 += 1; };
  return {
      {"activation_rows", "size_mismatch", false,
       [=](Program&, Role& r) { other_rows(r, op_at(r, "layer.1/mlp", kF).out[0]); }},
      {"activation_dtype", "size_mismatch", false,
       [](Program&, Role& r) {
         buffer_at(r, op_at(r, "layer.1/mlp", kF).out[0]).dtype = DType::kFloat64;
       }},
      {"gathered_rows", "size_mismatch", false,
       [=](Program&, Role& r) { other_rows(r, op_at(r, OpKind::kAllGather).out[0]); }},
      {"gathered_dtype", "size_mismatch", false,
       [](Program&, Role& r) {
         buffer_at(r, op_at(r, OpKind::kAllGather).out[0]).dtype = DType::kBFloat16;
       }},
      {"gather_of_another_shard", "size_mismatch", false,
       [](Program&, Role& r) { op_at(r, OpKind::kAllGather).in[0] = r.units[2].shard; }},
      {"reduced_rows", "size_mismatch", false,
       [=](Program&, Role& r) { other_rows(r, op_at(r, OpKind::kReduceScatter).out[0]); }},
      {"gradient_rows", "size_mismatch", false,
       [=](Program&, Role& r) { other_rows(r, op_at(r, OpKind::kReduceScatter).in[0]); }},
      {"accumulated_rows", "size_mismatch", false,
       [=](Program&, Role& r) { other_rows(r, op_at(r, OpKind::kAccumulate).updates[0]); }},
      {"moment_rows", "size_mismatch", false,
       [=](Program&, Role& r) { other_rows(r, r.units[0].moment2); }},
      {"routed_width", "size_mismatch", false,
       [](Program&, Role& r) { buffer_at(r, op_at(r, OpKind::kAllToAllV).out[0]).cols += 1; }},
      {"routed_direction", "size_mismatch", false,
       [](Program&, Role& r) { op_at(r, OpKind::kAllToAllV).direction = Direction::kCombine; }},
      {"received_counts", "size_mismatch", false,
       [](Program&, Role& r) { buffer_at(r, op_at(r, OpKind::kExchangeCounts).out[0]).cols += 1; }},
      {"tape_bytes", "size_mismatch", false,
       [](Program&, Role& r) {
         Buffer& tape = buffer_at(r, op_at(r, "layer.1/attn", kF).out.back());
         tape.bytes = tape.bytes.plus(1);
       }},
      {"missing_tape", "size_mismatch", false,
       [](Program&, Role& r) { op_at(r, "layer.1/attn", kB).in[1] = -1; }},
      {"missing_received_counts", "size_mismatch", false,
       [](Program&, Role& r) { op_at(r, "layer.2/moe/experts", kF).in.pop_back(); }},
      {"missing_label_count", "size_mismatch", false,
       [](Program&, Role& r) { op_at(r, "head/loss", kF).in.pop_back(); }},
      {"missing_input_gradient", "size_mismatch", false,
       [](Program&, Role& r) { op_at(r, "layer.1/mlp", kB).out[0] = -1; }},
      {"block_of_another_layer_kind", "size_mismatch", false,
       [](Program&, Role& r) {
         op_at(r, "layer.1/mlp", kF).block = op_at(r, "layer.2/moe/merge", kF).block;
       }},
      {"expert_group_of_counts", "size_mismatch", false,
       [](Program&, Role& r) { op_at(r, OpKind::kExchangeCounts).group = 0; }},
  };
}

std::vector<Mutation> unit_mutations() {
  return {
      {"parameters_of_another_unit", "not_gathered", false,
       [](Program&, Role& r) {
         op_at(r, "layer.1/attn", kF).params[0] = op_at(r, "layer.0/attn", kF).params[0];
       }},
      {"no_parameters", "not_gathered", false,
       [](Program&, Role& r) { op_at(r, "layer.1/attn", kF).params[0] = -1; }},
      {"reduced_before_last_use", "reduced_too_early", false,
       [](Program&, Role& r) {
         // To before the backward of attention, which follows that of the mlp.
         move_op(r, find_op(r, "layer.1/reduce", kB), find_op(r, "layer.1/attn", kB));
         relower(r);
       }},
      {"no_optimizer_step", "not_updated", false,
       [](Program&, Role& r) {
         drop_op(r, find_op(r, OpKind::kOptimizerStep));
         relower(r);
       }},
      {"step_of_another_unit", "not_updated", false,
       [](Program&, Role& r) { op_at(r, OpKind::kOptimizerStep).unit = 1; }},
      {"step_before_norm", "not_updated", false,
       [](Program&, Role& r) {
         move_op(r, find_op(r, OpKind::kOptimizerStep), find_op(r, OpKind::kGradNorm));
         relower(r);
       }},
      {"wrong_shard_group", "not_reduced", false,
       [](Program&, Role& r) { op_at(r, OpKind::kReduceScatter).group = 0; }},
      {"wrong_replicate_group", "not_reduced", false,
       [](Program&, Role& r) { op_at(r, "layer.1/replicate", kB, 1).group = 0; }},
      {"gradient_not_kept", "not_reduced", false,
       [](Program&, Role& r) { op_at(r, "layer.1/mlp", kB).updates[0] = -1; }},
      {"replicas_not_summed", "not_reduced", false,
       [](Program&, Role& r) {
         drop_op(r, find_op(r, "layer.1/replicate", kB, 1));
         relower(r);
       }},
      {"micro_batch_not_accumulated", "not_reduced", false,
       [](Program&, Role& r) {
         drop_op(r, find_op(r, "layer.1/accumulate", kB, 0));
         relower(r);
       }},
      {"no_backward", "missing_backward", false,
       [](Program&, Role& r) {
         drop_op(r, find_op(r, "embed", kB));
         relower(r);
       }},
      {"tape_of_another_micro_batch", "wrong_operand", false,
       [](Program&, Role& r) {
         op_at(r, "layer.2/attn", kB, 1).in[1] = op_at(r, "layer.2/attn", kB, 0).in[1];
         relower(r);
       }},
      {"input_of_another_layer", "wrong_operand", false,
       [](Program&, Role& r) {
         op_at(r, "layer.2/attn", kB).in[2] = op_at(r, "layer.1/attn", kB).in[2];
         relower(r);
       }},
  };
}

void refuse(const std::vector<Mutation>& mutations) {
  const Program good = lower(rich_plan());
  ASSERT_TRUE(verify(good).empty());
  for (const Mutation& m : mutations) {
    SCOPED_TRACE(m.name);
    Program bad = m.split ? split_roles(good) : good;
    m.damage(bad, bad.roles.back());
    const std::set<std::string> rules = rules_of(bad);
    EXPECT_EQ(rules.count(m.rule), 1U) << "found: " << text_of(rules);
  }
}

TEST(Verifier, RefusesBadWorlds) {
  refuse(world_mutations());
}
TEST(Verifier, RefusesBadOrder) {
  refuse(order_mutations());
}
TEST(Verifier, RefusesBadLifetimes) {
  refuse(lifetime_mutations());
}
TEST(Verifier, RefusesBadWrites) {
  refuse(write_mutations());
}
TEST(Verifier, RefusesBadSizes) {
  refuse(size_mutations());
}
TEST(Verifier, RefusesBadUnits) {
  refuse(unit_mutations());
}

TEST(Verifier, EveryRuleHasAMutation) {
  std::set<std::string> tested;
  for (const auto& table : {world_mutations(), order_mutations(), lifetime_mutations(),
                            write_mutations(), size_mutations(), unit_mutations()}) {
    for (const Mutation& m : table) tested.insert(m.rule);
  }
  const std::set<std::string> rules = {"unique_key",
                                       "operand_range",
                                       "dependency_order",
                                       "issue_order",
                                       "cycle",
                                       "not_written",
                                       "written_twice",
                                       "race",
                                       "use_after_free",
                                       "leak",
                                       "free_mismatch",
                                       "size_mismatch",
                                       "bad_size",
                                       "lane_of_kind",
                                       "bad_group",
                                       "role_ranks",
                                       "host_sync",
                                       "collective_members",
                                       "collective_order",
                                       "reduced_too_early",
                                       "not_reduced",
                                       "not_gathered",
                                       "not_updated",
                                       "missing_backward",
                                       "wrong_operand"};
  EXPECT_EQ(tested, rules);
}

TEST(Verifier, AcceptsSplitRoles) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    for (const Finding& f : verify(split_roles(lower(random_plan(seed))))) {
      ADD_FAILURE() << "seed " << seed << ": " << f.rule << ": " << f.message;
    }
  }
}

TEST(Verifier, RelowerIsWhatLoweringDid) {  // so that mutations differ by their damage only
  const Program good = lower(rich_plan());
  Program again = good;
  relower(again.roles[0]);
  EXPECT_EQ(again.hash(), good.hash());
}

// A dependency is needed, and its loss noticed, or it changes nothing of what is known to have
// ended before what: then the lane clocks are the same without it.
TEST(Verifier, NoticesEveryLostDependency) {
  std::vector<Plan> plans = {rich_plan(), small_dense_plan(2), small_moe_plan(1, 1)};
  for (std::uint64_t seed = 0; seed < 6; ++seed) plans.push_back(random_plan(seed));
  std::int64_t noticed = 0, redundant = 0;
  for (const Plan& plan : plans) {
    const Program good = lower(plan);
    const auto clocks = lane_clocks(good.roles[0]);
    for (std::size_t i = 0; i < good.roles[0].ops.size(); ++i) {
      for (std::size_t d = 0; d < good.roles[0].ops[i].deps.size(); ++d) {
        Program bad = good;
        auto& deps = bad.roles[0].ops[i].deps;
        deps.erase(deps.begin() + static_cast<std::ptrdiff_t>(d));
        if (!verify(bad).empty()) {
          ++noticed;
          continue;
        }
        ++redundant;
        EXPECT_EQ(lane_clocks(bad.roles[0]), clocks)
            << describe(plan.layout, plan.chunks, plan.policy) << ": op " << i << " "
            << good.roles[0].ops[i].path << " no longer waits for "
            << good.roles[0].ops[static_cast<std::size_t>(good.roles[0].ops[i].deps[d])].path;
      }
    }
  }
  EXPECT_GT(noticed, 300);
  EXPECT_GT(noticed, redundant);
}

// The same of ops: the program that lowering would give if it forgot one.
TEST(Verifier, NoticesEveryLostOp) {
  std::vector<Plan> plans = {rich_plan(), small_dense_plan(2), small_moe_plan(1, 1)};
  plans.push_back(rich_plan());
  plans.back().workload.balance_scope = BalanceScope::kMicrobatchGlobal;
  seal(plans.back());
  for (std::uint64_t seed = 10; seed < 30; ++seed) plans.push_back(random_plan(seed));
  for (const Plan& plan : plans) {
    const Program good = lower(plan);
    for (std::size_t i = 0; i < good.roles[0].ops.size(); ++i) {
      const Op& lost = good.roles[0].ops[i];
      Program bad = good;
      drop_op(bad.roles[0], i);
      relower(bad.roles[0]);
      EXPECT_FALSE(verify(bad).empty())
          << describe(plan.layout, plan.chunks, plan.policy) << ": " << lost.path << " "
          << name_of(lost.phase) << " " << lost.micro_batch;
    }
  }
}

}  // namespace
}  // namespace orrery
