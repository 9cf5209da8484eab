// A second implementation of Perfetto's format, for the tests: reads the bytes tag by tag, without
// protobuf and without the generated classes, and holds the rules of the format against them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace orrery::testing {

struct PerfettoTrack {
  std::string name;  // of a process: its process name
  std::uint64_t parent = 0;
  std::int64_t pid = -1;  // -1: not a process
  std::int64_t place = 0;
  bool is_counter = false;
  std::uint64_t unit = 0;  // 3: bytes
};

struct PerfettoSlice {
  std::uint64_t track = 0;
  std::string name, category;
  std::uint64_t start = 0, end = 0;
  std::map<std::string, std::string> texts;
  std::map<std::string, std::int64_t> integers;
  std::map<std::string, double> reals;
  std::vector<std::uint64_t> flows, flow_ends;
};

struct PerfettoSample {
  std::uint64_t time = 0;
  bool is_real = false;
  double real = 0;
  std::int64_t integer = 0;
};

struct PerfettoFile {
  std::map<std::uint64_t, PerfettoTrack> tracks;
  std::vector<PerfettoSlice> slices, instants;                   // in the order of the file
  std::map<std::uint64_t, std::vector<PerfettoSample>> samples;  // of a counter
  std::uint64_t packets = 0;

  const PerfettoTrack& track_of(const PerfettoSlice& slice) const { return tracks.at(slice.track); }
  // The rank of a track: pid - 1 of the process above it; -1 for tracks of the run.
  std::int64_t rank_of(std::uint64_t track) const;
  // The one counter of this name; fails the test where there is another number of them.
  std::vector<PerfettoSample> counter(std::int64_t rank, const std::string& name) const;
};

// Fails the test where the file breaks a rule: one sequence, whose state is cleared by its first
// packet alone; ids defined before their use and once; tracks described before their use; slices of
// a track in the order of time, without overlap, each ended; text in UTF-8.
PerfettoFile parse_perfetto(const std::string& bytes);

}  // namespace orrery::testing
