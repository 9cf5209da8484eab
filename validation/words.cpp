// Tables of words.
#include "validation/words.h"

#include <algorithm>
#include <cctype>
#include <utility>
#include <vector>

namespace orrery::validation {
namespace {

struct ModuleWord {
  const char* word;
  std::vector<Module> modules;
};

// Megatron-Core's names of --recompute-modules, and what others call the same.
const std::vector<ModuleWord>& module_words() {
  static const std::vector<ModuleWord> rows = {
      {"core_attn", {Module::kCoreAttention}},
      {"attention core", {Module::kCoreAttention}},
      {"mla_up_proj", {Module::kLatentUp}},
      {"layernorm", {Module::kNorm}},
      {"rmsnorm", {Module::kNorm}},
      {"output", {Module::kOutput}},
      {"moe_act", {Module::kExpertActivation}},
      {"mlp", {Module::kMlp}},
      {"shared_experts", {Module::kSharedExperts}},
      {"moe",
       {Module::kRouter, Module::kDispatch, Module::kExperts, Module::kExpertActivation,
        Module::kSharedExperts}}};
  return rows;
}

std::string trim(const std::string& text, const char* drop = " \t\"'[]") {
  const std::size_t first = text.find_first_not_of(drop);
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(drop) - first + 1);
}

// Splits at commas that stand in no brackets.
std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts(1);
  int depth = 0;
  for (const char c : text) {
    if (c == '(') ++depth;
    if (c == ')') --depth;
    if (c == ',' && depth <= 0) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

bool set_module(const std::string& word, Recompute& out) {
  for (const ModuleWord& row : module_words()) {
    if (word != row.word) continue;
    for (const Module m : row.modules) out.modules[static_cast<std::size_t>(m)] = true;
    return true;
  }
  return false;
}

}  // namespace

std::string lower_case(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

bool mentions(const std::string& text, const std::string& word) {
  return lower_case(text).find(lower_case(word)) != std::string::npos;
}

std::optional<Recompute> recompute_of(const std::string& words, std::string& unknown) {
  const std::string text = trim(lower_case(words), " \t");
  Recompute out;
  const std::size_t stop = text.find_first_of(" :(");
  const std::string kind = text.substr(0, stop);
  const std::string rest = stop == std::string::npos ? "" : trim(text.substr(stop), " \t:");
  if (kind == "none") return out;
  if (kind == "full") {
    out.full = true;
    return out;
  }
  if (kind != "selective") {
    unknown = kind.substr(0, 60);
    return std::nullopt;
  }
  // "selective" alone is Megatron's first one: scores, softmax and their product with the values.
  std::string list = rest;
  if (list.starts_with('(') && list.ends_with(')')) list = list.substr(1, list.size() - 2);
  if (trim(list).empty()) list = "core_attn";
  for (const std::string& part : split(list)) {
    // A remark in brackets behind a module says what is not run again.
    const std::string word = trim(part.substr(0, part.find('(')));
    if (word.empty() || set_module(word, out)) continue;
    if (word == "op" || word == "ops") {
      out.ops = true;
      continue;
    }
    unknown = word.substr(0, 60);
    return std::nullopt;
  }
  return out;
}

std::optional<Precision> precision_of(const std::string& word) {
  static const std::vector<std::pair<const char*, Precision>> rows = {
      {"bf16", Precision::kBf16},          {"fp16", Precision::kFp16}, {"fp32", Precision::kFp32},
      {"tf32", Precision::kTf32},          {"fp8", Precision::kFp8},   {"mxfp8", Precision::kFp8},
      {"mxfp8 (partly)", Precision::kFp8},
  };
  for (const auto& [name, precision] : rows) {
    if (lower_case(word) == name) return precision;
  }
  return std::nullopt;
}

std::optional<Dispatcher> dispatcher_of(const std::string& word) {
  static const std::vector<std::pair<const char*, Dispatcher>> rows = {
      {"deepep", Dispatcher::kDeduplicated},       {"hybridep", Dispatcher::kDeduplicated},
      {"deduplicated", Dispatcher::kDeduplicated}, {"alltoall", Dispatcher::kAllToAll},
      {"all_to_all", Dispatcher::kAllToAll},       {"allgather", Dispatcher::kAllGather},
      {"all_gather", Dispatcher::kAllGather},
  };
  for (const auto& [name, dispatcher] : rows) {
    if (mentions(word, name)) return dispatcher;
  }
  return std::nullopt;
}

}  // namespace orrery::validation
