// A slow link where there is none: every collective of a communicator takes at least as long as
// over a link of a given bandwidth and latency. By sleeping on the lane's own thread, so that the
// cores stay free, as they do while a NIC works.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/units.h"
#include "engine/comm/communicator.h"

namespace orrery::engine {

struct LinkOptions {
  BytesPerSecond bandwidth;         // of a rank, each direction
  Seconds latency;                  // of one message step
  bool shared = false;              // one link for all lanes and groups of a rank, as a NIC is
  std::vector<std::string> only{};  // names of lanes or groups; empty: all
};

// "100 Mbit/s,1 ms", then any of ",shared" and ",<lane or group>". Error kUsage that names `where`.
Result<LinkOptions> parse_link(const std::string& text, const std::string& where);
std::string to_text(const LinkOptions& link);  // parse_link() reads it back

// A collective that moved `traffic` ends no earlier than
//   t0 + latency * ceil(log2 n) + max(sent, received) / bandwidth
// of any member, which is the price of one tier of a cluster file (simulator/network.cpp). t0 is
// when its members had met at the rendezvous, or the call itself where there was none. With
// `shared`, transfers of a rank queue in the order in which they begin. `inner` outlives the
// result; rendezvous, clock and abort are its own. Bug if a name is unknown.
std::unique_ptr<Communicator> make_emulated(Communicator& inner, const std::vector<Group>& groups,
                                            const LinkOptions& link);

// Whether the name in `only` is a lane or one of the groups; error kUsage that names `where`.
Status check_link(const LinkOptions& link, const std::vector<Group>& groups,
                  const std::string& where);

}  // namespace orrery::engine
