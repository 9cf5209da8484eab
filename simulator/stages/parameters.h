// The registry of free parameters: everything that is fitted to measured runs, and nothing else.
// Each belongs to a device, a link or a stack; none depends on a model, a layout or the number of
// devices.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/job.h"
#include "core/json.h"
#include "core/result.h"

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

// The value of one parameter of one owner: of a family of devices ("hopper"), of tiers of a name
// ("nvlink"), of a family of stacks or of one stack.
struct ParameterValue {
  Owner owner = Owner::kStack;
  std::string of;
  std::string name;
  double value = 0;
  std::size_t rows = 0;  // measured ones that it was fitted on
};

// Sets the values that belong to the job; of several for one parameter the last.
void apply(const std::vector<ParameterValue>& values, Job& job);
bool belongs(const ParameterValue& value, const Job& job);

// Fitted values, and how well others did on rows that no fit had seen: what a validation with its
// sources or families of devices left out gave, by the words of its aims.
struct ParameterSet {
  std::vector<ParameterValue> values;
  std::map<std::string, double> without_source, without_device;
};

// configs/parameters/<name>.json, or a file: {"values": [{"owner", "of", "name", "value", "rows"}],
// "without_source": {words: value}, "without_device": {same}}. Every problem is reported: unknown
// owners and names, values outside the parameter's range.
Result<ParameterSet> load_parameters(const std::string& name);
Result<ParameterSet> parse_parameters(const std::string& text, const std::string& place);
Json to_json(const ParameterSet& set);

}  // namespace orrery::simulator
