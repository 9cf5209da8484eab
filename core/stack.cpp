// Stack files: strict JSON; every key is known. And the choice of a stack by what a run says.
#include "core/stack.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <tuple>

#include "core/check.h"
#include "core/configs.h"

namespace orrery {
namespace {

constexpr std::array<AttentionKernel, 4> kKernels = {
    AttentionKernel::kUnfused, AttentionKernel::kFusedSoftmax, AttentionKernel::kFlash,
    AttentionKernel::kFlashAsync};

constexpr std::array<LossKernel, 4> kLosses = {LossKernel::kTorch, LossKernel::kInPlace,
                                               LossKernel::kFused, LossKernel::kChunked};

struct Switch {
  const char* name;
  bool Stack::*member;
};

const std::vector<Switch>& switches() {
  static const std::vector<Switch> rows = {{"fuses_sinks", &Stack::fuses_sinks},
                                           {"fused_passes", &Stack::fused_passes},
                                           {"overlaps_gradients", &Stack::overlaps_gradients},
                                           {"overlaps_parameters", &Stack::overlaps_parameters},
                                           {"overlaps_tensor", &Stack::overlaps_tensor},
                                           {"overlaps_stages", &Stack::overlaps_stages},
                                           {"overlaps_experts", &Stack::overlaps_experts},
                                           {"fp32_gradients", &Stack::fp32_gradients},
                                           {"fp32_loss", &Stack::fp32_loss},
                                           {"graphs", &Stack::graphs},
                                           {"in_network_reduction", &Stack::in_network_reduction},
                                           {"copies_gradients", &Stack::copies_gradients},
                                           {"fused_optimizer", &Stack::fused_optimizer},
                                           {"fused_sums", &Stack::fused_sums},
                                           {"keeps_stage_outputs", &Stack::keeps_stage_outputs},
                                           {"keeps_expert_outputs", &Stack::keeps_expert_outputs}};
  return rows;
}

bool is_date(const std::string& text) {
  if (text.size() != 7 || text[4] != '-') return false;
  for (const std::size_t i : {0U, 1U, 2U, 3U, 5U, 6U}) {
    if (std::isdigit(static_cast<unsigned char>(text[i])) == 0) return false;
  }
  const std::string month = text.substr(5);
  return month >= "01" && month <= "12";
}

std::string read_date(ObjectReader& reader, const char* key) {
  std::string text = reader.text_or(key, "");
  if (text.empty() || is_date(text)) return text;
  reader.note(key, "'" + text + "' is no month", "as \"2024-07\"");
  return "";
}

StackMatch read_match(const Json& json, const std::string& place, std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  StackMatch match;
  if (const Json* words = reader.array("words"); words != nullptr) {
    for (const Json& word : words->items()) {
      if (word.is_string() && !word.as_string().empty()) {
        match.words.push_back(word.as_string());
      } else {
        reader.note("words", "not a word: " + word.dump(-1).substr(0, 60));
      }
    }
    if (words->items().empty()) reader.note("words", "is empty", "at least one word");
  }
  match.from = read_date(reader, "from");
  match.until = read_date(reader, "until");
  if (!match.from.empty() && !match.until.empty() && match.until < match.from) {
    reader.note("until", "lies before from");
  }
  reader.finish();
  return match;
}

void read_parameters(const Json& json, const std::string& place, Stack& stack,
                     std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  for (const StackParameter& p : stack_parameters()) {
    stack.*p.member = reader.number_or(p.name, p.min, p.max, stack.*p.member);
  }
  reader.finish();
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

// A year alone counts as its January.
bool holds(const StackMatch& match, const std::string& words, const std::string& date) {
  for (const std::string& word : match.words) {
    if (words.find(lower(word)) == std::string::npos) return false;
  }
  if (match.from.empty() && match.until.empty()) return true;
  if (date.size() < 4) return false;
  const std::string month = date.size() >= 7 ? date.substr(0, 7) : date.substr(0, 4) + "-01";
  return month >= match.from && (match.until.empty() || month <= match.until);
}

std::size_t letters(const StackMatch& match) {
  std::size_t sum = 0;
  for (const std::string& word : match.words) sum += word.size();
  return sum;
}

}  // namespace

const char* name_of(AttentionKernel kernel) {
  constexpr std::array<const char*, 4> names = {"unfused", "fused_softmax", "flash", "flash_async"};
  return names[static_cast<std::size_t>(kernel)];
}

const char* name_of(LossKernel kernel) {
  constexpr std::array<const char*, 4> names = {"torch", "in_place", "fused", "chunked"};
  return names[static_cast<std::size_t>(kernel)];
}

const std::vector<StackParameter>& stack_parameters() {
  static const std::vector<StackParameter> rows = {
      {"host_per_kernel_s", &Stack::host_per_kernel_s, 0, 1e-3},
      {"pass_factor", &Stack::pass_factor, 0.5, 10},
      {"product_factor", &Stack::product_factor, 0.5, 5},
      {"attention_factor", &Stack::attention_factor, 0.3, 5},
      {"exposed_share", &Stack::exposed_share, 0, 1},
      {"step_s", &Stack::step_s, 0, 10},
      {"straggle", &Stack::straggle, 0, 1},
      {"reserve_bytes", &Stack::reserve_bytes, 1e8, 1e10},
      {"fragmentation", &Stack::fragmentation, 1, 1.6}};
  return rows;
}

Result<Stack> parse_stack(const std::string& text, const std::string& place) {
  TRY(const Json json, Json::parse(text, place));
  std::vector<Problem> problems;
  ObjectReader reader(json, place + ":", problems);
  Stack stack;
  stack.name = reader.text_or("name", config_stem(place + ":"));
  stack.family = reader.text("family");
  std::vector<std::string> kernels;
  for (const AttentionKernel k : kKernels) kernels.emplace_back(name_of(k));
  const std::string kernel = reader.choice("attention", kernels);
  for (const AttentionKernel k : kKernels) {
    if (kernel == name_of(k)) stack.attention = k;
  }
  if (reader.has("loss")) {
    std::vector<std::string> losses;
    for (const LossKernel k : kLosses) losses.emplace_back(name_of(k));
    const std::string loss = reader.choice("loss", losses);
    for (const LossKernel k : kLosses) {
      if (loss == name_of(k)) stack.loss = k;
    }
  }
  for (const Switch& row : switches()) {
    stack.*row.member = reader.boolean_or(row.name, stack.*row.member);
  }
  stack.recompute = reader.text_or("recompute", stack.recompute);
  if (reader.has("selective")) stack.selective = reader.choice("selective", {"core_attn", "op"});
  if (reader.has("dispatcher")) {
    stack.dispatcher = reader.choice("dispatcher", {"all_to_all", "deduplicated", "all_gather"});
  }
  stack.live_parameters =
      reader.integer_or("live_parameters", 0, std::int64_t{1} << 40, stack.live_parameters);
  stack.micro_batch = reader.integer_or("micro_batch", 1, 1 << 20, stack.micro_batch);
  if (reader.has("positions")) {
    stack.positions = reader.choice("positions", {"learned", "alibi"});
  }
  stack.released = read_date(reader, "released");
  stack.source = reader.text("source");
  if (reader.has("frameworks")) {
    if (const Json* rows = reader.array("frameworks"); rows != nullptr) {
      for (std::size_t i = 0; i < rows->items().size(); ++i) {
        const std::string at = reader.place() + "/frameworks/" + std::to_string(i);
        stack.frameworks.push_back(read_match(rows->items()[i], at, problems));
      }
    }
  }
  if (reader.has("parameters")) {
    if (const Json* rows = reader.child("parameters"); rows != nullptr) {
      read_parameters(*rows, reader.place() + "/parameters", stack, problems);
    }
  }
  reader.finish();
  if (!problems.empty()) return Error{ErrorCode::kInvalid, std::move(problems)};
  return stack;
}

Result<Stack> load_stack(const std::string& name) {
  std::string path = name;
  if (!looks_like_path(name)) {
    TRY(path, find_config("stacks", name));
  }
  TRY(const std::string text, read_file(path));
  return parse_stack(text, path);
}

Result<std::vector<Stack>> load_stacks() {
  std::vector<Stack> stacks;
  const std::vector<std::string> names = list_configs("stacks");
  if (names.empty()) {
    TRY(const std::string path, find_config("stacks", "generic"));
  }
  for (const std::string& name : names) {
    TRY(Stack stack, load_stack(name));
    stacks.push_back(std::move(stack));
  }
  return stacks;
}

Json to_json(const Stack& stack) {
  Json matches = Json::array();
  for (const StackMatch& match : stack.frameworks) {
    Json words = Json::array();
    for (const std::string& word : match.words) words.push(word);
    Json row = Json::object().set("words", std::move(words));
    if (!match.from.empty()) row.set("from", match.from);
    if (!match.until.empty()) row.set("until", match.until);
    matches.push(std::move(row));
  }
  Json parameters = Json::object();
  for (const StackParameter& p : stack_parameters()) parameters.set(p.name, stack.*p.member);
  Json json = Json::object();
  json.set("name", stack.name).set("family", stack.family);
  if (!stack.released.empty()) json.set("released", stack.released);
  json.set("frameworks", std::move(matches)).set("attention", name_of(stack.attention));
  json.set("loss", name_of(stack.loss));
  for (const Switch& row : switches()) json.set(row.name, stack.*row.member);
  return json.set("recompute", stack.recompute)
      .set("selective", stack.selective)
      .set("dispatcher", stack.dispatcher)
      .set("micro_batch", stack.micro_batch)
      .set("live_parameters", stack.live_parameters)
      .set("positions", stack.positions)
      .set("parameters", std::move(parameters))
      .set("source", stack.source);
}

const Stack* choose_stack(const std::vector<Stack>& stacks, const std::string& words,
                          const std::string& date) {
  const std::string text = lower(words);
  const Stack* best = nullptr;
  std::tuple<std::size_t, bool> best_rank;
  for (const Stack& stack : stacks) {
    for (const StackMatch& match : stack.frameworks) {
      if (!holds(match, text, date)) continue;
      const std::tuple<std::size_t, bool> rank = {letters(match),
                                                  !match.from.empty() || !match.until.empty()};
      const bool first = best != nullptr && rank == best_rank && stack.name < best->name;
      if (best != nullptr && rank <= best_rank && !first) continue;
      best = &stack;
      best_rank = rank;
    }
  }
  return best;
}

}  // namespace orrery
