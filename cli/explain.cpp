// orrery explain: a plan that was made before, and why it won.
#include "cli/commands.h"
#include "cli/inputs.h"
#include "cli/plan_report.h"

namespace orrery::cli {
namespace {

Result<int> run(const Arguments& arguments, Output& out) {
  const std::string path = arguments.text("PLAN");
  TRY(const Plan plan, open_plan(path));
  print_plan(plan, out);
  out.document(to_json(plan));
  out.next({"orrery", "simulate", path}, "where the step goes");
  return 0;
}

}  // namespace

const Command& explain_command() {
  static const Command command = {
      "explain",
      "print a plan, what was predicted for it, and why the others lost",
      "Prints a plan and why it won, as `orrery plan` did when it wrote it.",
      "orrery explain plan.json",
      {{"PLAN", "a plan.json"}},
      {},
      run};
  return command;
}

}  // namespace orrery::cli
