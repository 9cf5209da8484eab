// The functions behind each row of the table of formats. A writer refuses and notes what the engine
// cannot do or say, and returns the text behind its opening; of a refused recipe any text.
#pragma once

#include <string>

#include "handover/account.h"

namespace orrery::handover {

// Megatron-LM (core 0.16 of 2026): flags of pretrain_gpt.py in a shell script.
std::string write_megatron(const Recipe& recipe, Account& account);
bool is_megatron(const std::string& text);
Result<Imported> read_megatron(const std::string& text, const std::string& place,
                               const Target& target);

// torchtitan's job config: TOML, as releases 0.1 and 0.2 take it.
std::string write_torchtitan(const Recipe& recipe, Account& account);
bool is_torchtitan(const std::string& text);
Result<Imported> read_torchtitan(const std::string& text, const std::string& place,
                                 const Target& target);

// XTuner V1: a Python file with a `trainer`; read also as that object's JSON.
std::string write_xtuner(const Recipe& recipe, Account& account);
bool is_xtuner(const std::string& text);
Result<Imported> read_xtuner(const std::string& text, const std::string& place,
                             const Target& target);

// DeepSpeed's JSON.
std::string write_deepspeed(const Recipe& recipe, Account& account);
bool is_deepspeed(const std::string& text);
Result<Imported> read_deepspeed(const std::string& text, const std::string& place,
                                const Target& target);

}  // namespace orrery::handover
