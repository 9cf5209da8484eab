// Outputs in the formats of measuring tools, in tool_outputs/. Hosts, devices and every figure are
// made up.
#pragma once

#include <string>

#include "core/configs.h"

namespace orrery::tool_outputs {

inline std::string output(const char* file) {
  return read_file(std::string(ORRERY_SOURCE_DIR) + "/tests/simulator/tool_outputs/" + file)
      .value();
}

// Four devices of one host. 11 us where bytes do not matter; 40 MB: a rank sends 30 MB in 200 us
// above that.
inline const std::string kAllGather = output("all_gather.out");

// Two hosts with two devices each, labelled by mpirun, other processes' words between and within.
// No name of a test: a row is not checked in place, so it is an exchange. 24 us where bytes do not
// matter; 4 MB: 400 us above that.
inline const std::string kExchangeOfTwoHosts = output("exchange_two_hosts.out");

// Two devices: to them 55 and 53 GB/s, from them 50 and 52, between them 80.
inline const std::string kNvbandwidth = output("nvbandwidth.out");
inline const std::string kNvbandwidthJson = output("nvbandwidth.json");

// Four devices and two NICs; one pair without NVLink.
inline const std::string kTopology = output("topology.out");

inline const std::string kSamples = output("samples.json");

}  // namespace orrery::tool_outputs
