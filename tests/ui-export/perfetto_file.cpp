// See perfetto_file.h. Field numbers: protos/perfetto/trace/ in github.com/google/perfetto.
#include "tests/ui-export/perfetto_file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string_view>

#include "core/json.h"

namespace orrery::testing {
namespace {

// One field of a message as the wire has it.
struct Field {
  std::uint64_t number = 0, type = 0;
  std::uint64_t value = 0;  // of a varint or eight bytes
  std::string_view bytes;   // of a length-delimited field
};

std::uint64_t take_varint(std::string_view& from) {
  std::uint64_t value = 0;
  for (unsigned shift = 0; shift < 64 && !from.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(from.front());
    from.remove_prefix(1);
    value |= static_cast<std::uint64_t>(byte & 0x7FU) << shift;
    if (byte < 0x80) return value;
  }
  ADD_FAILURE() << "a varint without an end";
  return value;
}

std::vector<Field> fields_of(std::string_view message) {
  std::vector<Field> fields;
  while (!message.empty()) {
    Field field;
    const std::uint64_t tag = take_varint(message);
    field.number = tag >> 3U;
    field.type = tag & 7U;
    if (field.type == 0) {
      field.value = take_varint(message);
    } else if (field.type == 1 && message.size() >= 8) {
      std::memcpy(&field.value, message.data(), 8);
      message.remove_prefix(8);
    } else if (field.type == 2) {
      const std::uint64_t size = take_varint(message);
      if (size > message.size()) {
        ADD_FAILURE() << "field " << field.number << " is longer than its message";
        return fields;
      }
      field.bytes = message.substr(0, size);
      message.remove_prefix(size);
    } else {
      ADD_FAILURE() << "field " << field.number << " of wire type " << field.type;
      return fields;
    }
    fields.push_back(field);
  }
  return fields;
}

double real_of(std::uint64_t bits) {
  double value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Core's JSON reader refuses what is not UTF-8; of JSON's own syntax only letters are left.
std::string checked_text(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    quoted += byte < 0x20 || c == '"' || c == '\\' ? '_' : c;
  }
  EXPECT_TRUE(Json::parse(quoted + "\"", "text").ok()) << "not UTF-8: " << text;
  return std::string(text);
}

class Parser {
 public:
  PerfettoFile parse(std::string_view bytes) {
    for (const Field& field : fields_of(bytes)) {
      EXPECT_EQ(field.number, 1u);
      EXPECT_EQ(field.type, 2u);
      packet(field.bytes);
      ++file_.packets;
    }
    for (const auto& [track, open] : open_) EXPECT_TRUE(open.empty()) << "a slice without an end";
    return std::move(file_);
  }

 private:
  using Strings = std::map<std::uint64_t, std::string>;

  void packet(std::string_view bytes) {
    std::uint64_t sequence = 0, flags = 0, time = 0;
    bool timed = false;
    std::string_view track, event;
    uses_ids_ = false;
    for (const Field& f : fields_of(bytes)) {
      if (f.number == 8) time = f.value, timed = true;
      if (f.number == 10) sequence = f.value;
      if (f.number == 12) intern(f.bytes);
      if (f.number == 13) flags = f.value;
    }
    for (const Field& f : fields_of(bytes)) {
      if (f.number == 11) read_event(f.bytes, time);
      EXPECT_TRUE(timed || f.number != 11) << "an event without a time";
      if (f.number == 60) read_track(f.bytes);
    }
    EXPECT_EQ(sequence, 1u);
    if (file_.packets == 0) {
      EXPECT_EQ(flags, 1u) << "the first packet clears the state of the sequence";
    } else {
      EXPECT_EQ(flags, uses_ids_ ? 2u : 0u) << "of packet " << file_.packets;
    }
    EXPECT_LT(time, std::uint64_t{1} << 63U) << "readers take times as signed";
  }

  void intern(std::string_view bytes) {
    for (const Field& f : fields_of(bytes)) {
      std::uint64_t id = 0;
      std::string text;
      for (const Field& part : fields_of(f.bytes)) {
        if (part.number == 1) id = part.value;
        if (part.number == 2) text = checked_text(part.bytes);
      }
      EXPECT_NE(id, 0u);
      EXPECT_TRUE(strings_[f.number].emplace(id, text).second) << "defined twice: " << text;
    }
  }

  std::string interned(std::uint64_t kind, std::uint64_t id) {
    uses_ids_ = true;
    const auto found = strings_[kind].find(id);
    EXPECT_NE(found, strings_[kind].end()) << "kind " << kind << " has no id " << id;
    return found == strings_[kind].end() ? "" : found->second;
  }

