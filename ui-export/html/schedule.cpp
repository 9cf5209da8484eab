// See schedule.h.
#include "ui-export/html/schedule.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "ui-export/html/side.h"

namespace orrery::html {
namespace {

constexpr std::int64_t kScale = 1'000'000;
constexpr std::size_t kMostCells = 20'000, kMostStages = 32;
constexpr int kBeside = 4, kSeveral = 5;

struct Drawn {
  std::int64_t from = 0, to = 0;
  int kind = 0;
  std::int32_t chunk = 0, micro_batch = 0;
};

// Cells of one stage, those of one time as one.
std::vector<Drawn> drawn_of(const std::vector<PictureCell>& cells, double end) {
  std::vector<Drawn> row;
  for (const PictureCell& cell : cells) {
    const auto at = [&](double seconds) {
      return static_cast<std::int64_t>(std::llround(seconds / end * kScale));
    };
    const Drawn next{at(cell.begin_s), at(cell.end_s), static_cast<int>(cell.kind), cell.chunk,
                     cell.micro_batch};
    if (!row.empty() && row.back().from == next.from && row.back().to == next.to) {
      row.back().kind = kBeside;
      continue;
    }
    row.push_back(next);
  }
  return row;
}

// Neighbours with no wait between become one.
std::vector<Drawn> merged(const std::vector<Drawn>& row) {
  std::vector<Drawn> out;
  for (const Drawn& next : row) {
    if (!out.empty() && next.from - out.back().to <= kScale / 5000) {
      out.back().to = next.to;
      out.back().kind = kSeveral;
      out.back().micro_batch = -1;
    } else {
      out.push_back(next);
    }
  }
  return out;
}

Json row_json(const std::vector<Drawn>& row) {
  Json at = Json::array(), lasts = Json::array(), kind = Json::array(), chunk = Json::array(),
       micro_batch = Json::array();
  for (const Drawn& cell : row) {
    at.push(cell.from);
    lasts.push(cell.to - cell.from);
    kind.push(cell.kind);
    chunk.push(int{cell.chunk});
    micro_batch.push(int{cell.micro_batch});
  }
  return Json::object()
      .set("at", std::move(at))
      .set("lasts", std::move(lasts))
      .set("kind", std::move(kind))
      .set("chunk", std::move(chunk))
      .set("micro_batch", std::move(micro_batch));
}

}  // namespace

Json schedule_json(const PipelinePicture& schedule, std::vector<std::string>& omitted) {
  std::map<std::int32_t, std::vector<PictureCell>> stages;
  double end = 0, busy = 0;
  for (const PictureCell& cell : schedule.cells) {
    std::vector<PictureCell>& row = stages[cell.stage];
    // What runs beside another takes no time of its own.
    const bool beside = !row.empty() && row.back().begin_s == cell.begin_s;
    if (!beside) busy += cell.end_s - cell.begin_s;
    end = std::max(end, cell.end_s);
    row.push_back(cell);
  }
  if (!(end > 0)) return {};
  const bool merges = schedule.cells.size() > kMostCells;
  const std::size_t every = (stages.size() + kMostStages - 1) / kMostStages;
  if (merges) omitted.push_back("Cells of the pipeline with no wait between are drawn as one.");
  if (every > 1) {
    omitted.push_back("The picture of the pipeline shows every " + std::to_string(every) +
                      "th of " + std::to_string(stages.size()) + " stages.");
  }
  Json rows = Json::array(), shown = Json::array();
  for (const auto& [stage, cells] : stages) {
    if (static_cast<std::size_t>(stage) % every != 0) continue;
    const std::vector<Drawn> row = drawn_of(cells, end);
    rows.push(row_json(merges ? merged(row) : row));
    shown.push(int{stage});
  }
  return Json::object()
      .set("name", clean_text(schedule.name))
      .set("stages", int{schedule.stages})
      .set("virtual_stages", int{schedule.virtual_stages})
      .set("micro_batches", int{schedule.micro_batches})
      .set("end_s", end)
      .set("idle_share", 1 - busy / (end * static_cast<double>(stages.size())))
      .set("scale", kScale)
      .set("shown", std::move(shown))
      .set("rows", std::move(rows));
}

}  // namespace orrery::html
