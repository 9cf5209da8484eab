// Every command, each in its own file.
#pragma once

#include "cli/command.h"

namespace orrery::cli {

const Command& plan_command();
const Command& simulate_command();
const Command& train_command();
const Command& compare_command();
const Command& calibrate_command();
const Command& analyze_command();
const Command& export_command();
const Command& explain_command();
const Command& list_command();
const Command& check_command();
const Command& doctor_command();
const Command& validate_command();

}  // namespace orrery::cli
