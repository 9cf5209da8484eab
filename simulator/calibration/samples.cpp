// See samples.h: the file form, and which tool wrote a text.
#include "simulator/calibration/samples.h"

#include <array>
#include <cmath>
#include <utility>

#include "core/cluster.h"
#include "core/program/work.h"
#include "simulator/calibration/text_lines.h"

namespace orrery::simulator {
namespace {

constexpr double kMostFlops = 9e18, kMostBytes = 9e15, kMostSeconds = 1e5;
constexpr std::int64_t kMostRanks = 1 << 20;
constexpr std::int64_t kMostCount = 1 << 30;

const std::array<std::pair<const char*, SampleOp>, 7> kPlainOps = {
    {{"gemm", SampleOp::kGemm},
     {"grouped", SampleOp::kGrouped},
     {"attention", SampleOp::kAttention},
     {"launch", SampleOp::kLaunch},
     {"copy_to_host", SampleOp::kCopyToHost},
     {"copy_to_device", SampleOp::kCopyToDevice},
     {"copy_to_peer", SampleOp::kCopyToPeer}}};

std::vector<std::string> op_names() {
  std::vector<std::string> names;
  for (const auto& [name, op] : kPlainOps) names.emplace_back(name);
  for (int k = 0; k < kNumPassKinds; ++k) names.emplace_back(name_of(static_cast<PassKind>(k)));
  for (int k = 0; k < kNumTransferKinds; ++k) {
    names.emplace_back(orrery::name_of(static_cast<TransferKind>(k)));
  }
  return names;
}

// `name` is one of op_names().
void set_op(const std::string& name, Sample& sample) {
  for (const auto& [known, op] : kPlainOps) {
    if (name == known) sample.op = op;
  }
  for (int k = 0; k < kNumPassKinds; ++k) {
    if (name != name_of(static_cast<PassKind>(k))) continue;
    sample.op = SampleOp::kPass;
    sample.which = k;
  }
  for (int k = 0; k < kNumTransferKinds; ++k) {
    if (name != orrery::name_of(static_cast<TransferKind>(k))) continue;
    sample.op = SampleOp::kTransfer;
    sample.which = k;
  }
}

// What an op's time rests on must be there.
void check_sizes(ObjectReader& reader, const Sample& s) {
  const bool product =
      s.op == SampleOp::kGemm || s.op == SampleOp::kGrouped || s.op == SampleOp::kAttention;
  if (product && !(s.flops > 0)) reader.note("flops", "a product without FLOPs");
  if (!product && s.op != SampleOp::kLaunch && !(s.bytes > 0)) {
    reader.note("bytes", "'" + name_of(s) + "' moves no bytes");
  }
  if (s.op != SampleOp::kTransfer) return;
  if (s.ranks < 2) reader.note("ranks", "a transfer needs two ranks");
  if (s.nodes > s.ranks || s.ranks % s.nodes != 0) {
    reader.note("nodes", std::to_string(s.ranks) + " ranks do not divide over " +
                             std::to_string(s.nodes) + " nodes");
  }
}

Sample read_sample(const Json& json, const std::string& place, std::vector<Problem>& problems) {
  ObjectReader reader(json, place, problems);
  Sample s;
  if (!json.is_object()) return s;
  set_op(reader.choice("op", op_names()), s);
  s.dtype = reader.text_or("dtype", "");
  s.flops = reader.number_or("flops", 0, kMostFlops, 0);
  s.bytes = reader.number_or("bytes", 0, kMostBytes, 0);
  s.groups = reader.integer_or("groups", 1, kMostRanks, 1);
  s.ranks = reader.integer_or("ranks", 1, kMostRanks, 1);
  s.nodes = reader.integer_or("nodes", 1, kMostRanks, 1);
  s.passes = reader.integer_or("passes", 1, 2, 1);
  s.seconds = reader.number("seconds", 0, kMostSeconds);
  if (reader.has("seconds") && s.seconds <= 0) reader.note("seconds", "is no time");
  s.spread = reader.number_or("spread", 0, 1e6, 0);
  s.count = reader.integer_or("count", 1, kMostCount, 1);
  s.source = reader.text_or("source", place);
  check_sizes(reader, s);
  reader.finish();
  return s;
}

std::string device_name(const Json& file, ObjectReader& reader) {
  const Json* device = file.find("device");
  reader.ignore("device");
  if (device == nullptr || device->is_null()) return "";
  if (device->is_string()) return device->as_string();
  const Json* name = device->is_object() ? device->find("name") : nullptr;
  return name != nullptr && name->is_string() ? name->as_string() : "";
}

bool has(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

Result<Measurements> import_json(const std::string& text, const std::string& place) {
  TRY(const Json json, Json::parse(text, place));
  if (json.is_object() && json.find("nvbandwidth") != nullptr) {
    return import_nvbandwidth(text, place);
  }
  if (json.is_object() && json.find("samples") != nullptr) return parse_samples(text, place);
  return Error::of(ErrorCode::kInvalid, place, "is JSON, but neither samples nor nvbandwidth's",
                   "files of tools/gpu_probe.py have \"samples\", those of nvbandwidth -j have "
                   "\"nvbandwidth\"");
}

}  // namespace

std::string name_of(const Sample& sample) {
  if (sample.op == SampleOp::kPass) return name_of(static_cast<PassKind>(sample.which));
  if (sample.op == SampleOp::kTransfer) {
    return orrery::name_of(static_cast<TransferKind>(sample.which));
  }
  return name_of(sample.op);
}

std::string name_of(SampleOp op) {
  for (const auto& [name, known] : kPlainOps) {
    if (known == op) return name;
  }
  return "";
}

Json to_json(const Sample& s) {
  Json json = Json::object();
  json.set("op", name_of(s));
  if (!s.dtype.empty()) json.set("dtype", s.dtype);
  if (s.flops > 0) json.set("flops", s.flops);
  if (s.bytes > 0) json.set("bytes", s.bytes);
  if (s.groups > 1) json.set("groups", s.groups);
  if (s.ranks > 1) json.set("ranks", s.ranks);
  if (s.nodes > 1) json.set("nodes", s.nodes);
  if (s.passes > 1) json.set("passes", s.passes);
  json.set("seconds", s.seconds);
  if (s.spread > 0) json.set("spread", s.spread);
  return json.set("count", s.count).set("source", s.source);
}

Json to_json(const Measurements& m) {
  Json samples = Json::array();
  for (const Sample& s : m.samples) samples.push(to_json(s));
  Json facts = Json::object();
  for (const auto& [name, value] : m.facts) facts.set(name, value);
  return Json::object()
      .set("schema_version", 1)
      .set("device", m.device)
      .set("samples", std::move(samples))
      .set("facts", std::move(facts));
}

Result<Measurements> parse_samples(const std::string& text, const std::string& place) {
  TRY(const Json json, Json::parse(text, place));
  std::vector<Problem> problems;
  ObjectReader reader(json, place + ":", problems);
  if (!problems.empty()) return Error{ErrorCode::kInvalid, problems};
  Measurements out;
  out.tool = "samples";
  out.file = place;
  reader.integer("schema_version", 1, 1);
  out.device = device_name(json, reader);
  if (const Json* samples = reader.array("samples")) {
    for (std::size_t i = 0; i < samples->items().size(); ++i) {
      out.samples.push_back(
          read_sample(samples->items()[i], place + ":/samples/" + std::to_string(i), problems));
    }
  }
  if (reader.has("facts")) {
    if (const Json* facts = reader.child("facts")) {
      ObjectReader inner(*facts, place + ":/facts", problems);
      for (const auto& [name, value] : facts->members()) {
        if (value.is_null()) continue;
        out.facts[name] = inner.number(name, 0, 1e18);
      }
    }
  }
  if (!problems.empty()) return Error{ErrorCode::kInvalid, problems};
  if (out.samples.empty() && out.facts.empty()) {
    return Error::of(ErrorCode::kInvalid, place, "has no sample",
                     "its probe may have been stopped: run it again with --resume");
  }
  return out;
}

Result<Measurements> import_measurements(const std::string& text, const std::string& place) {
  const std::size_t start = text.find_first_not_of(" \t\r\n");
  if (start != std::string::npos && text[start] == '{') return import_json(text, place);
  if (has(text, "algbw") || has(text, "Avg bus bandwidth")) return import_nccl_tests(text, place);
  if (has(text, "nvbandwidth Version") || has(text, "bandwidth (GB/s)")) {
    return import_nvbandwidth(text, place);
  }
  if (has(text, "GPU0")) return import_topology(text, place);
  return Error::of(ErrorCode::kInvalid, place, "is no output that is known here",
                   "known: the tables of nccl-tests with their header, nvbandwidth's text or JSON, "
                   "`nvidia-smi topo -m`, the JSON of tools/gpu_probe.py");
}

}  // namespace orrery::simulator
