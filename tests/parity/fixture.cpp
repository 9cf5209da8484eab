// Reads fixtures; see the header.
#include "tests/parity/fixture.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/configs.h"
#include "core/json.h"

namespace orrery::reference {
namespace {

template <class T>
std::vector<T> numbers(const Json& array) {
  std::vector<T> out;
  for (const Json& item : array.items()) out.push_back(static_cast<T>(item.as_double()));
  return out;
}

Parameters tensors(const Json& object) {
  Parameters out;
  for (const auto& [name, values] : object.members()) out[name] = numbers<double>(values);
  return out;
}

Result<Fixture> read(const Json& one) {
  Fixture f;
  f.name = one.find("name")->as_string();
  TRY(f.model, model_from_json(*one.find("config"), "fixture:/config"));
  const std::int64_t sequences = one.find("sequences")->as_integer();
  const std::int64_t tokens = one.find("tokens")->as_integer();
  f.batch = {sequences, tokens, numbers<std::int64_t>(*one.find("ids")),
             numbers<std::int64_t>(*one.find("labels")),
             std::vector<std::vector<std::int64_t>>(static_cast<std::size_t>(sequences), {tokens})};
  f.parameters = tensors(*one.find("parameters"));
  f.biases = tensors(*one.find("biases"));
  f.loss = one.find("loss")->as_double();
  f.logits = numbers<double>(*one.find("logits"));
  f.gradients = tensors(*one.find("gradients"));
  for (const Json& layer : one.find("routing")->items()) {
    f.routing.push_back(numbers<std::int64_t>(layer));
  }
  return f;
}

}  // namespace

Result<std::vector<Fixture>> dots1_fixtures() {
  const std::string path = std::string(ORRERY_SOURCE_DIR) + "/tests/parity/fixtures/dots1.json";
  TRY(const Json file, Json::load(path));
  std::vector<Fixture> out;
  for (const Json& one : file.find("cases")->items()) {
    TRY(Fixture fixture, read(one));
    out.push_back(std::move(fixture));
  }
  return out;
}

double worst_difference(const std::vector<double>& a, const std::vector<double>& b) {
  CHECK(a.size() == b.size(), "sizes differ");
  double scale = 1, worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    CHECK(std::isfinite(a[i]), "no number");
    scale = std::max(scale, std::abs(b[i]));
    worst = std::max(worst, std::abs(a[i] - b[i]));
  }
  return worst / scale;
}

std::vector<std::int64_t> sorted_rows(std::vector<std::int64_t> ids, std::int64_t k) {
  for (auto at = ids.begin(); at != ids.end(); at += k) std::sort(at, at + k);
  return ids;
}

}  // namespace orrery::reference
