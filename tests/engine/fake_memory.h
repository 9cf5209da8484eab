// The memory of fake devices. Only for fake_*.cpp.
#pragma once

#include <c10/core/Allocator.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/engine/fake_stream.h"

namespace orrery::engine::test {

// A block of memory from its allocation until the stream it was allocated on has passed its free.
struct FakeBlock {
  char* raw = nullptr;  // guard bytes, data, guard bytes
  std::size_t bytes = 0;
  int device = 0;
  int stream = 0;
  bool freed = false;  // in the order of its stream; guarded by the memory's mutex
};

// The stream of a device; 0 is the default one. Made at its first use, never destroyed.
FakeStream& fake_stream(int device, int stream);
inline constexpr int kFakeStreams = 13;
int& current_fake_device();            // of this thread
int& current_fake_stream(int device);  // of this thread

// A new block on the current stream, full of ones.
c10::DataPtr allocate_fake(std::size_t bytes);
// The live block at the address that an allocation returned; null where there is none.
std::shared_ptr<FakeBlock> fake_block(const void* data);
// Notes a fault where one of the blocks is freed by now.
void expect_live(const std::vector<std::shared_ptr<FakeBlock>>& blocks, const std::string& who);

}  // namespace orrery::engine::test
