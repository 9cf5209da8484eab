// One script of collectives with inputs that depend only on (seed, rank), and what each rank must
// hold after it, computed by brute force from all ranks' inputs. Used by threads and by MPI.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/program/program.h"
#include "engine/comm/communicator.h"

namespace orrery::engine::test {

using Bytes = std::vector<std::uint8_t>;

// What one rank holds after the script: the result of each collective, and its traffic.
struct Outcome {
  std::vector<std::string> names;
  std::vector<Bytes> results;
  std::vector<Traffic> traffic;
  // Of an expected outcome, by call: the type, and the sums of absolute values that a sum's
  // rounding is relative to (empty where data only move).
  std::vector<DType> dtypes;
  std::vector<std::vector<double>> magnitudes;
};

// The groups of a world: all of it, halves of neighbours, pairs at half the world's distance, and
// each rank alone.
std::vector<Group> groups_of(std::int32_t world);

// Runs the script over a channel whose member i is world rank first + i * stride.
Result<Outcome> run_script(Channel& channel, std::uint64_t seed, std::int32_t first,
                           std::int32_t stride);

// The same from the definition of each collective, for member `index` of `size`.
Outcome expected_outcome(std::uint64_t seed, std::int32_t size, std::int32_t index,
                         std::int32_t first, std::int32_t stride);

// Empty when equal, else what differs.
std::string difference(const Outcome& actual, const Outcome& expected);
// The same for a back end whose sums of `members` terms round in an order of their own. What only
// moves, and sums of int64, must be equal.
std::string difference_but_rounding(const Outcome& actual, const Outcome& expected,
                                    std::int32_t members);

// bf16 rounding by comparing distances to both neighbours, as an independent reference.
std::uint16_t nearest_bf16(float value);

}  // namespace orrery::engine::test
