// What the tracer's tests share: a folder of the test's own, a small program, random events of it,
// and the whole contents of a trace as text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/program/program.h"
#include "core/trace_events.h"
#include "tracer/trace_db.h"

namespace orrery::testing {

// Made at the start, removed with all it holds at the end.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }
  std::vector<std::string> entries() const;  // names, sorted

 private:
  std::string path_;
};

// Two roles (even and odd ranks), each with ops on every lane, a data-dependent buffer and a record
// of size variables. world >= 2 and even.
Program small_program(std::int32_t world);

// A span for every op of every rank and step, at random times, and the other kinds of event.
TraceEvents random_events(const Program& program, std::uint32_t seed, std::int32_t steps);
// Only what one rank reports.
TraceEvents of_rank(const TraceEvents& events, std::int32_t rank);

RunInfo run_info(const Program& program);

// Every row of every table and view, a line each.
std::string dump(const std::string& path);

void write_file(const std::string& path, const std::string& bytes);
std::string read_file(const std::string& path);

}  // namespace orrery::testing
