// Meaning, unit and prior of each. See the header.
#include "simulator/stages/parameters.h"

#include <algorithm>
#include <array>
#include <cmath>

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
    {"attention_factor", "time of attention over that of the device's curve", "", 0.25},
    {"exposed_share", "of what is overlapped, the part that is not hidden", "", 0.7},
    {"step_s", "of each step, beyond its ops: data, logging, host", "s", 1.0},
    {"straggle", "relative wait, a doubling of the ranks that wait for each other", "", 0.7},
    {"reserve_bytes", "context, communicators and libraries", "bytes", 0.5, false},
    {"fragmentation", "what the allocator takes over what comes and goes in a step", "", 0.1,
     false}};

struct DeviceParameter {
  const char* name;
  double Attainable::*member;
  const char* meaning;
  double min, max, spread;
};

constexpr DeviceParameter kDevice[] = {
    {"product", &Attainable::product, "of the 16 bit peak, by large products", 0.3, 1, 0.1},
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

const FreeParameter* find_parameter(Owner owner, const std::string& name) {
  for (const FreeParameter& p : free_parameters()) {
    if (p.owner == owner && p.name == name) return &p;
  }
  return nullptr;
}

bool belongs(const ParameterValue& value, const Job& job) {
  switch (value.owner) {
    case Owner::kDevice:
      return value.of == job.cluster.device.family;
    case Owner::kLink:
      return std::any_of(job.cluster.tiers.begin(), job.cluster.tiers.end(),
                         [&](const LinkTier& t) { return t.name == value.of; });
    case Owner::kStack:
      return value.of == job.stack.name || value.of == job.stack.family;
  }
  return false;
}

namespace {

// The job's own value of a parameter of an owner that it has.
double own_value(const Job& job, const FreeParameter& p, const std::string& of) {
  if (p.owner == Owner::kDevice) {
    for (const DeviceParameter& d : kDevice) {
      if (p.name == d.name) return job.cluster.device.attainable.*d.member;
    }
  } else if (p.owner == Owner::kLink) {
    for (const LinkTier& tier : job.cluster.tiers) {
      if (tier.name == of) return tier.attainable;
    }
  } else {
    for (const StackParameter& s : stack_parameters()) {
      if (p.name == s.name) return job.stack.*s.member;
    }
  }
  CHECK(false, "no parameter of the job: " + p.name);
  return 0;
}

std::vector<std::string> owners_of(const Job& job, Owner owner) {
  if (owner == Owner::kDevice) return {job.cluster.device.family};
  if (owner == Owner::kStack) return {job.stack.name};
  std::vector<std::string> names;
  for (const LinkTier& tier : job.cluster.tiers) {
    if (std::find(names.begin(), names.end(), tier.name) == names.end()) {
      names.push_back(tier.name);
    }
  }
  return names;
}

}  // namespace

std::vector<ParameterValue> values_of_time(const std::vector<ParameterValue>& values,
                                           const Job& job) {
  std::vector<ParameterValue> out;
  for (const FreeParameter& p : free_parameters()) {
    if (!p.of_time) continue;
    for (const std::string& of : owners_of(job, p.owner)) {
      const ParameterValue* fitted = nullptr;
      for (const ParameterValue& v : values) {
        const bool of_stack = p.owner == Owner::kStack && v.of == job.stack.family;
        if (v.owner == p.owner && v.name == p.name && (v.of == of || of_stack)) fitted = &v;
      }
      ParameterValue v{p.owner, of, p.name, own_value(job, p, of)};
      double down = p.spread, up = p.spread;
      if (fitted != nullptr && fitted->low > 0) {
        v.rows = fitted->rows;
        down = std::log(fitted->value / fitted->low);
        up = std::log(fitted->high / fitted->value);
        const bool others = p.owner == Owner::kStack && fitted->of != job.stack.name;
        const double within = others ? kWithinFamily * p.spread : 0;
        down = std::hypot(down, within);
        up = std::hypot(up, within);
      }
      v.low = std::clamp(v.value * std::exp(-down), std::min(p.min, v.value), v.value);
      v.high = std::clamp(v.value * std::exp(up), v.value, std::max(p.max, v.value));
      out.push_back(std::move(v));
    }
  }
  return out;
}

void apply(const std::vector<ParameterValue>& values, Job& job) {
  for (const ParameterValue& v : values) {
    if (!belongs(v, job)) continue;
    if (v.owner == Owner::kDevice) {
      for (const DeviceParameter& p : kDevice) {
        if (v.name == p.name) job.cluster.device.attainable.*p.member = v.value;
      }
    } else if (v.owner == Owner::kLink) {
      for (LinkTier& tier : job.cluster.tiers) {
        if (tier.name == v.of) tier.attainable = v.value;
      }
    } else {
      for (const StackParameter& p : stack_parameters()) {
        if (v.name == p.name) job.stack.*p.member = v.value;
      }
    }
  }
}

}  // namespace orrery::simulator
