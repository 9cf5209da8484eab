// The table of formats, and choosing one by what a text looks like.
#include "handover/handover.h"

#include "handover/engines.h"

namespace orrery::handover {

const std::vector<Format>& formats() {
  static const std::vector<Format> rows = {
      {"megatron", "a plan as launch flags of Megatron-LM, in a shell script",
       "run it with more flags in Megatron-LM's folder", write_megatron, is_megatron,
       read_megatron},
      {"torchtitan", "a plan as torchtitan's job config (TOML)",
       "it is for torchtitan: --job.config_file", write_torchtitan, is_torchtitan, read_torchtitan},
      {"xtuner", "a plan as a config of XTuner V1 (Python)",
       "it is for xtuner/v1/train/cli/sft.py: --config", write_xtuner, is_xtuner, read_xtuner},
      {"deepspeed", "a plan as DeepSpeed's JSON", "it is for deepspeed.initialize(config=...)",
       write_deepspeed, is_deepspeed, read_deepspeed}};
  return rows;
}

Result<Imported> import_layout(const std::string& text, const std::string& place,
                               const Target& target) {
  // JSON and TOML are told by their keys, Python by its classes; flags may stand in any text.
  for (const char* name : {"deepspeed", "torchtitan", "xtuner", "megatron"}) {
    for (const Format& format : formats()) {
      if (format.name == name && format.recognises(text)) return format.read(text, place, target);
    }
  }
  return Error::of(ErrorCode::kInvalid, place, "is no configuration of a known engine",
                   "known: flags of Megatron-LM, torchtitan's TOML, XTuner V1's Python or JSON, "
                   "DeepSpeed's JSON");
}

}  // namespace orrery::handover
