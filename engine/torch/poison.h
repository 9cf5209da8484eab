// What fault injection does to tensors and memory.
#pragma once

namespace at {
class Tensor;
}

namespace orrery::engine {

// Puts a NaN where the tensor (floating point, not empty) begins.
void poison(const at::Tensor& tensor);
// Asks the allocator for a petabyte: throws as any allocation does for which there is no memory.
void ask_for_too_much();

}  // namespace orrery::engine
