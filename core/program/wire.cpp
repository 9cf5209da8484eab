// The byte counts of the collective algorithms in engine/comm/collectives.cpp.
#include "core/program/wire.h"

#include "core/check.h"

namespace orrery {
namespace {

// The same number of bytes to and from each of the n - 1 peers.
WireBytes with_every_peer(std::int64_t n, std::int64_t bytes) {
  CHECK(n >= 1 && bytes >= 0, "a collective needs members and a size");
  return {(n - 1) * bytes, (n - 1) * bytes};
}

}  // namespace

WireBytes all_gather_wire(std::int64_t n, std::int64_t bytes) {
  return with_every_peer(n, bytes);
}

WireBytes reduce_scatter_wire(std::int64_t n, std::int64_t count, std::int64_t element_bytes) {
  return with_every_peer(n, count * element_bytes);
}

WireBytes all_reduce_wire(std::int64_t n, std::int64_t count, std::int64_t element_bytes) {
  const std::int64_t bytes = count * element_bytes;
  if (bytes <= kAllReduceGatherLimit) return with_every_peer(n, bytes);
  const std::int64_t part = count / n;
  const std::int64_t rest = count % n;
  return with_every_peer(n, (2 * part + rest) * element_bytes);
}

WireBytes exchange_counts_wire(std::int64_t n, std::int64_t counts_per_peer) {
  return with_every_peer(n, counts_per_peer * static_cast<std::int64_t>(sizeof(std::int64_t)));
}

}  // namespace orrery
