// The user's layout is the best under its pins; what it lacks is told by terms and by layout.
#include "planner/questions/versus.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "core/quantity.h"

namespace orrery::planner {
namespace {

// Terms smaller than this share of the difference are not spoken of.
constexpr double kTold = 0.1;

bool speaks_of(const PinList& pins, const std::string& name) {
  return std::any_of(pins.begin(), pins.end(), [&](const auto& p) { return p.first == name; });
}

Setting own_setting(const Setting& setting, const PinList& pins) {
  Setting own = setting;
  own.pins = pins;
  for (const auto& pin : setting.pins) {
    if (!speaks_of(pins, pin.first)) own.pins.push_back(pin);
  }
  return own;
}

// One pin set to the nearest value, by its ratio, under which something fits.
std::optional<Nearest> nearest_value(const Searcher& searcher, const Setting& own,
                                     std::size_t pins) {
  std::vector<PinChange> changes = searcher.changes(own, pins);
  std::sort(changes.begin(), changes.end());
  std::size_t tried = 0;
  for (const PinChange& change : changes) {
    if (tried == searcher.most_changes()) break;
    Setting s = own;
    auto& pin = s.pins[change.pin];
    const std::string before = std::exchange(pin.second, change.value);
    Answer answer = searcher.quick(s, Seconds(std::numeric_limits<double>::infinity()));
    if (!answer.legal) continue;
    ++tried;
    if (answer) {
      return Nearest{fmt::format("{}={} instead of {}", pin.first, pin.second, before),
                     std::move(answer)};
    }
  }
  return std::nullopt;
}

std::string shortage_text(const Side& lack) {
  const auto most =
      std::max_element(lack.memory.begin(), lack.memory.end(),
                       [](const MemoryRow& x, const MemoryRow& y) { return x.bytes < y.bytes; });
  std::string text = lack.answer.reason;
  if (most != lack.memory.end()) {
    text += fmt::format("; most of it is {}, {}", most->cls, format_bytes(most->bytes));
  }
  return text;
}

}  // namespace

std::string difference_text(const Searcher& searcher, const Side& own, const Side& best) {
  const double step = own.answer.step.value(), other = best.answer.step.value();
  const double more = step - other;
  const double relative = (step / other - 1) * 100;
  if (std::abs(relative) < 0.005) return "the same time";
  std::string text = fmt::format("{:+.2f} %", relative);
  struct Part {
    double more;
    std::string name;
  };
  std::vector<Part> parts;
  for (std::size_t i = 0; i < own.terms.size(); ++i) {
    parts.push_back({own.terms[i].time.value() - best.terms[i].time.value(), own.terms[i].name});
  }
  std::stable_sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) {
    return std::abs(a.more) > std::abs(b.more);
  });
  const char* between = ": ";
  for (const Part& part : parts) {
    if (std::abs(part.more) < kTold * std::abs(more)) break;
    text += fmt::format("{}{} {} {}", between, format_seconds(Seconds(std::abs(part.more))),
                        part.more > 0 ? "more" : "less", part.name);
    const std::string why = searcher.cause(part.name, own.answer, best.answer);
    if (!why.empty()) text += " (" + why + ")";
    between = ", ";
  }
  return text;
}

Result<Comparison> versus(const Searcher& searcher, const Setting& setting, const Answer& best,
                          const OwnLayout& mine) {
  const Setting own = own_setting(setting, mine.pins);
  Comparison c;
  c.best = searcher.side(setting, best);
  Result<Answer> found = mine.job ? searcher.exactly(own, *mine.job) : searcher.fastest(own);
  if (!found.ok()) {
    if (found.error().code != ErrorCode::kInfeasible) return found.error();
    c.broken = searcher.broken(own);
    if (mine.job || c.broken.empty()) c.broken = found.error().problems;
    c.reason = "breaks a rule: " + c.broken.front().where + ": " + c.broken.front().message;
    c.nearest = nearest_value(searcher, own, mine.pins.size());
    return c;
  }
  c.fits = found.value().fits;
  c.own = searcher.side(own, found.value());
  if (c.fits) {
    c.reason = difference_text(searcher, *c.own, c.best);
    return c;
  }
  c.reason = shortage_text(*c.own);
  c.nearest = nearest_value(searcher, own, mine.pins.size());
  if (!c.nearest) c.nearest = searcher.advice(own);
  return c;
}

}  // namespace orrery::planner
