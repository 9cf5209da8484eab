// The table of formats, writing in one, and choosing one by what a text looks like.
#include "handover/handover.h"

#include "handover/account.h"
#include "handover/engines.h"

namespace orrery::handover {

const std::vector<Format>& formats() {
  using enum Precision;
  static const std::vector<Format> rows = {
      {.name = "megatron",
       .about = "a plan or job as launch flags of Megatron-LM, in a shell script",
       .use = "run it with more flags in Megatron-LM's folder",
       .family = "megatron",
       .stack = "megatron-bridge-2026",
       .types = {kBf16, kFp16, kFp32, kFp8},
       .first_line = "#!/usr/bin/env bash\n",
       .comment = "# ",
       .body = write_megatron,
       .recognises = is_megatron,
       .read = read_megatron},
      {.name = "torchtitan",
       .about = "a plan or job as torchtitan's job config (TOML)",
       .use = "it is for torchtitan: --job.config_file",
       .family = "fsdp",
       .stack = "fsdp2-compiled",
       .types = {kBf16, kFp32, kFp8},
       .comment = "# ",
       .body = write_torchtitan,
       .recognises = is_torchtitan,
       .read = read_torchtitan},
      {.name = "xtuner",
       .about = "a plan or job as a config of XTuner V1 (Python)",
       .use = "it is for xtuner/v1/train/cli/sft.py: --config",
       .family = "fsdp",
       .stack = "fsdp2-compiled",
       .types = {kBf16, kFp32, kFp8},
       .comment = "# ",
       .says_documents = true,
       .interleaves = true,
       .body = write_xtuner,
       .recognises = is_xtuner,
       .read = read_xtuner},
      {.name = "deepspeed",
       .about = "a plan or job as DeepSpeed's JSON",
       .use = "it is for deepspeed.initialize(config=...)",
       .family = "fsdp",
       .stack = "deepspeed-zero3-2021",
       .types = {kBf16, kFp16, kFp32},
       .body = write_deepspeed,
       .recognises = is_deepspeed,
       .read = read_deepspeed}};
  return rows;
}

Result<HandedOver> write(const Format& format, const Recipe& recipe, const std::string& place) {
  Account account(recipe, place);
  refuse_types(recipe, format.types, account);
  note_job(recipe, format.family, format.stack, account);
  if (!format.interleaves) unsaid_domino(recipe, account);
  if (!format.says_documents) unsaid_documents(recipe, account);
  const std::string body = format.body(recipe, account);
  if (account.refused()) return account.error();
  HandedOver out;
  out.unsaid = account.rest();
  out.text = format.first_line;
  if (!format.comment.empty()) {
    out.text += opening(recipe, out.unsaid, std::string(format.comment));
  }
  out.text += body;
  return out;
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
