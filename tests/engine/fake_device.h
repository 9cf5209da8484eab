// A device that does not exist, registered as libtorch's PrivateUse1. Its memory is the host's, its
// tensors are not the CPU's, and its streams are threads with random delays (fake_stream.h).
//
// What is asynchronous: every operation whose results are tensors it was given (out= and in-place
// variants, copies) runs later, on the stream that was current when it was called; so do the
// engine's collectives and copies on their lanes. What is not: an operation that makes its results
// waits for its own stream first, as a device does at a host synchronisation, and for no other.
//
// What it finds: a missing event between lanes (wrong numbers), memory read before it was written
// (all ones: NaN, or index -1), memory used after it was freed in the order of its stream
// (FakeDevice::faults), a write past the end of a block (faults), work on the default stream that
// nothing orders.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/torch/device.h"

namespace orrery::engine::test {

inline constexpr int kFakeDevices = 8;

// Registers the device with libtorch, once.
void install_fake_device();

// Streams of a device behave as `seed` says from now on; faults are forgotten. Nothing may be under
// way on it.
void reseed_fake_device(int index, std::uint64_t seed);
// What went wrong with the memory of a device since, after all its streams have run dry.
std::vector<std::string> fake_faults(int index);

// Bytes of live blocks.
std::int64_t fake_live_bytes(int index);

// The engine's device on it. Streams come from the pool: at most two such devices an index at once.
std::unique_ptr<Device> make_fake_device(int index);

// Collectives of `communicator`, each run as a job of the stream it was enqueued on. The first
// failure ends the run on all ranks, and comes back where the host waits for the stream.
std::unique_ptr<StreamCommunicator> make_fake_collectives(Communicator& communicator);

}  // namespace orrery::engine::test
