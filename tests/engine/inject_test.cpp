// The words of a fault, and which faults a program can have.
#include "engine/inject.h"

#include <gtest/gtest.h>

#include "core/program/lower.h"
#include "tests/support/plans.h"

namespace orrery::engine {
namespace {

TEST(Fault, ReadsItsWords) {
  const auto fault = parse_fault("slow:rank=2,step=5,op=layer.1/attn,seconds=0.25", "--inject");
  ASSERT_TRUE(fault.ok()) << fault.error().text();
  EXPECT_EQ(fault.value().kind, FaultKind::kSlow);
  EXPECT_EQ(fault.value().rank, 2);
  EXPECT_EQ(fault.value().step, 5);
  EXPECT_EQ(fault.value().op, "layer.1/attn");
  EXPECT_EQ(fault.value().seconds, 0.25);
  EXPECT_EQ(parse_fault("kill", "").value().rank, 0);
  for (const char* wrong : {"", "explode", "kill:", "kill:rank=one", "kill:rank=-1", "kill:when=1",
                            "kill:op=", "kill:rank=1,,step=1", "slow:seconds=1s"}) {
    const auto refused = parse_fault(wrong, "--inject");
    ASSERT_FALSE(refused.ok()) << wrong;
    EXPECT_EQ(refused.error().code, ErrorCode::kUsage);
    EXPECT_NE(refused.error().text().find("--inject"), std::string::npos);
  }
}

TEST(Fault, MustFitTheProgram) {
  const Program program = lower(small_moe_plan(2, 2, 1));
  const auto fits = [&](const char* text) {
    return check_fault(parse_fault(text, "").value(), program, "").ok();
  };
  for (const char* good :
       {"kill:rank=1", "hang:op=layer.0/moe/dispatch", "hang:op=layer.1/attn", "oom", "nan",
        "mismatch", "sizes:op=layer.0/moe/dispatch", "nan:op=optimizer/norm"}) {
    EXPECT_TRUE(fits(good)) << good;
  }
  for (const char* bad : {"kill:rank=2", "kill:op=layer.9/attn", "oom:op=layer.0/moe/dispatch",
                          "mismatch:op=layer.1/attn", "sizes:op=layer.1/attn"}) {
    EXPECT_FALSE(fits(bad)) << bad;
  }
  // Alone there is nobody to disagree with.
  const Program alone = lower(small_dense_plan(1, 1));
  EXPECT_FALSE(check_fault(parse_fault("mismatch", "").value(), alone, "").ok());
}

}  // namespace
}  // namespace orrery::engine
