// Reads a Hugging Face config.json in its three dialects (hub originals; transformers 4.56,
// `dtype`; transformers 5, `rope_parameters` and `num_local_experts`), by family (models/config.h).
#include "core/model.h"

#include <filesystem>
#include <system_error>

#include "core/configs.h"
#include "core/hash.h"
#include "core/models/config.h"
#include "core/models/count.h"
#include "core/quantity.h"

namespace orrery {
namespace {

constexpr double kMaxParameters = 1e16;  // keeps every count and byte sum within int64

// A directory of the hub's cache holds refs/main -> snapshots/<revision>/config.json.
std::string config_in_directory(const std::string& directory) {
  namespace fs = std::filesystem;
  std::error_code ec;
  const fs::path plain = fs::path(directory) / "config.json";
  if (fs::exists(plain, ec)) return plain.string();
  if (Result<std::string> ref = read_file((fs::path(directory) / "refs/main").string()); ref.ok()) {
    std::string revision = ref.value();
    while (!revision.empty() && revision.back() <= ' ') revision.pop_back();
    return (fs::path(directory) / "snapshots" / revision / "config.json").string();
  }
  return plain.string();
}

}  // namespace

Result<Model> model_from_json(const Json& json, const std::string& place) {
  std::vector<Problem> problems;
  ObjectReader reader(json, place, problems);
  Model model;
  model.model_type = reader.text("model_type");
  if (!problems.empty()) return Error{ErrorCode::kInvalid, problems};
  const config::Family* family = config::find_family(model.model_type);
  if (family == nullptr) {
    std::vector<std::string> names;
    std::string known;
    for (const config::Family* row : config::families()) {
      names.emplace_back(row->model_type);
      known += (known.empty() ? "known: " : ", ") + names.back();
    }
    const std::string near = nearest(model.model_type, names);
    reader.note("model_type", "unknown model_type '" + model.model_type + "'",
                near.empty() ? known : "did you mean '" + near + "'? " + known);
    return Error{ErrorCode::kInvalid, problems};
  }
  model.name = reader.text_or("name", config_stem(place));
  if (model.name.empty()) model.name = model.model_type;
  config::Source source{reader, json, model, problems};
  family->read(source);
  if (problems.empty() && rough_parameter_count(model) > kMaxParameters) {
    reader.note("", "the model has more than 1e16 parameters");
  }
  if (!problems.empty()) return Error{ErrorCode::kInvalid, problems};
  model.sha256 = sha256_hex(to_json(model).dump(-1));
  return model;
}

Result<Model> parse_model(const std::string& text, const std::string& place) {
  TRY(const Json json, Json::parse(text, place));
  return model_from_json(json, place + ":");
}

Result<Model> load_model(const std::string& name) {
  std::error_code ec;
  std::string path = name;
  Result<std::string> config = find_config("models", name);
  if (config.ok()) {
    path = config.value();
  } else if (std::filesystem::is_directory(name, ec)) {
    path = config_in_directory(name);
  } else if (!looks_like_path(name)) {
    return config.error();
  } else if (!std::filesystem::exists(name, ec)) {
    return Error::of(ErrorCode::kInvalid, name, "no such file or directory",
                     "give a config.json, its directory, or a name of `orrery list models`");
  }
  TRY(const std::string text, read_file(path));
  return parse_model(text, path);
}

Json to_json(const Model& m) {
  const config::Family* family = config::find_family(m.model_type);
  CHECK(family != nullptr, "no family " + m.model_type);
  Json json = Json::object();
  json.set("name", m.name)
      .set("architectures", Json::array().push(family->architecture))
      .set("model_type", m.model_type);
  family->write(m, json);
  return json;
}

bool executes(const Model& model) {
  const config::Family* family = config::find_family(model.model_type);
  return family != nullptr && family->executed;
}

}  // namespace orrery
