// The registry of free parameters: everything that is fitted to measured runs, and nothing else.
// Each belongs to a device, a link or a stack; none depends on a model, a layout or the number of
// devices.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/job.h"

namespace orrery::simulator {

enum class Owner : std::uint8_t { kDevice, kLink, kStack };
const char* name_of(Owner owner);  // "device", "link", "stack"

struct FreeParameter {
  Owner owner = Owner::kStack;
  std::string name;     // its key in the owner's file
  std::string meaning;  // one line
  std::string unit;     // "" for shares and factors
  double min = 0, max = 0;
  double prior = 0;     // what it is before any fit
  double spread = 0;    // deviation of the prior's logarithm
  bool of_time = true;  // else of memory alone
};
const std::vector<FreeParameter>& free_parameters();

// Sets one of a job's device, of its tiers called `of`, or of its stack.
void set_parameter(Owner owner, const std::string& of, const std::string& name, double value,
                   Job& job);

}  // namespace orrery::simulator
