// Fits without a part of the rows. See the header.
#include "validation/held_out.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <mutex>
#include <numeric>
#include <set>
#include <thread>
#include <tuple>

#include "validation/jobs.h"

namespace orrery::validation {
namespace {

using simulator::MeasuredShape;

constexpr std::size_t kParts = 5;

const std::string& device_of(const Job& job) {
  return job.cluster.device.family;
}

// Which part of the rows each is in: by the order of what was run and measured, so that the order
// of the rows is irrelevant.
std::vector<std::string> parts_of(const std::vector<FitRow>& rows) {
  std::vector<MeasuredShape> shapes;
  for (const FitRow& row : rows) shapes.push_back(simulator::shape_of(row.job));
  std::vector<std::size_t> order(rows.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto key = [&](std::size_t i) { return std::tie(shapes[i], rows[i].measured_s); };
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return key(a) < key(b); });
  std::vector<std::string> parts(rows.size());
  for (std::size_t i = 0; i < order.size(); ++i) parts[order[i]] = std::to_string(i % kParts);
  return parts;
}

std::vector<std::string> keys_of(const std::vector<FitRow>& rows, Held held) {
  if (held == Held::kRows) return parts_of(rows);
  std::vector<std::string> keys;
  for (const FitRow& r : rows) keys.push_back(held == Held::kSource ? r.source : device_of(r.job));
  return keys;
}

std::vector<MeasuredShape> shapes_of(const std::vector<FitRow>& rows) {
  std::vector<MeasuredShape> shapes;
  for (const FitRow& row : rows) {
    if (row.measured_s > 0) shapes.push_back(simulator::shape_of(row.job));
  }
  return simulator::representatives(std::move(shapes), simulator::kMostShapes);
}

SpreadSample sample_of(const FitRow& row, Held held, const simulator::ParameterSet& set) {
  Job job = row.job;
  simulator::apply(set.values, job);
  const simulator::JobPrediction predicted = simulator::predict(job);
  return {held, row.source, device_of(job),
          simulator::spread_features(job, predicted, set.values, set.spread.shapes),
          std::log(row.measured_s / predicted.step.value())};
}

// Fits to the rows with another key, and looks at those with its own.
void fill(const std::vector<FitRow>& rows, const std::vector<std::string>& keys,
          const FitOptions& options, HeldFit& fit) {
  std::vector<FitRow> others;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (keys[i] != fit.key) others.push_back(rows[i]);
  }
  if (!others.empty()) {
    fit.set.values = validation::fit(others, simulator::predict, options).values;
    fit.set.spread.shapes = shapes_of(others);
  }
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].measured_s <= 0) continue;  // its memory was measured alone
    if (keys[i] == fit.key) fit.samples.push_back(sample_of(rows[i], fit.held, fit.set));
  }
}

}  // namespace

std::vector<HeldFit> fit_held_out(const std::vector<FitRow>& rows, const FitOptions& options,
                                  const std::function<void(std::size_t, std::size_t)>& progress) {
  std::map<Held, std::vector<std::string>> keys;
  std::vector<HeldFit> fits;
  for (const Held held : {Held::kSource, Held::kDevice, Held::kRows}) {
    keys[held] = keys_of(rows, held);
    const std::set<std::string> different(keys[held].begin(), keys[held].end());
    for (const std::string& key : different) fits.push_back({held, key, {}, {}});
  }
  std::atomic<std::size_t> next = 0, done = 0;
  std::mutex saying;
  const auto work = [&] {
    for (std::size_t i = next++; i < fits.size(); i = next++) {
      fill(rows, keys.at(fits[i].held), options, fits[i]);
      const std::lock_guard lock(saying);
      if (progress) progress(++done, fits.size());
    }
  };
  std::vector<std::thread> others;
  const auto cores = std::max(1U, std::thread::hardware_concurrency());
  for (unsigned t = 1; t < cores && t < fits.size(); ++t) others.emplace_back(work);
  work();
  for (std::thread& t : others) t.join();
  return fits;
}

simulator::SpreadModel spread_of(const std::vector<HeldFit>& fits,
                                 const std::vector<FitRow>& rows) {
  std::vector<SpreadSample> samples;
  for (const HeldFit& f : fits) samples.insert(samples.end(), f.samples.begin(), f.samples.end());
  return fit_spread(std::move(samples), shapes_of(rows));
}

std::vector<Outcome> validate_held_out(const std::vector<PublishedRow>& rows,
                                       const std::vector<Stack>& stacks, Held held,
                                       const std::vector<HeldFit>& fits) {
  std::map<std::string, simulator::ParameterSet> sets;
  for (const HeldFit& own : fits) {
    if (own.held != held) continue;
    std::vector<SpreadSample> samples;
    for (const HeldFit& f : fits) {
      for (const SpreadSample& s : f.samples) {
        if ((held == Held::kSource ? s.source : s.device) != own.key) samples.push_back(s);
      }
    }
    simulator::ParameterSet set = own.set;
    set.spread = fit_spread(std::move(samples), own.set.spread.shapes);
    sets.emplace(own.key, std::move(set));
  }
  std::vector<Outcome> out;
  for (const PublishedRow& row : rows) {
    const Predictor own = [&](const Job& job) {
      const auto found = sets.find(held == Held::kSource ? row.source : device_of(job));
      return found == sets.end() ? simulator::predict(job)
                                 : simulator::predict_with(found->second, job);
    };
    out.push_back(validate_row(row, stacks, own));
  }
  return out;
}

}  // namespace orrery::validation