  void read_track(std::string_view bytes) {
    std::uint64_t uuid = 0;
    PerfettoTrack track;
    for (const Field& f : fields_of(bytes)) {
      if (f.number == 1) uuid = f.value;
      if (f.number == 2) track.name = checked_text(f.bytes);
      if (f.number == 5) track.parent = f.value;
      if (f.number == 12) track.place = static_cast<std::int64_t>(f.value);
      if (f.number == 8) track.is_counter = true;
      for (const Field& part : f.number == 3 ? fields_of(f.bytes) : std::vector<Field>()) {
        if (part.number == 1) track.pid = static_cast<std::int64_t>(part.value);
        if (part.number == 6) track.name = checked_text(part.bytes);
      }
      for (const Field& part : f.number == 8 ? fields_of(f.bytes) : std::vector<Field>()) {
        if (part.number == 3) track.unit = part.value;
      }
    }
    EXPECT_NE(uuid, 0u);
    EXPECT_TRUE(track.parent == 0 || file_.tracks.count(track.parent) == 1);
    EXPECT_TRUE(file_.tracks.emplace(uuid, track).second) << "described twice: " << track.name;
  }

  void read_argument(std::string_view bytes, PerfettoSlice& slice) {
    std::string name;
    for (const Field& f : fields_of(bytes)) {
      if (f.number == 1) name = interned(3, f.value);
      EXPECT_FALSE(name.empty());
      if (f.number == 4) slice.integers[name] = static_cast<std::int64_t>(f.value);
      if (f.number == 5) slice.reals[name] = real_of(f.value);
      if (f.number == 6) slice.texts[name] = checked_text(f.bytes);
      if (f.number == 17) slice.texts[name] = interned(29, f.value);
    }
  }

  void read_event(std::string_view bytes, std::uint64_t time) {
    std::uint64_t type = 0;
    PerfettoSlice slice;
    PerfettoSample sample{time, false, 0, 0};
    slice.start = slice.end = time;
    for (const Field& f : fields_of(bytes)) {
      if (f.number == 3) slice.category = interned(1, f.value);
      if (f.number == 4) read_argument(f.bytes, slice);
      if (f.number == 9) type = f.value;
      if (f.number == 10) slice.name = interned(2, f.value);
      if (f.number == 11) slice.track = f.value;
      if (f.number == 23) slice.name = checked_text(f.bytes);
      if (f.number == 30) sample.integer = static_cast<std::int64_t>(f.value);
      if (f.number == 44) sample.real = real_of(f.value), sample.is_real = true;
      if (f.number == 47) slice.flows.push_back(f.value);
      if (f.number == 48) slice.flow_ends.push_back(f.value);
      EXPECT_TRUE(f.type == 1 || (f.number != 47 && f.number != 48)) << "flow ids are fixed64";
    }
    const auto track = file_.tracks.find(slice.track);
    ASSERT_NE(track, file_.tracks.end()) << "an event on a track that is not described";
    EXPECT_EQ(track->second.is_counter, type == 4);
    if (type == 4) file_.samples[slice.track].push_back(sample);
    if (type == 3) file_.instants.push_back(slice);
    if (type == 1) begin(slice);
    if (type == 2) end(slice.track, time);
    EXPECT_TRUE(type >= 1 && type <= 4);
  }

  void begin(const PerfettoSlice& slice) {
    EXPECT_TRUE(open_[slice.track].empty()) << "two slices at once on one track: " << slice.name;
    EXPECT_GE(slice.start, ended_[slice.track]) << "slices overlap: " << slice.name;
    open_[slice.track].push_back(slice);
  }

  void end(std::uint64_t track, std::uint64_t time) {
    ASSERT_FALSE(open_[track].empty()) << "an end without its begin";
    PerfettoSlice slice = open_[track].back();
    open_[track].pop_back();
    EXPECT_GE(time, slice.start);
    slice.end = ended_[track] = time;
    file_.slices.push_back(slice);
  }

  PerfettoFile file_;
  std::map<std::uint64_t, Strings> strings_;  // by the field of InternedData
  std::map<std::uint64_t, std::vector<PerfettoSlice>> open_;
  std::map<std::uint64_t, std::uint64_t> ended_;
  bool uses_ids_ = false;  // the packet that is read
};

}  // namespace

std::int64_t PerfettoFile::rank_of(std::uint64_t track) const {
  for (std::uint64_t at = track; at != 0; at = tracks.at(at).parent) {
    if (tracks.at(at).pid >= 0) return tracks.at(at).pid - 1;
  }
  return -1;
}

std::vector<PerfettoSample> PerfettoFile::counter(std::int64_t rank,
                                                  const std::string& name) const {
  std::vector<PerfettoSample> found;
  int counters = 0;
  for (const auto& [uuid, track] : tracks) {
    if (!track.is_counter || track.name != name || rank_of(uuid) != rank) continue;
    ++counters;
    found = samples.at(uuid);
  }
  EXPECT_EQ(counters, 1) << "counters '" << name << "' of rank " << rank;
  return found;
}

PerfettoFile parse_perfetto(const std::string& bytes) {
  return Parser().parse(bytes);
}

}  // namespace orrery::testing
