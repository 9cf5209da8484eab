// What a fit to measured runs gave: values with their intervals, and how far steps are from their
// predictions. A file of configs/parameters.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/result.h"
#include "simulator/stages/parameters.h"
#include "simulator/stages/spread.h"
#include "simulator/stages/step.h"

namespace orrery::simulator {

// without_source, without_device: how well others did on rows that no fit had seen, which a
// validation with its sources or families of devices left out gave, by the words of its figures.
struct ParameterSet {
  std::vector<ParameterValue> values;
  SpreadModel spread;
  std::map<std::string, double> without_source, without_device;
};

// Of the job with the values that belong to it, with the interval that the set says. A job unlike
// what was measured is predicted some thirty times: once for each end of each parameter.
JobPrediction predict_with(const ParameterSet& set, const Job& job);

// configs/parameters/<name>.json, or a file: {"values": [{"owner", "of", "name", "value", "rows",
// "low", "high"}], "spread": {"faster": {"base", "exposed", "unseen"}, "slower": {same}, "rows",
// "shapes":
// [{"stack", "family", "device", "experts", "low_precision", "sizes": ["4096 2048 8 1 1 1 1"]}]},
// "without_source": {words: value}, "without_device": {same}}. All but values may be absent. Every
// problem is reported: unknown owners and names, values outside the parameter's range, intervals
// that do not contain their value, sizes that are none.
Result<ParameterSet> load_parameters(const std::string& name);
Result<ParameterSet> parse_parameters(const std::string& text, const std::string& place);
Json to_json(const ParameterSet& set);

}  // namespace orrery::simulator
