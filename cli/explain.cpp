// orrery explain: a plan or a job, what binds it, why it won or what fixes it.
#include "cli/commands.h"
#include "cli/inputs.h"
#include "cli/job_explain.h"
#include "cli/plan_explain.h"
#include "cli/plan_report.h"

namespace orrery::cli {
namespace {

Result<int> run(const Arguments& arguments, Output& out) {
  const std::string path = arguments.text("FILE");
  if (is_job(path)) return explain_job(path, arguments, out);
  for (const char* option : {"parameters", "fit-probability"}) {
    if (!arguments.has(option)) continue;
    return Error::of(ErrorCode::kUsage, std::string("--") + option,
                     "is for jobs over all axes; " + path + " is none", "leave it out");
  }
  TRY(const Plan plan, open_plan(path));
  print_plan(plan, out);
  out.document(explain_plan(plan, out));
  out.next({"orrery", "simulate", path}, "where the step goes");
  return 0;
}

}  // namespace

const Command& explain_command() {
  static const Command command = {
      "explain",
      "what binds a plan or a job, why others lost, and which change helps",
      "Of a plan that the engine runs: why it won, as `orrery plan` said when it wrote it, what\n"
      "binds it, and which of its rivals would be faster under other circumstances.\n"
      "Of a job over all axes, planned or written by hand: whether it fits, what takes its memory\n"
      "and its time, which single changes fix it or make it faster, the best of all layouts, and\n"
      "what would change that answer. A job by hand names its nouns and the axes that are not 1:\n"
      "  {\"model\": \"qwen3-30b-a3b\", \"cluster\": \"h100x32\", \"stack\": \"fsdp2-eager\",\n"
      "   \"job\": {\"layout\": {\"ep\": 8}, \"sharding\": \"parameters\",\n"
      "           \"sequence_tokens\": 4096, \"global_sequences\": 256}}",
      "orrery explain plan.json\n"
      "orrery explain job.json --json",
      {{"FILE", "a plan.json, or a job (of orrery plan --for simulate, or by hand)"}},
      {{"--parameters", "P", "of a job: fitted values; default: published, if there is one", ""},
       {"--fit-probability", "P", "of a job that counts as one that fits", "0.99"}},
      run};
  return command;
}

}  // namespace orrery::cli
