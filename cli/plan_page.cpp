// See plan_page.h.
#include "cli/plan_page.h"

#include <utility>
#include <vector>

#include "cli/files.h"
#include "core/job_json.h"
#include "planner/plans/terms.h"
#include "simulator/stages/pipeline.h"
#include "ui-export/html/answer.h"

namespace orrery::cli {
namespace {

using html::PictureKind;
using html::TermRow;

std::vector<TermRow> terms_of_plan(const Plan& plan) {
  std::vector<TermRow> rows;
  for (const planner::Term& term : planner::terms_of(plan).parts) {
    if (term.time.value() > 0) rows.push_back({term.name, term.time.value()});
  }
  return rows;
}

std::vector<double> seconds_of(ObjectReader& reader, const char* key) {
  std::vector<double> seconds;
  const Json* rows = reader.array(key);
  if (rows == nullptr) return seconds;
  for (const Json& row : rows->items()) {
    if (row.is_number() && row.as_double() >= 0) {
      seconds.push_back(row.as_double());
    } else {
      reader.note(key, row.dump(-1) + " is no time");
    }
  }
  return seconds;
}

Result<simulator::CellTimes> read_cells(const Json& json, const std::string& place,
                                        std::size_t cells) {
  std::vector<Problem> problems;
  ObjectReader reader(json, place, problems);
  simulator::CellTimes times;
  constexpr double kMost = 1e9;
  times.forward = seconds_of(reader, "forward");
  times.backward = seconds_of(reader, "backward");
  times.weight = seconds_of(reader, "weight");
  times.forward_hides = seconds_of(reader, "forward_hides");
  times.backward_hides = seconds_of(reader, "backward_hides");
  times.send = reader.number("send_s", 0, kMost);
  times.beside = reader.boolean_or("computes_while_sending", true);
  reader.finish();
  const auto are_whole = [&](const std::vector<double>& list, bool may_be_empty) {
    return list.size() == cells || (may_be_empty && list.empty());
  };
  const bool whole = are_whole(times.forward, false) && are_whole(times.backward, false) &&
                     are_whole(times.weight, true) && are_whole(times.forward_hides, true) &&
                     are_whole(times.backward_hides, true);
  if (problems.empty() && !whole) {
    reader.note("forward", "wants one time for each of " + std::to_string(cells) + " stages");
  }
  if (!problems.empty()) return Error{ErrorCode::kInvalid, std::move(problems)};
  return times;
}

PictureKind picture_kind(simulator::CellKind kind) {
  switch (kind) {
    case simulator::CellKind::kForward:
      return PictureKind::kForward;
    case simulator::CellKind::kBackward:
      return PictureKind::kBackward;
    case simulator::CellKind::kInputGradient:
      return PictureKind::kInputGradient;
    case simulator::CellKind::kWeightGradient:
      return PictureKind::kWeightGradient;
  }
  return PictureKind::kForward;
}

html::PipelinePicture schedule_of(const Job& job, const simulator::CellTimes& times) {
  html::PipelinePicture out;
  out.name = name_of(job.schedule);
  out.stages = static_cast<std::int32_t>(job.layout.pp);
  out.virtual_stages = static_cast<std::int32_t>(job.virtual_stages);
  out.micro_batches = static_cast<std::int32_t>(job.micro_batches());
  std::vector<simulator::CellSpan> spans;
  simulator::Pipeline(job.schedule, out.stages, out.virtual_stages, out.micro_batches)
      .replay(times, &spans);
  for (const simulator::CellSpan& span : spans) {
    out.cells.push_back({span.rank, picture_kind(span.cell.kind), span.cell.chunk,
                         span.cell.micro_batch, span.begin, span.end});
  }
  return out;
}

}  // namespace

Json plan_answer(const Plan& plan) {
  std::vector<std::vector<TermRow>> terms = {terms_of_plan(plan)};
  for (const RunnerUp& runner : plan.runners_up) {
    Plan other = plan;
    other.layout = runner.layout;
    other.chunks = runner.chunks;
    other.policy = runner.policy;
    terms.push_back(terms_of_plan(other));
  }
  return html::answer_json(plan, terms);
}

Result<JobPageInput> read_job_page(const std::string& path) {
  TRY(const std::string text, read_file(path));
  JobPageInput input;
  TRY(input.answer, html::answer_of_job(text, path));
  TRY(const Job job, parse_job(text, path));
  TRY(const Json plan, Json::parse(text, path));
  const Json* cells = plan.find("cells");
  if (cells != nullptr && cells->is_object() && job.layout.pp > 1) {
    TRY(const simulator::CellTimes times,
        read_cells(*cells, path + ":/cells", static_cast<std::size_t>(job.stages())));
    input.schedule = schedule_of(job, times);
  }
  return input;
}

}  // namespace orrery::cli
