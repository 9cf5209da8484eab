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
const FreeParameter* find_parameter(Owner owner, const std::string& name);  // nullptr: none

// The value of one parameter of one owner: of a family of devices ("hopper"), of tiers of a name
// ("nvlink"), of a family of stacks or of one stack.
struct ParameterValue {
  Owner owner = Owner::kStack;
  std::string of;
  std::string name;
  double value = 0;
  std::size_t rows = 0;  // measured ones that it was fitted on
  // How far it may move before the rows, and its prior, say that it is not so; 0: not known.
  double low = 0, high = 0;
};

// Sets the values that belong to the job; of several for one parameter the last.
void apply(const std::vector<ParameterValue>& values, Job& job);
bool belongs(const ParameterValue& value, const Job& job);

// The values that the step of a job with `values` applied rests on, one a parameter and owner: the
// fitted one with its interval, else the job's own with the deviation of its prior. A family's
// value for one of its stacks has the deviation of stacks within a family besides.
std::vector<ParameterValue> values_of_time(const std::vector<ParameterValue>& values,
                                           const Job& job);
// Deviation of a stack from its family, as a part of the prior's.
inline constexpr double kWithinFamily = 0.5;

}  // namespace orrery::simulator
