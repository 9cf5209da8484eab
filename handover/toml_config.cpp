// See toml_config.h. The library is used with exceptions, which stay in this file.
#include "handover/toml_config.h"

#include <sstream>
#include <stdexcept>
#include <utility>

namespace orrery::handover {
namespace {

// The library asserts that some malformed keys ("[=]") do not occur: here they are errors.
constexpr void require_toml(bool holds) {
  if (!holds) throw std::invalid_argument("a malformed key");
}

}  // namespace
}  // namespace orrery::handover

#undef NDEBUG
#define TOML_ASSERT(expr) ::orrery::handover::require_toml(static_cast<bool>(expr))
#include <toml++/toml.h>

namespace orrery::handover {
namespace {

void add_toml(const toml::node& node, const std::string& pointer, Settings& settings) {
  if (const toml::table* table = node.as_table()) {
    for (const auto& [key, value] : *table) {
      add_toml(value, pointer + "/" + std::string(key.str()), settings);
    }
    return;
  }
  std::string value;
  if (const auto text = node.value_exact<std::string>()) {
    value = *text;
  } else if (const auto flag = node.value_exact<bool>()) {
    value = *flag ? "true" : "false";
  } else if (const auto number = node.value_exact<std::int64_t>()) {
    value = std::to_string(*number);
  } else {
    std::ostringstream out;
    node.visit([&out](const auto& n) { out << n; });
    value = out.str();
  }
  settings.add({pointer, std::move(value),
                settings.place() + ":" + std::to_string(node.source().begin.line)});
}

}  // namespace

Result<Settings> parse_toml(const std::string& text, const std::string& place) {
  Settings settings(place);
  try {
    add_toml(toml::parse(text, place), "", settings);
  } catch (const toml::parse_error& error) {
    return Error::of(ErrorCode::kInvalid, place + ":" + std::to_string(error.source().begin.line),
                     "is not TOML: " + std::string(error.description()), "mend it there");
  } catch (const std::invalid_argument& error) {
    return Error::of(ErrorCode::kInvalid, place, "is not TOML: " + std::string(error.what()),
                     "mend its keys and tables");
  }
  return settings;
}

}  // namespace orrery::handover
