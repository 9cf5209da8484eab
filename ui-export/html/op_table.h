// The ops that the page speaks of, each once: of both traces, of all roles that do the same.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/json.h"
#include "ui-export/html/side.h"

namespace orrery::html {

// An op is its path, phase, micro-batch and chunk, by which compare_runs joins programs; and its
// kind and lane, which may differ between them.
class OpTable {
 public:
  // The op's place in the table; added where it is new.
  int add(const OpRow& row);
  // The same for what is not an op of a trace's own rows.
  int add(const std::string& path, const std::string& phase, const std::string& kind,
          const std::string& lane, std::int32_t micro_batch, std::int32_t chunk);
  // Bytes and dependencies of the ops that `side` has and the table holds, for what is not known
  // yet. Dependencies on ops that the table does not hold are left out.
  void describe(const Side& side);

  std::size_t size() const { return entries_.size(); }
  // Columns: {"path": [..], "phase": [..], ..., "deps": [[..], ..]}, with names in "names".
  Json json() const;

 private:
  struct Entry {
    std::string path, phase, kind, lane, group, unit;
    std::int32_t micro_batch = 0, chunk = 0;
    bool communication = false, described = false;
    std::int64_t bytes = -1;  // of the buffers it writes; -1: not known, or they depend on data
    std::set<int> deps;
  };
  std::vector<Entry> entries_;
  std::map<std::string, int> by_identity_;
};

}  // namespace orrery::html
