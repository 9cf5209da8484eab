// The blocks of the families over a sweep of shapes: every one builds (finish() checks it), its
// schedules conserve bytes, its operands are what family.h says, and cutting a layer over ranks or
// parts changes no sum of work.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>

#include "core/models/family.h"
#include "core/program/work.h"

namespace orrery {
namespace {

constexpr std::int64_t kExperts = 16, kRows = 50;  // rows of a routed record, below

BlockShape shape_of(std::int64_t sp, std::int64_t ep, std::int64_t parts, bool gather) {
  BlockShape s;
  s.sequences = 2;
  s.sequence_tokens = s.valid_tokens = 32;
  s.global_sequences = 8;
  s.dp = 2;
  s.micro_batches = 2;
  s.sp = sp;
  s.ep = ep;
  s.exchange_parts = parts;
  s.gather_dispatch = gather;
  s.attention_query = 8;
  s.loss_tokens = 12;
  s.compute = DType::kBFloat16;
  return s;
}

Model model_of(const char* name) {
  Model m = load_model(name).value();
  if (m.is_moe()) m.balance_coefficient = 0.01;
  return m;
}

std::map<std::string, const Block*> all(const ModelBlocks& b) {
  std::map<std::string, const Block*> blocks;
  for (const Block* block : {&b.embed, &b.attention, &b.qkv, &b.core, &b.out, &b.mlp, &b.router,
                             &b.router_replay, &b.select, &b.select_replay, &b.experts, &b.spread,
                             &b.shared, &b.merge, &b.balance, &b.loss}) {
    if (!block->prims.empty()) blocks[block->name] = block;
  }
  return blocks;
}

std::vector<std::string> names(const Block& block, const std::vector<ValueId>& ids) {
  std::vector<std::string> out;
  for (const ValueId v : ids) out.push_back(block.values[static_cast<std::size_t>(v)].name);
  return out;
}

const std::vector<std::int64_t> kBinding = {kRows, 100};
const VarBase kBase{0, 1};

// What is true of any schedule, from the lists alone.
void check_schedules(const Block& b) {
  const BlockBytes plain = forward_bytes(b, false, kBinding, kBase);
  const BlockBytes tape = forward_bytes(b, true, kBinding, kBase);
  EXPECT_GE(plain.peak, plain.outputs);
  EXPECT_GE(tape.peak, tape.outputs + tape.saved);
  EXPECT_GE(tape.peak, plain.peak);
  EXPECT_EQ(tape.outputs, plain.outputs);
  std::int64_t gradients = 0, loss = 0;
  for (const ValueId v : b.inputs) {
    const Value& value = b.values[static_cast<std::size_t>(v)];
    if (has_grad(value)) gradients += value.bytes().eval(kBinding, kBase);
  }
  std::vector<ValueId> seeded;
  for (const ValueId v : b.inputs) {
    if (has_grad(b.values[static_cast<std::size_t>(v)])) seeded.push_back(v);
  }
  for (const Prim& p : b.prims) loss += is_loss(p.kind) ? 1 : 0;
  for (const auto& seeds : {std::vector<ValueId>{}, seeded}) {
    const BlockBytes back = backward_bytes(b, kBinding, kBase, seeds);
    EXPECT_EQ(back.outputs, gradients);
    EXPECT_GE(back.peak, gradients - tape.saved);
    // Every saved value goes once.
    std::map<ValueId, int> released;
    for (const BackwardStep& step : plan_backward(b, seeds).steps) {
      for (const ValueId v : step.release) ++released[v];
      if (step.reuse_saved) ++released[b.prims[static_cast<std::size_t>(step.prim)].in[0]];
    }
    for (const ValueId v : b.saved) EXPECT_EQ(released[v], 1) << v;
    EXPECT_EQ(released.size(), b.saved.size());
  }
  // A loss is a root even where nobody gives its gradient.
  const BackwardPlan alone = plan_backward(b, {}, b.outputs);
  const auto runs = std::count_if(alone.steps.begin(), alone.steps.end(),
                                  [](const BackwardStep& step) { return !step.skip; });
  EXPECT_EQ(runs > 0, loss > 0);
}

using Visit = std::function<void(const Model&, const BlockShape&, const ModelBlocks&)>;

void sweep(const Visit& visit) {
  for (const char* name : {"qwen3-dense-5m", "qwen3-moe-10m", "dots1-10m"}) {
    const Model m = model_of(name);
    for (const std::int64_t sp : {1, 2, 4, 8}) {
      for (const std::int64_t ep : {1, 2, 4}) {
        for (const std::int64_t parts : {1, 2}) {
          for (const bool gather : {false, true}) {
            if (gather && parts > 1) continue;
            for (const int more : {0, 1, 2}) {
              BlockShape s = shape_of(sp, ep, parts, gather);
              if (more == 1) s.z_loss = 0.001, s.valid_tokens = 30;
              if (more == 2) s.domino = 2, s.balance_scope = BalanceScope::kMicrobatchGlobal;
              SCOPED_TRACE(std::string(name) + " sp " + std::to_string(sp) + " ep " +
                           std::to_string(ep) + " parts " + std::to_string(parts) + " gather " +
                           std::to_string(gather) + " more " + std::to_string(more));
              visit(m, s, family_of(m).blocks(m, s));
            }
          }
        }
      }
    }
  }
}

TEST(ModelBlocks, EveryShapeBuildsAndConservesBytes) {
  int blocks = 0;
  sweep([&](const Model&, const BlockShape&, const ModelBlocks& b) {
    for (const auto& [name, block] : all(b)) {
      SCOPED_TRACE(name);
      check_schedules(*block);
      ++blocks;
    }
  });
  EXPECT_GT(blocks, 1000);
}

TEST(ModelBlocks, AShapeHasTheBlocksItUsesAndNoOther) {
  sweep([](const Model& m, const BlockShape& s, const ModelBlocks& b) {
    std::vector<std::string> expected = {"embed", "loss"};
    if (s.sp == 1) expected.push_back("attention");
    if (s.sp > 1) expected.insert(expected.end(), {"core", "out", "qkv"});
    if (m.model_type != "qwen3_moe") expected.push_back("mlp");
    if (m.is_moe()) {
      expected.insert(expected.end(), {"balance", "experts", "merge", "router", "router_replay"});
      if (s.gather_dispatch) expected.insert(expected.end(), {"select", "select_replay", "spread"});
      if (m.shared_ffn > 0) expected.push_back("shared");
    }
    std::sort(expected.begin(), expected.end());
    std::vector<std::string> got;
    for (const auto& [name, block] : all(b)) got.push_back(name);
    EXPECT_EQ(got, expected);
    EXPECT_EQ(b.loss_tail.prims.empty(), s.tokens() % 12 == 0 || s.tokens() < 12);
  });
}

TEST(ModelBlocks, OperandsAreThoseOfTheContract) {
  using Names = std::vector<std::string>;
  sweep([](const Model& m, const BlockShape& s, const ModelBlocks& b) {
    if (!m.is_moe()) return;
    Names in = {"x1"}, out, replay_in = {"x1", "ids"}, replay_out, more;
    if (m.router_bias) in.push_back("bias");
    if (s.gather_dispatch || m.shared_ffn > 0) more.push_back("normed");
    if (s.z_loss > 0) more.push_back("z_loss");
    if (s.gather_dispatch) {
      out = {"weights", "prob_sum", "counts", "ids", "expert_counts"};
      replay_out = {"weights", "prob_sum"};
      EXPECT_EQ(names(b.select, b.select.inputs), (Names{"normed", "ids"}));
      EXPECT_EQ(names(b.select, b.select.outputs), (Names{"rows", "order"}));
      EXPECT_EQ(names(b.select_replay, b.select_replay.inputs), (Names{"normed", "order"}));
      EXPECT_EQ(names(b.spread, b.spread.inputs), (Names{"rows", "weights", "order"}));
    } else {
      out = {"rows", "weights", "prob_sum", "counts", "ids", "order", "expert_counts"};
      replay_in.push_back("order");
      replay_out = {"rows", "weights", "prob_sum"};
    }
    Names merge = s.gather_dispatch ? Names{"x1", "y"} : Names{"x1", "rows", "weights", "order"};
    if (m.shared_ffn > 0) merge.push_back("shared");
    out.insert(out.end(), more.begin(), more.end());
    replay_out.insert(replay_out.end(), more.begin(), more.end());
    EXPECT_EQ(names(b.router, b.router.inputs), in);
    EXPECT_EQ(names(b.router, b.router.outputs), out);
    EXPECT_EQ(names(b.router_replay, b.router_replay.inputs), replay_in);
    EXPECT_EQ(names(b.router_replay, b.router_replay.outputs), replay_out);
    EXPECT_EQ(names(b.merge, b.merge.inputs), merge);
  });
}

// Parameters that a block names are those of its unit, in shape too; an exchange part has its share
// of the experts. Gradients are as wide as the unit's.
TEST(ModelBlocks, ParametersAreThoseOfTheUnits) {
  sweep([](const Model& m, const BlockShape& s, const ModelBlocks& b) {
    std::map<std::string, std::vector<std::int64_t>> shapes;
    std::map<std::string, DType> grads;
    for (const Unit& unit : family_of(m).units(m, s.ep)) {
      const bool of_layer = unit.name.rfind("layer.", 0) == 0;
      for (const Param& p : unit.params) {
        EXPECT_EQ(p.layer, of_layer ? std::stoi(unit.name.substr(6)) : -1);
        shapes[p.short_name] = p.shape;
        grads[p.short_name] = gradient_dtype(m, s, unit.name);
      }
    }
    std::size_t used = 0;
    for (const auto& [name, block] : all(b)) {
      for (const BlockParam& p : block->params) {
        std::vector<std::int64_t> expected = shapes.at(p.name);
        if (name == "experts") expected[0] /= s.exchange_parts;
        EXPECT_EQ(p.shape, expected) << p.name;
        EXPECT_EQ(p.grad_dtype, grads.at(p.name)) << p.name;
        EXPECT_TRUE(s.domino == 1 || p.grad_dtype == s.master) << p.name;
        ++used;
      }
    }
    EXPECT_GE(used, shapes.size());
  });
}

std::int64_t flops(const std::vector<Work>& work) {
  std::int64_t total = 0;
  for (const Work& w : work) total += w.flops.eval(kBinding, kBase);
  return total;
}

std::int64_t all_flops(const Block& block) {
  return flops(forward_work(block)) + flops(backward_work(block));
}

// A rank of sp does 1/sp of the products of its sequences and of their query-key pairs.
TEST(ModelBlocks, SequenceRanksShareTheWorkOfAttention) {
  for (const char* name : {"qwen3-8b", "dots1-10m"}) {
    const Model m = model_of(name);
    const std::int64_t whole =
        all_flops(family_of(m).blocks(m, shape_of(1, 1, 1, false)).attention);
    for (const std::int64_t sp : {2, 4, 8}) {
      const ModelBlocks b = family_of(m).blocks(m, shape_of(sp, 1, 1, false));
      EXPECT_EQ(sp * (all_flops(b.qkv) + all_flops(b.core) + all_flops(b.out)), whole) << sp;
    }
  }
}

// Rows of the parts sum to the rows; each reads its own experts' weights once.
TEST(ModelBlocks, PartsShareTheWorkOfExperts) {
  const Model m = model_of("dots1-10m");
  for (const std::int64_t ep : {2, 4}) {
    const Block whole = family_of(m).blocks(m, shape_of(1, ep, 1, false)).experts;
    const Block part = family_of(m).blocks(m, shape_of(1, ep, 2, false)).experts;
    const auto at = [](const Block& block, std::int64_t rows) {
      std::int64_t total = 0, bytes = 0;
      for (const Work& w : forward_work(block)) {
        total += w.flops.eval({rows}, {0, -1});
        bytes += w.bytes.eval({rows}, {0, -1});
      }
      return std::make_pair(total, bytes);
    };
    const auto all_rows = at(whole, 70), first = at(part, 30), second = at(part, 40);
    EXPECT_EQ(first.first + second.first, all_rows.first);
    EXPECT_EQ(first.second + second.second, all_rows.second);
  }
}

// Every expert rank of the gathering dispatcher sees every token: its experts' products are the
// same function of its rows.
TEST(ModelBlocks, BothDispatchersDoTheSameProducts) {
  const Model m = model_of("dots1-10m");
  const ModelBlocks a = family_of(m).blocks(m, shape_of(1, 4, 1, false));
  const ModelBlocks g = family_of(m).blocks(m, shape_of(1, 4, 1, true));
  EXPECT_EQ(all_flops(a.experts), all_flops(g.experts));
  EXPECT_EQ(all_flops(a.router), all_flops(g.router));
  EXPECT_EQ(all_flops(a.shared), all_flops(g.shared));
  EXPECT_EQ(g.select.values[0].rows, SizeExpr::constant(4 * 64));
}

const Prim& prim_of(const Block& block, PrimKind kind) {
  for (const Prim& p : block.prims) {
    if (p.kind == kind) return p;
  }
  CHECK(false, "no such primitive");
}

TEST(ModelBlocks, RoutersCarryWhatTheModelSays) {
  const Model m = model_of("dots1-10m");
  BlockShape s = shape_of(2, 4, 2, false);
  s.z_loss = 0.002;
  s.valid_tokens = 30;
  const ModelBlocks b = family_of(m).blocks(m, s);
  for (const auto& [block, kind] : {std::make_pair(&b.router, PrimKind::kTopK),
                                    std::make_pair(&b.router_replay, PrimKind::kTopKReplay)}) {
    const Prim& top = prim_of(*block, kind);
    EXPECT_TRUE(top.sigmoid && top.normalize);
    EXPECT_EQ(top.groups, 4);
    EXPECT_EQ(top.top_groups, 2);
    EXPECT_EQ(top.scalar, 2.5);
    EXPECT_EQ(top.valid_tokens, 30);
    EXPECT_EQ(top.sequence_tokens, 16);
    const Prim& z = prim_of(*block, PrimKind::kZLoss);
    EXPECT_EQ(z.scalar, 0.002 / (8 * 30));
    EXPECT_EQ(z.valid_tokens, 30);
  }
  const Prim& sort = prim_of(b.router, PrimKind::kSortByExpert);
  EXPECT_EQ(sort.parts, 2);
  EXPECT_EQ(sort.peers, 4);
  EXPECT_EQ(sort.experts, kExperts);
  EXPECT_EQ(prim_of(b.experts, PrimKind::kToExpertMajor).experts, kExperts / 8);
  EXPECT_EQ(prim_of(b.qkv, PrimKind::kRope).sequence_tokens, 16);
  // Whole sequences, no padding, one part: nothing of it.
  const ModelBlocks plain = family_of(m).blocks(m, shape_of(1, 4, 1, false));
  EXPECT_EQ(prim_of(plain.router, PrimKind::kTopK).valid_tokens, 0);
  EXPECT_EQ(prim_of(plain.attention, PrimKind::kRope).sequence_tokens, 0);
  EXPECT_EQ(prim_of(plain.router, PrimKind::kSortByExpert).parts, 1);
}

// Heads of keys and values: an equal share, or one repeated where the ranks are more.
TEST(ModelBlocks, KeyHeadsAreSharedOrRepeated) {
  const Model m = model_of("dots1-10m");  // 8 query heads, 4 key heads, of 32 columns
  const std::map<std::int64_t, std::int64_t> columns = {
      {2, (4 + 2 * 2) * 32}, {4, (2 + 2 * 1) * 32}, {8, (1 + 2 * 1) * 32}};
  for (const auto& [sp, cols] : columns) {
    const ModelBlocks b = family_of(m).blocks(m, shape_of(sp, 1, 1, false));
    const Value& packed = b.qkv.values[static_cast<std::size_t>(b.qkv.outputs[0])];
    EXPECT_EQ(packed.cols, cols);
    EXPECT_EQ(packed.rows, SizeExpr::constant(64));
    const Prim& attention = prim_of(b.core, PrimKind::kAttention);
    EXPECT_EQ(attention.heads, 8 / sp);
    EXPECT_EQ(attention.kv_heads, std::max<std::int64_t>(1, 4 / sp));
    EXPECT_EQ(attention.sequence_tokens, 32);
  }
}

}  // namespace
}  // namespace orrery
