// A file in Perfetto's trace format, packet by packet: tracks, slices, instants, counters. One
// sequence of packets holds all, so that a string that comes again is written once. It knows the
// format; perfetto.cpp knows the trace.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/result.h"

namespace orrery {

class PerfettoWriter {
 public:
  using Track = std::uint64_t;  // never 0
  static constexpr Track kRoot = 0;

  // Text that seldom comes again, written where it stands. Other text is written once a file and
  // kept in memory.
  struct Once {
    std::string_view text;
  };
  struct Argument {
    std::string_view name;
    std::variant<std::int64_t, double, std::string_view, Once> value;
  };
  // What is said of a slice or an instant, beside its place and its time. Each slice that starts or
  // continues the flow of an id is connected, in time, to the one before it.
  struct Event {
    std::variant<std::string_view, Once> name;
    std::string_view category;  // may be empty
    std::vector<Argument> arguments;
    std::vector<std::uint64_t> flows;      // that it starts or continues
    std::vector<std::uint64_t> flow_ends;  // that end with it
  };
  enum class Unit { kNone, kBytes };

  explicit PerfettoWriter(const std::string& path);
  ~PerfettoWriter();
  PerfettoWriter(const PerfettoWriter&) = delete;
  PerfettoWriter& operator=(const PerfettoWriter&) = delete;

  // Siblings are shown by `place`. A process is a track whose children are the tracks of it.
  Track process(std::int32_t pid, std::string_view name);
  Track track(Track parent, std::string_view name, std::int32_t place);
  Track counter(Track parent, std::string_view name, std::int32_t place, Unit unit);

  // Times are ns from the trace's origin. The slices of a track come in the order of time and do
  // not overlap; nothing else need be in order.
  void slice(Track track, std::uint64_t start_ns, std::uint64_t end_ns, const Event& event);
  void instant(Track track, std::uint64_t time_ns, const Event& event);
  void value(Track track, std::uint64_t time_ns, std::int64_t value);
  void value(Track track, std::uint64_t time_ns, double value);

  // kIo as soon as a write failed.
  Status status() const;
  // The file appears. No call may follow.
  Status finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace orrery
