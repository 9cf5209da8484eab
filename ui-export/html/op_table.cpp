// See op_table.h.
#include "ui-export/html/op_table.h"

namespace orrery::html {
namespace {

std::string identity(const std::string& path, const std::string& phase, const std::string& kind,
                     const std::string& lane, std::int32_t micro_batch, std::int32_t chunk) {
  return path + '\n' + phase + '\n' + kind + '\n' + lane + '\n' + std::to_string(micro_batch) +
         '\n' + std::to_string(chunk);
}

std::string identity(const OpRow& row) {
  return identity(row.path, row.phase, row.kind, row.lane, row.micro_batch, row.chunk);
}

// Names that repeat, each stored once.
class Names {
 public:
  int index(const std::string& name) {
    const auto [at, fresh] = by_name_.try_emplace(name, static_cast<int>(by_name_.size()));
    if (fresh) list_.push(Json(clean_text(name)));
    return at->second;
  }
  Json take() { return std::move(list_); }

 private:
  std::map<std::string, int> by_name_;
  Json list_ = Json::array();
};

}  // namespace

int OpTable::add(const std::string& path, const std::string& phase, const std::string& kind,
                 const std::string& lane, std::int32_t micro_batch, std::int32_t chunk) {
  const auto [at, fresh] = by_identity_.try_emplace(
      identity(path, phase, kind, lane, micro_batch, chunk), static_cast<int>(entries_.size()));
  if (fresh) {
    Entry entry;
    entry.path = path;
    entry.phase = phase;
    entry.kind = kind;
    entry.lane = lane;
    entry.micro_batch = micro_batch;
    entry.chunk = chunk;
    entries_.push_back(std::move(entry));
  }
  return at->second;
}

int OpTable::add(const OpRow& row) {
  return add(row.path, row.phase, row.kind, row.lane, row.micro_batch, row.chunk);
}

void OpTable::describe(const Side& side) {
  for (const OpRow& row : side.ops) {
    const auto at = by_identity_.find(identity(row));
    if (at == by_identity_.end()) continue;
    Entry& entry = entries_[static_cast<std::size_t>(at->second)];
    if (entry.described) continue;
    entry.described = true;
    entry.group = row.group;
    entry.unit = row.unit;
    entry.communication = row.communication;
    const auto bytes = side.static_bytes.find({row.role, row.op});
    if (bytes != side.static_bytes.end()) entry.bytes = bytes->second;
    const auto deps = side.deps.find({row.role, row.op});
    if (deps == side.deps.end()) continue;
    for (const std::int32_t on : deps->second) {
      const auto other = side.op.find({row.role, on});
      if (other == side.op.end()) continue;
      const auto known = by_identity_.find(identity(*other->second));
      if (known != by_identity_.end()) entry.deps.insert(known->second);
    }
  }
}

Json OpTable::json() const {
  Names names;
  Json path = Json::array(), phase = Json::array(), kind = Json::array(), lane = Json::array(),
       group = Json::array(), unit = Json::array(), micro_batch = Json::array(),
       chunk = Json::array(), communication = Json::array(), bytes = Json::array(),
       deps = Json::array();
  for (const Entry& entry : entries_) {
    path.push(clean_text(entry.path));
    phase.push(names.index(entry.phase));
    kind.push(names.index(entry.kind));
    lane.push(names.index(entry.lane));
    group.push(names.index(entry.group));
    unit.push(names.index(entry.unit));
    micro_batch.push(static_cast<int>(entry.micro_batch));
    chunk.push(static_cast<int>(entry.chunk));
    communication.push(entry.communication ? 1 : 0);
    bytes.push(entry.bytes < 0 ? Json() : Json(entry.bytes));
    Json on = Json::array();
    for (const int dep : entry.deps) on.push(dep);
    deps.push(std::move(on));
  }
  return Json::object()
      .set("names", names.take())
      .set("path", std::move(path))
      .set("phase", std::move(phase))
      .set("kind", std::move(kind))
      .set("lane", std::move(lane))
      .set("group", std::move(group))
      .set("unit", std::move(unit))
      .set("micro_batch", std::move(micro_batch))
      .set("chunk", std::move(chunk))
      .set("communication", std::move(communication))
      .set("bytes", std::move(bytes))
      .set("deps", std::move(deps));
}

}  // namespace orrery::html
