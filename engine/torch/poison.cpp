// See poison.h.
#include "engine/torch/poison.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstdint>
#include <limits>

#include "engine/torch/compat.h"

namespace orrery::engine {

void poison(const at::Tensor& tensor) {
  CHECK(tensor.numel() > 0 && tensor.is_floating_point(), "nothing to poison");
  tensor.view(-1).narrow(0, 0, 1).fill_(std::numeric_limits<double>::quiet_NaN());
}

void ask_for_too_much() {
  constexpr std::int64_t kPetabyte = std::int64_t{1} << 50;
  const at::Tensor never = at::empty({kPetabyte}, at::kByte);
}

}  // namespace orrery::engine
