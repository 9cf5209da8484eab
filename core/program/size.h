// Sizes that may depend on data: c0 + c1 * v, where v is a size variable of the program.
// A binding gives the variables values: the simulator draws one, the engine records its own.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/check.h"

namespace orrery {

// Variables come in records; an op says where its records start in the role's variable table.
enum class VarScope : std::uint8_t {
  kNone,   // a constant
  kRoute,  // one record a (MoE layer, micro-batch): see RouteVars
  kBatch,  // one record a micro-batch: see BatchVars
};

// Where an op's records start; -1 where the op has none. Indexes into Binding::values.
struct VarBase {
  std::int32_t route = -1;
  std::int32_t batch = -1;
};

struct SizeExpr {
  std::int64_t c0 = 0;
  std::int64_t c1 = 0;
  VarScope scope = VarScope::kNone;
  std::int32_t offset = 0;  // of the variable in its record

  static SizeExpr constant(std::int64_t value) { return {value, 0, VarScope::kNone, 0}; }
  bool is_constant() const { return c1 == 0; }
  SizeExpr operator*(std::int64_t factor) const {
    return {c0 * factor, c1 * factor, scope, offset};
  }
  SizeExpr plus(std::int64_t value) const { return {c0 + value, c1, scope, offset}; }

  std::int64_t eval(const std::vector<std::int64_t>& values, VarBase base) const {
    if (c1 == 0) return c0;
    const std::int32_t start = scope == VarScope::kRoute ? base.route : base.batch;
    ORRERY_CHECK(start >= 0, "a size expression refers to a record that its op does not have");
    return c0 + c1 * values[static_cast<std::size_t>(start + offset)];
  }
  bool operator==(const SizeExpr&) const = default;
};

// The record of one part of one (MoE layer, micro-batch)'s exchange on one rank, with `ep` peers in
// the expert group and `local_experts` resident experts in the part; the parts' records follow each
// other:
//   [0] rows received in all, [1..ep] rows sent to each peer, [..+ep] rows received from each peer,
//   [..+local_experts] rows received by each local expert.
struct RouteVars {
  std::int32_t ep = 1;
  std::int32_t local_experts = 0;
  static constexpr std::int32_t rows() { return 0; }
  std::int32_t sent(std::int32_t peer) const { return 1 + peer; }
  std::int32_t received(std::int32_t peer) const { return 1 + ep + peer; }
  std::int32_t expert_rows(std::int32_t expert) const { return 1 + 2 * ep + expert; }
  std::int32_t size() const { return 1 + 2 * ep + local_experts; }
};

// The record of one micro-batch: [0] query-key pairs inside documents, sum of len * (len + 1) / 2.
struct BatchVars {
  static constexpr std::int32_t pairs() { return 0; }
  static constexpr std::int32_t size() { return 1; }
};

// The values of a role's size variables on one rank in one step.
struct Binding {
  std::int32_t rank = 0;
  std::int32_t step = 0;
  std::vector<std::int64_t> values;
};

}  // namespace orrery
