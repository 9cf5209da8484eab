// See memory.h.
#include "ui-export/html/memory.h"

#include <algorithm>

#include "ui-export/html/timeline.h"

namespace orrery::html {
namespace {

std::string class_name(const Side& side, std::int32_t cls) {
  const auto name = side.class_names.find(cls);
  return clean_text(name == side.class_names.end() ? "class " + std::to_string(cls) : name->second);
}

using Levels = std::vector<std::int64_t>;

std::int64_t total_of(const Levels& levels, const std::vector<std::int32_t>& classes) {
  std::int64_t total = 0;
  for (std::size_t i = 0; i < levels.size(); ++i) {
    if (classes[i] != kHostClass) total = plus(total, levels[i]);
  }
  return total;
}

struct Window {
  std::int64_t start_ns = 0, end_ns = 0;
  std::size_t points = 1;

  std::size_t slice(std::int64_t at_ns) const {
    const double length = std::max(1.0, static_cast<double>(nanoseconds(start_ns, end_ns)));
    const double share = static_cast<double>(nanoseconds(start_ns, at_ns)) / length;
    const double slice = share * static_cast<double>(points);
    return std::min(points - 1, static_cast<std::size_t>(std::max(0.0, slice)));
  }
};

// What the program's buffers say lives before the step. A class whose peak they exceed has them on
// the host.
std::int64_t standing_bytes(const Side& side, std::int32_t rank, std::int32_t cls) {
  const auto role = side.role_of.find(rank);
  if (role == side.role_of.end()) return 0;
  const auto bytes = side.standing_bytes.find({role->second, cls});
  if (bytes == side.standing_bytes.end()) return 0;
  for (const PeakEvent& peak : side.peaks) {
    if (peak.rank == rank && peak.cls == cls && peak.bytes >= bytes->second) return bytes->second;
  }
  return 0;
}

// The levels of one rank by slice. What was taken before the step is live when it begins.
std::vector<Levels> slices_of(const Side& side, std::int32_t rank, const Window& window,
                              const std::vector<std::int32_t>& classes) {
  // A run tells what it took before its steps, in rows of no op; a simulation does not.
  const bool told =
      std::any_of(side.allocs.begin(), side.allocs.end(),
                  [&](const AllocEvent& alloc) { return alloc.rank == rank && alloc.op < 0; });
  Levels now;
  for (const std::int32_t cls : classes) {
    now.push_back(told ? 0 : standing_bytes(side, rank, cls));
  }
  std::vector<Levels> slices(window.points);
  std::size_t filled = 0;  // slices before it are done
  for (const AllocEvent& alloc : side.allocs) {
    if (alloc.rank != rank) continue;
    const bool within = alloc.step == side.default_step && alloc.op >= 0;
    if (alloc.step > side.default_step) break;
    if (within) {
      const std::size_t slice = window.slice(alloc.time_ns);
      for (; filled <= slice; ++filled) slices[filled] = now;
    }
    const auto cls = std::lower_bound(classes.begin(), classes.end(), alloc.cls);
    std::int64_t& level = now[static_cast<std::size_t>(cls - classes.begin())];
    level = plus(level, alloc.delta);
    if (!within) continue;
    Levels& highest = slices[filled - 1];
    if (total_of(now, classes) > total_of(highest, classes)) highest = now;
  }
  for (; filled < window.points; ++filled) slices[filled] = now;
  return slices;
}

Json rank_json(std::int32_t rank, const std::vector<Levels>& slices, std::size_t classes) {
  Json bytes = Json::array();
  for (std::size_t c = 0; c < classes; ++c) {
    Json differences = Json::array();
    std::int64_t before = 0;
    for (const Levels& levels : slices) {
      differences.push(levels[c] - before);
      before = levels[c];
    }
    bytes.push(std::move(differences));
  }
  return Json::object().set("rank", static_cast<int>(rank)).set("bytes", std::move(bytes));
}

}  // namespace

Json memory_json(const Side& side, std::size_t points, std::vector<std::string>& omitted) {
  std::vector<std::int32_t> classes, ranks;
  Window window{0, 0, std::max<std::size_t>(1, points)};
  window.start_ns = side.default_step < 0 ? 0 : side.origin_ns(side.default_step);
  window.end_ns = window.start_ns;
  for (const AllocEvent& alloc : side.allocs) {
    classes.push_back(alloc.cls);
    if (alloc.step != side.default_step || alloc.op < 0) continue;
    window.end_ns = std::max(window.end_ns, alloc.time_ns);
    ranks.push_back(alloc.rank);
  }
  for (const auto& [key, bytes] : side.standing_bytes) classes.push_back(key.second);
  const auto facts = side.steps.find(side.default_step);
  if (facts != side.steps.end()) window.end_ns = std::max(window.end_ns, facts->second.end_ns);
  for (auto* list : {&classes, &ranks}) {
    std::sort(list->begin(), list->end());
    list->erase(std::unique(list->begin(), list->end()), list->end());
  }
  if (ranks.empty()) return {};
  const std::vector<std::int32_t> shown = ranks_shown(ranks);
  if (shown.size() < ranks.size()) {
    omitted.push_back("Memory over time holds " + std::to_string(shown.size()) + " of " +
                      std::to_string(ranks.size()) + " ranks.");
  }
  Json names = Json::array(), rows = Json::array();
  for (const std::int32_t cls : classes) names.push(class_name(side, cls));
  for (const std::int32_t rank : shown) {
    rows.push(rank_json(rank, slices_of(side, rank, window, classes), classes.size()));
  }
  return Json::object()
      .set("step", static_cast<int>(side.default_step))
      .set("classes", std::move(names))
      .set("host", class_name(side, kHostClass))
      .set("start", 0)
      .set("end", nanoseconds(window.start_ns, window.end_ns))
      .set("ranks", std::move(rows));
}

Json peaks_json(const Side& side) {
  std::map<std::int32_t, std::int64_t> highest;
  for (const PeakEvent& peak : side.peaks) {
    std::int64_t& most = highest[peak.cls];
    most = std::max(most, peak.bytes);
  }
  if (highest.empty()) return {};
  Json json = Json::object();
  for (const auto& [cls, bytes] : highest) json.set(class_name(side, cls), bytes);
  return json;
}

}  // namespace orrery::html
