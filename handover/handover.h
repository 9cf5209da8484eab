// Handing a plan or a job over to another engine, and reading that engine's configuration back as
// pins: one format an engine, in a table.
//
// What a layout is (who holds what, which ranks exchange what), the batch, the numbers' types and
// the model are said exactly or refused. Chunk sizes and memory policy that a format cannot say are
// listed, never dropped. Data, tokenizer, optimizer and checkpoints are not in a layout and are
// left to whoever launches.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/model.h"
#include "core/result.h"
#include "core/workload.h"
#include "handover/recipe.h"

namespace orrery::handover {

// A field of the recipe that the text does not say, or not so.
struct Unsaid {
  std::string field, value;  // by the name and value of the plan or job
  std::string why;           // and what the engine does instead
};

struct HandedOver {
  std::string text;
  std::vector<Unsaid> unsaid;
};

// A value of the file by the name of a pin, and where it stands ("run.sh:12"). Of jobs also "sp",
// "stage_layers" ("even", or "1,2,2,1") and "recompute" with any modules ("norm+mlp").
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
  bool all_axes = false;  // pins of jobs (planner/jobs); else of plans
};

class Account;

// One engine's file: what it is, which words it has beside a layout, and how it is written and
// read.
struct Format {
  std::string_view name, about;
  std::string_view use;  // what is done with the file
  // The engine's family of stacks (Stack::family), and a stack whose figures are this engine's.
  std::string_view family, stack;
  std::vector<Precision> types;
  std::string_view first_line = {}, comment = {};  // empty: there are none
  bool says_documents = false;                     // packs of several are usual
  bool interleaves = false;                        // has Chunks::domino
  // The text behind the opening; see engines.h.
  std::string (*body)(const Recipe& recipe, Account& account);
  // Whether `text` looks like this format's.
  bool (*recognises)(const std::string& text);
  // kInvalid: text that cannot be read; settings that contradict each other, the target or
  // themselves, each with its place.
  Result<Imported> (*read)(const std::string& text, const std::string& place, const Target& target);
};

const std::vector<Format>& formats();

// `place` (the plan's or job's file) starts the `where` of errors. kInfeasible: all that the engine
// cannot do, each with the field, its value and what to pin instead.
Result<HandedOver> write(const Format& format, const Recipe& recipe, const std::string& place);

// By what the text looks like. kInvalid where it is none of the formats.
Result<Imported> import_layout(const std::string& text, const std::string& place,
                               const Target& target);

}  // namespace orrery::handover
