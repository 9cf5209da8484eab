// See measurements.h.
#include "cli/measurements.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/table.h"
#include "core/configs.h"
#include "core/quantity.h"

namespace orrery::cli {
namespace {

using simulator::Measurements;
using simulator::Note;
using simulator::SampleEntry;
using simulator::SampleFit;

double error_of(double predicted, double measured) {
  return measured > 0 ? predicted / measured - 1 : std::nan("");
}

}  // namespace

Result<std::vector<Measurements>> read_measurements(const std::vector<std::string>& paths) {
  std::vector<Measurements> files;
  std::vector<Problem> problems;
  for (const std::string& path : paths) {
    TRY(const std::string text, read_file(path));
    Result<Measurements> one = simulator::import_measurements(text, path);
    if (one.ok()) {
      files.push_back(std::move(one).value());
    } else {
      const std::vector<Problem>& found = one.error().problems;
      problems.insert(problems.end(), found.begin(), found.end());
    }
  }
  if (!problems.empty()) return Error{ErrorCode::kInvalid, problems};
  return files;
}

Json sample_entries_json(const SampleFit& fit) {
  Json rows = Json::array();
  for (const SampleEntry& e : fit.entries) {
    Json sources = Json::array();
    for (const std::string& source : e.sources) sources.push(source);
    rows.push(Json::object()
                  .set("entry", simulator::name_of(e.entry))
                  .set("samples", e.samples)
                  .set("measured_s", e.measured_s)
                  .set("error_before", number_or_null(error_of(e.before_s, e.measured_s)))
                  .set("error_after", number_or_null(error_of(e.after_s, e.measured_s)))
                  .set("valid_from_s", e.valid_from_s)
                  .set("valid_to_s", e.valid_to_s)
                  .set("source", std::move(sources)));
  }
  return rows;
}

Json measurements_json(const std::vector<Measurements>& files) {
  Json rows = Json::array();
  for (const Measurements& m : files) {
    rows.push(Json::object()
                  .set("file", m.file)
                  .set("tool", m.tool)
                  .set("device", m.device)
                  .set("samples", static_cast<std::int64_t>(m.samples.size())));
  }
  return rows;
}

Json notes_json(const SampleFit& fit) {
  Json rows = Json::array();
  for (const Note& note : fit.notes) {
    rows.push(Json::object().set("warning", note.warning).set("text", note.text));
  }
  return rows;
}

void print_samples(const std::vector<Measurements>& files, const SampleFit& fit, std::size_t top,
                   Output& out) {
  out.heading("what was read");
  TextTable read({{"file"}, {"of"}, {"device"}, {"samples", Align::kRight}});
  for (const Measurements& m : files) {
    read.row(
        {m.file, m.tool, m.device.empty() ? "-" : m.device, fmt::format("{}", m.samples.size())});
  }
  out.line(read.text());
  std::vector<const SampleEntry*> rows;
  for (const SampleEntry& e : fit.entries) rows.push_back(&e);
  std::stable_sort(rows.begin(), rows.end(), [](const SampleEntry* a, const SampleEntry* b) {
    return std::abs(a->before_s - a->measured_s) > std::abs(b->before_s - b->measured_s);
  });
  const std::size_t shown = std::min(top, rows.size());
  out.heading(fmt::format("entries that samples moved most ({} of {})", shown, rows.size()));
  TextTable entries({{"entry"},
                     {"samples", Align::kRight},
                     {"measured", Align::kRight},
                     {"error before", Align::kRight},
                     {"after", Align::kRight}});
  for (std::size_t i = 0; i < shown; ++i) {
    const SampleEntry& e = *rows[i];
    entries.row({simulator::name_of(e.entry), fmt::format("{}", e.samples),
                 format_seconds(Seconds(e.measured_s)),
                 signed_percent(error_of(e.before_s, e.measured_s)),
                 signed_percent(error_of(e.after_s, e.measured_s))});
  }
  out.line(entries.text());
  for (const Note& note : fit.notes) {
    if (note.warning) {
      out.warn(note.text);
    } else {
      out.note(note.text);
    }
  }
}

}  // namespace orrery::cli
