// Finds configs/ and reads files; the only file of core that looks at the file system.
#include "core/configs.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>

#include "core/quantity.h"

namespace orrery {
namespace {

namespace fs = std::filesystem;

// Empty when there is none.
fs::path configs_root() {
  if (const char* env = std::getenv("ORRERY_CONFIGS"); env != nullptr && *env != '\0') return env;
  std::error_code ec;
  const fs::path exe = fs::read_symlink("/proc/self/exe", ec);
  if (ec) return {};
  fs::path folder = exe.parent_path();
  // build/<preset>/tests/<binary> is the deepest place: four folders.
  for (int up = 0; up < 4 && !folder.empty(); ++up) {
    for (const char* below : {"configs", "share/orrery/configs"}) {
      if (fs::is_directory(folder / below / "models", ec)) return folder / below;
    }
    folder = folder.parent_path();
  }
  return {};
}

bool is_plain_name(const std::string& name) {
  return !name.empty() && name.front() != '.' && name.size() < 200 &&
         std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return c > ' ' && c < 0x7f && c != '/' && c != '\\'; });
}

}  // namespace

std::vector<std::string> list_configs(const std::string& folder) {
  std::vector<std::string> names;
  const fs::path root = configs_root();
  if (root.empty()) return names;
  std::error_code ec;
  for (fs::directory_iterator it(root / folder, ec), end; !ec && it != end; it.increment(ec)) {
    if (it->path().extension() == ".json") names.push_back(it->path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

Result<std::string> find_config(const std::string& folder, const std::string& name) {
  const fs::path root = configs_root();
  std::error_code ec;
  if (root.empty() || !fs::is_directory(root, ec)) {
    return Error::of(ErrorCode::kIo, root.string(), "the configs folder was not found",
                     "set ORRERY_CONFIGS to it");
  }
  const fs::path path = root / folder / (name + ".json");
  if (is_plain_name(name) && fs::is_regular_file(path, ec)) return path.string();
  const std::vector<std::string> names = list_configs(folder);
  std::string hint;
  if (const std::string near = nearest(name, names); !near.empty()) {
    hint = "did you mean '" + near + "'?";
  } else {
    for (const std::string& known : names) hint += (hint.empty() ? "known: " : ", ") + known;
  }
  return Error::of(ErrorCode::kInvalid, "configs/" + folder, "no '" + name + "' here", hint);
}

Result<std::string> read_file(const std::string& path) {
  std::error_code ec;
  if (fs::is_directory(path, ec)) {
    return Error::of(ErrorCode::kIo, path, "is a directory, not a file");
  }
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  if (in && in.peek() != std::ifstream::traits_type::eof()) out << in.rdbuf();
  if (!in.is_open() || in.bad()) {
    const std::string why = errno != 0 ? std::strerror(errno) : "unknown error";
    return Error::of(ErrorCode::kIo, path, "cannot be read: " + why);
  }
  return std::move(out).str();
}

bool looks_like_path(const std::string& name) {
  return name.find('/') != std::string::npos || name.ends_with(".json");
}

std::string config_stem(const std::string& place) {
  if (!place.ends_with(':')) return "";
  fs::path path(place.substr(0, place.size() - 1));
  if (path.filename() == "config.json") {
    path = path.parent_path();
    return path.filename().string();
  }
  return path.stem().string();
}

}  // namespace orrery
