// Meaning, unit and prior of each. See the header.
#include "simulator/stages/parameters.h"

#include <array>

#include "core/check.h"

namespace orrery::simulator {
namespace {

struct Words {
  const char *name, *meaning, *unit;
  double spread;
  bool of_time = true;
};

constexpr Words kStackWords[] = {
    {"host_per_kernel_s", "the host launches one kernel", "s", 0.7},
    {"pass_factor", "bytes of element-wise passes over what they cannot avoid", "", 0.4},
    {"product_factor", "time of products over that of the device's curve", "", 0.1},
    {"exposed_share", "of what is overlapped, the part that is not hidden", "", 0.7},
    {"step_s", "of each step, beyond its ops: data, logging, host", "s", 1.0},
    {"straggle", "relative wait, a doubling of the ranks that wait for each other", "", 0.7},
    {"reserve_bytes", "allocator and communicators, beyond the device's own", "bytes", 0.7, false}};

struct DeviceParameter {
  const char* name;
  double Attainable::*member;
  const char* meaning;
  double min, max, spread;
};

constexpr DeviceParameter kDevice[] = {
    {"product", &Attainable::product, "of the 16 bit peak, by large products", 0.3, 1, 0.15},
    {"low_product", &Attainable::low_product, "of the 8 bit peak, by large products", 0.2, 1, 0.2},
    {"attention", &Attainable::attention, "of the 16 bit peak, by attention forward", 0.1, 1, 0.25},
    {"attention_backward", &Attainable::attention_backward, "the same backward", 0.1, 1, 0.25},
    {"memory", &Attainable::memory, "of the bandwidth, by large passes", 0.4, 1, 0.1}};

const double kLinkPrior = LinkTier{}.attainable;

std::vector<FreeParameter> registry() {
  std::vector<FreeParameter> rows;
  const Attainable device;
  for (const DeviceParameter& p : kDevice) {
    rows.push_back(
        {Owner::kDevice, p.name, p.meaning, "", p.min, p.max, device.*p.member, p.spread, true});
  }
  rows.push_back({Owner::kLink, "attainable", "of the bandwidth, by large collectives", "", 0.2, 1,
                  kLinkPrior, 0.2, true});
  const Stack prior;
  for (const StackParameter& p : stack_parameters()) {
    const Words* words = nullptr;
    for (const Words& w : kStackWords) {
      if (std::string(w.name) == p.name) words = &w;
    }
    CHECK(words != nullptr, std::string("no meaning of ") + p.name);
    rows.push_back({Owner::kStack, p.name, words->meaning, words->unit, p.min, p.max,
                    prior.*p.member, words->spread, words->of_time});
  }
  return rows;
}

}  // namespace

const char* name_of(Owner owner) {
  constexpr std::array<const char*, 3> names = {"device", "link", "stack"};
  return names[static_cast<std::size_t>(owner)];
}

const std::vector<FreeParameter>& free_parameters() {
  static const std::vector<FreeParameter> rows = registry();
  return rows;
}

void set_parameter(Owner owner, const std::string& of, const std::string& name, double value,
                   Job& job) {
  if (owner == Owner::kDevice) {
    for (const DeviceParameter& p : kDevice) {
      if (name == p.name) job.cluster.device.attainable.*p.member = value;
    }
  } else if (owner == Owner::kLink) {
    for (LinkTier& tier : job.cluster.tiers) {
      if (tier.name == of) tier.attainable = value;
    }
  } else {
    for (const StackParameter& p : stack_parameters()) {
      if (name == p.name) job.stack.*p.member = value;
    }
  }
}

}  // namespace orrery::simulator
