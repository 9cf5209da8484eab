// The functions behind each row of the table of formats: one file an engine.
#pragma once

#include <string>

#include "handover/handover.h"

namespace orrery::handover {

// Megatron-LM (core 0.16 of 2026): flags of pretrain_gpt.py in a shell script.
Result<HandedOver> write_megatron(const Plan& plan, const std::string& place);
bool is_megatron(const std::string& text);
Result<Imported> read_megatron(const std::string& text, const std::string& place,
                               const Target& target);

// torchtitan's job config: TOML, as releases 0.1 and 0.2 take it.
Result<HandedOver> write_torchtitan(const Plan& plan, const std::string& place);
bool is_torchtitan(const std::string& text);
Result<Imported> read_torchtitan(const std::string& text, const std::string& place,
                                 const Target& target);

// XTuner V1: a Python file with a `trainer`; read also as that object's JSON.
Result<HandedOver> write_xtuner(const Plan& plan, const std::string& place);
bool is_xtuner(const std::string& text);
Result<Imported> read_xtuner(const std::string& text, const std::string& place,
                             const Target& target);

// DeepSpeed's JSON.
Result<HandedOver> write_deepspeed(const Plan& plan, const std::string& place);
bool is_deepspeed(const std::string& text);
Result<Imported> read_deepspeed(const std::string& text, const std::string& place,
                                const Target& target);

}  // namespace orrery::handover
