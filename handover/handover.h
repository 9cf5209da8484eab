// Handing a plan over to another engine, and reading that engine's configuration back as pins: one
// format an engine, in a table.
//
// What a layout is (who holds what, which ranks exchange what), the batch, the numbers' types and
// the model are said exactly or refused. Chunk sizes and memory policy that a format cannot say are
// listed, never dropped. Data, tokenizer, optimizer and checkpoints are not in a plan's layout and
// are left to whoever launches.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/plan.h"
#include "core/result.h"

namespace orrery::handover {

// A field of the plan that the text does not say, or not so.
struct Unsaid {
  std::string field, value;  // by the name and value of plan.json
  std::string why;           // and what the engine does instead
};

struct HandedOver {
  std::string text;
  std::vector<Unsaid> unsaid;
};

// A value of the file by the name of plan.json, and where it stands ("run.sh:12").
struct Pin {
  std::string name, value, where;
};

// A setting of the file that gave no pin.
struct Unused {
  std::string where, what;
  std::string why;  // empty: it is none of the layout's
};

struct Imported {
  std::string format;
  std::vector<Pin> pins;
  std::vector<Unused> unused;
};

// What a file is read against: its degrees must divide it, its sizes be the same.
struct Target {
  std::int64_t world = 1;  // devices
  const Model& model;
  const Workload& workload;
};

struct Format {
  std::string_view name, about;
  std::string_view use;  // what is done with the file
  // `place` (the plan's file) starts the `where` of errors. kInfeasible: all that the engine cannot
  // do with this plan, each with the field, its value and what to pin instead.
  Result<HandedOver> (*write)(const Plan& plan, const std::string& place);
  // Whether `text` looks like this format's.
  bool (*recognises)(const std::string& text);
  // kInvalid: text that cannot be read; settings that contradict each other, the target or
  // themselves, each with its place.
  Result<Imported> (*read)(const std::string& text, const std::string& place, const Target& target);
};

const std::vector<Format>& formats();

// By what the text looks like. kInvalid where it is none of the formats.
Result<Imported> import_layout(const std::string& text, const std::string& place,
                               const Target& target);

}  // namespace orrery::handover
