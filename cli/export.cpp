// orrery export: a trace as a file of another tool, a plan as another engine's configuration.
#include <algorithm>

#include "cli/commands.h"
#include "cli/export_html.h"
#include "cli/files.h"
#include "cli/formats.h"
#include "cli/handover.h"
#include "cli/inputs.h"
#include "cli/job_explain.h"
#include "core/quantity.h"
#include "handover/handover.h"
#include "ui-export/chrome.h"
#include "ui-export/perfetto.h"

namespace orrery::cli {
namespace {

Result<const ExportFormat*> format_named(const std::string& name) {
  std::vector<std::string> names;
  std::string known;
  for (const ExportFormat& format : export_formats()) {
    if (format.name == name) return &format;
    names.emplace_back(format.name);
    known += (known.empty() ? "" : ", ") + std::string(format.name);
  }
  const std::string near = nearest(name, names);
  return Error::of(ErrorCode::kUsage, "--format", "there is no format '" + name + "'",
                   near.empty() ? "known: " + known : "did you mean '" + near + "'?");
}

// A format of one trace alone.
Status write_trace(const ExportFormat& format, const Arguments& arguments) {
  if (arguments.has("against")) {
    return Error::of(ErrorCode::kUsage, "--against",
                     "'" + std::string(format.name) + "' shows one trace",
                     "--format html shows a run beside its prediction");
  }
  TRY(TraceReader trace, open_trace(arguments.text("TRACE")));
  const SignalShelter shelter;
  return format.write(trace, arguments.text("out"));
}

void say_next(const std::string& subject, Output& out) {
  const Result<bool> trace = is_trace(subject);
  if (trace.ok() && trace.value()) {
    out.next({"orrery", "analyze", subject, "breakdown"}, "the same trace in figures");
  } else if (is_job(subject)) {
    out.next({"orrery", "simulate", subject}, "what is predicted of this job");
  } else {
    out.next({"orrery", "explain", subject}, "why this plan won");
  }
}

Result<int> run(const Arguments& arguments, Output& out) {
  TRY(const ExportFormat* format, format_named(arguments.text("format")));
  const std::string path = arguments.text("out");
  TRY_OK(check_output(path, {arguments.text("TRACE"), arguments.text("against")}));
  Json document = versioned().set("format", format->name).set("file", path);
  if (format->hand_over) {
    TRY(Json unsaid, format->hand_over(arguments, out));
    document.set("not_said", std::move(unsaid));
  } else if (format->report) {
    TRY_OK(format->report(arguments, out));
  } else {
    TRY_OK(write_trace(*format, arguments));
  }
  out.line("wrote " + path + ": " + std::string(format->use));
  out.document(document);
  say_next(arguments.text("TRACE"), out);
  return 0;
}

}  // namespace

const std::vector<ExportFormat>& export_formats() {
  static const std::vector<ExportFormat> rows = [] {
    std::vector<ExportFormat> all = {
        {"chrome", "Chrome trace events (JSON): one process a rank, one thread a lane",
         "open it in https://ui.perfetto.dev or chrome://tracing", export_chrome},
        {"perfetto", "Perfetto's own format: also the live memory and collectives across ranks",
         "open it in https://ui.perfetto.dev", export_perfetto},
        {"html", "one page to read: predicted and measured side by side; also of a plan",
         "open it in any browser", nullptr, export_html}};
    for (const handover::Format& format : handover::formats()) {
      all.push_back({format.name, format.about, format.use, nullptr, nullptr, export_handover});
    }
    return all;
  }();
  return rows;
}

const Command& export_command() {
  static const Command command = {
      "export",
      "a trace for a viewer, a plan for another engine",
      "Writes a trace in another format, or a plan or a job over all axes as the\n"
      "launch flags or the config of Megatron-LM, torchtitan, XTuner or DeepSpeed.",
      "orrery export run.db --format chrome -o run.json\n"
      "orrery export run.db --format html -o report.html\n"
      "orrery export plan.json --format megatron -o run.sh",
      {{"TRACE", "a trace; for html also a plan; for engines a plan or a job"}},
      {{"--format", "NAME", "orrery list formats", "chrome"},
       {"-o,--out", "FILE", "where it goes", "", true},
       {"--against", "SIM", "html: another prediction of the run", ""}},
      run};
  return command;
}

}  // namespace orrery::cli
