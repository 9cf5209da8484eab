// Initial weights from a counter-based generator keyed by (seed, parameter, global element index):
// every layout starts from the same model.
#include <cmath>
#include <numbers>

#include "core/hash.h"
#include "engine/torch/compat.h"
#include "engine/torch/executor_impl.h"

namespace orrery::engine {
namespace {

// Box-Muller on two 53-bit uniforms of one counter.
double normal(std::uint64_t key, std::int64_t index) {
  const std::uint64_t a = mix64(key ^ mix64(static_cast<std::uint64_t>(index)));
  const std::uint64_t b = mix64(a);
  const double u = (static_cast<double>(a >> 11) + 0.5) * 0x1.0p-53;
  const double v = static_cast<double>(b >> 11) * 0x1.0p-53;
  return std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v);
}

template <class T>
void fill(const Program& program, const Unit& unit, std::int32_t rank, std::uint64_t seed,
          double std_dev, T* out) {
  const std::int64_t begin =
      program.groups[static_cast<std::size_t>(unit.shard_group)].index_of(rank) * unit.shard_numel;
  const std::int64_t end = begin + unit.shard_numel;
  std::int64_t first = 0;  // of the parameter in the unit's flat storage
  for (const Param& p : unit.params) {
    const std::uint64_t key = mix64(seed ^ hash64(p.name));
    // An expert parameter is this rank's block of experts of the whole one.
    const std::int64_t global = p.is_expert ? program.ep_group().index_of(rank) * p.numel() : 0;
    const std::int64_t from = std::max(begin, first), to = std::min(end, first + p.numel());
    for (std::int64_t i = from; i < to; ++i) {
      out[i - begin] = p.is_norm ? T(1) : static_cast<T>(std_dev * normal(key, global + i - first));
    }
    first += p.numel();
  }
}

}  // namespace

void initialize_shard(const Program& program, const Unit& unit, std::int32_t rank,
                      std::uint64_t seed, double std_dev, at::Tensor& shard) {
  if (shard.scalar_type() == at::kDouble) {
    fill(program, unit, rank, seed, std_dev, shard.data_ptr<double>());
  } else {
    fill(program, unit, rank, seed, std_dev, shard.data_ptr<float>());
  }
}

}  // namespace orrery::engine
