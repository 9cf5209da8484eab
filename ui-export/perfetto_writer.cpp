// See perfetto_writer.h. A file of the format is one message of repeated packets, so a packet at a
// time is serialised behind the tag and length of its field.
#include "ui-export/perfetto_writer.h"

#include <google/protobuf/io/coded_stream.h>

#include <array>
#include <map>

#include "ui-export/output_file.h"
#include "ui-export/perfetto.pb.h"

namespace orrery {
namespace {

using perfetto::DebugAnnotation;
using perfetto::TracePacket;
using perfetto::TrackDescriptor;
using perfetto::TrackEvent;

// Readers drop the packets of sequence 0.
constexpr std::uint32_t kSequence = 1;

// Bytes of the UTF-8 character that `text` begins with; 0 where it begins with none. RFC 3629: no
// overlong forms, no surrogates, nothing beyond U+10FFFF.
std::size_t character(std::string_view text) {
  const auto byte = [&](std::size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
  };
  const auto tail = [&](std::size_t from, std::size_t to) {
    for (std::size_t i = from; i < to; ++i) {
      if ((byte(i) & 0xC0U) != 0x80U) return false;
    }
    return true;
  };
  const unsigned first = byte(0), second = byte(1);
  if (first < 0x80) return 1;
  if (first < 0xC2 || first > 0xF4) return 0;
  if (first < 0xE0) return tail(1, 2) ? 2 : 0;
  if (first == 0xE0 && second < 0xA0) return 0;
  if (first == 0xED && second > 0x9F) return 0;
  if (first < 0xF0) return tail(1, 3) ? 3 : 0;
  if (first == 0xF0 && second < 0x90) return 0;
  if (first == 0xF4 && second > 0x8F) return 0;
  return tail(1, 4) ? 4 : 0;
}

// A field `string` must be UTF-8, and a trace may hold any bytes: others become U+FFFD.
std::string utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const std::size_t size = character(text);
    if (size == 0) out += "\xEF\xBF\xBD";
    const std::size_t taken = size == 0 ? 1 : size;
    if (size > 0) out += text.substr(0, taken);
    text.remove_prefix(taken);
  }
  return out;
}

}  // namespace

struct PerfettoWriter::Impl {
  using Iids = std::map<std::string, std::uint64_t, std::less<>>;

  explicit Impl(const std::string& path) : file(path) {}

  OutputFile file;
  Track last_track = 0;
  Iids categories, names, argument_names, texts;
  TracePacket packet;  // used again and again: no allocation a packet
  std::string bytes;

  // The packet to fill, of the one sequence.
  TracePacket& begin() {
    packet.Clear();
    packet.set_trusted_packet_sequence_id(kSequence);
    return packet;
  }
  TrackEvent& begin_event(TrackEvent::Type type, Track track, std::uint64_t time_ns) {
    begin().set_timestamp(time_ns);
    TrackEvent& event = *packet.mutable_track_event();
    event.set_type(type);
    event.set_track_uuid(track);
    return event;
  }

  // The id of a string of one kind; `add` makes its entry in the packet that first uses it.
  template <class Add>
  std::uint64_t iid(Iids& iids, std::string_view text, const Add& add) {
    packet.set_sequence_flags(TracePacket::SEQ_NEEDS_INCREMENTAL_STATE);
    if (const auto found = iids.find(text); found != iids.end()) return found->second;
    const std::uint64_t next = iids.size() + 1;
    iids.emplace(text, next);
    auto* entry = add(*packet.mutable_interned_data());
    entry->set_iid(next);
    if constexpr (requires { entry->set_name(""); }) {
      entry->set_name(utf8(text));
    } else {
      entry->set_str(utf8(text));
    }
    return next;
  }

  void describe(TrackEvent& out, const Event& event);
  void describe(DebugAnnotation& out, const Argument& argument);
  TrackDescriptor& begin_track(Track parent, std::int32_t place);
  void write();
};

void PerfettoWriter::Impl::describe(DebugAnnotation& out, const Argument& argument) {
  out.set_name_iid(iid(argument_names, argument.name,
                       [](auto& data) { return data.add_debug_annotation_names(); }));
  if (const auto* integer = std::get_if<std::int64_t>(&argument.value)) {
    out.set_int_value(*integer);
  } else if (const auto* real = std::get_if<double>(&argument.value)) {
    out.set_double_value(*real);
  } else if (const auto* once = std::get_if<Once>(&argument.value)) {
    out.set_string_value(utf8(once->text));
  } else {
    out.set_string_value_iid(iid(texts, std::get<std::string_view>(argument.value), [](auto& data) {
      return data.add_debug_annotation_string_values();
    }));
  }
}

void PerfettoWriter::Impl::describe(TrackEvent& out, const Event& event) {
  if (const auto* once = std::get_if<Once>(&event.name)) {
    out.set_name(utf8(once->text));
  } else {
    out.set_name_iid(iid(names, std::get<std::string_view>(event.name),
                         [](auto& data) { return data.add_event_names(); }));
  }
  if (!event.category.empty()) {
    out.add_category_iids(
        iid(categories, event.category, [](auto& data) { return data.add_event_categories(); }));
  }
  for (const Argument& argument : event.arguments) {
    describe(*out.add_debug_annotations(), argument);
  }
  for (const std::uint64_t flow : event.flows) out.add_flow_ids(flow);
  for (const std::uint64_t flow : event.flow_ends) out.add_terminating_flow_ids(flow);
}

TrackDescriptor& PerfettoWriter::Impl::begin_track(Track parent, std::int32_t place) {
  TrackDescriptor& track = *begin().mutable_track_descriptor();
  track.set_uuid(++last_track);
  if (parent != kRoot) track.set_parent_uuid(parent);
  track.set_sibling_order_rank(place);
  track.set_child_ordering(TrackDescriptor::EXPLICIT);
  return track;
}

void PerfettoWriter::Impl::write() {
  namespace io = google::protobuf::io;
  packet.SerializeToString(&bytes);
  const std::uint32_t tag = (perfetto::Trace::kPacketFieldNumber << 3U) | 2U;  // length-delimited
  std::array<std::uint8_t, 16> head{};
  std::uint8_t* end = io::CodedOutputStream::WriteTagToArray(tag, head.data());
  end = io::CodedOutputStream::WriteVarint32ToArray(static_cast<std::uint32_t>(bytes.size()), end);
  file.write(
      {reinterpret_cast<const char*>(head.data()), static_cast<std::size_t>(end - head.data())});
  file.write(bytes);
}

PerfettoWriter::PerfettoWriter(const std::string& path) : impl_(std::make_unique<Impl>(path)) {
  TracePacket& packet = impl_->begin();
  packet.set_sequence_flags(TracePacket::SEQ_INCREMENTAL_STATE_CLEARED);
  packet.set_first_packet_on_sequence(true);
  impl_->write();
}

PerfettoWriter::~PerfettoWriter() = default;

PerfettoWriter::Track PerfettoWriter::process(std::int32_t pid, std::string_view name) {
  TrackDescriptor& track = impl_->begin_track(kRoot, pid);
  track.mutable_process()->set_pid(pid);
  track.mutable_process()->set_process_name(utf8(name));
  track.mutable_process()->set_legacy_sort_index(pid);
  impl_->write();
  return impl_->last_track;
}

PerfettoWriter::Track PerfettoWriter::track(Track parent, std::string_view name,
                                            std::int32_t place) {
  impl_->begin_track(parent, place).set_name(utf8(name));
  impl_->write();
  return impl_->last_track;
}

PerfettoWriter::Track PerfettoWriter::counter(Track parent, std::string_view name,
                                              std::int32_t place, Unit unit) {
  TrackDescriptor& track = impl_->begin_track(parent, place);
  track.set_name(utf8(name));
  auto& counter = *track.mutable_counter();
  if (unit == Unit::kBytes) counter.set_unit(perfetto::CounterDescriptor::UNIT_SIZE_BYTES);
  impl_->write();
  return impl_->last_track;
}

void PerfettoWriter::slice(Track track, std::uint64_t start_ns, std::uint64_t end_ns,
                           const Event& event) {
  impl_->describe(impl_->begin_event(TrackEvent::TYPE_SLICE_BEGIN, track, start_ns), event);
  impl_->write();
  impl_->begin_event(TrackEvent::TYPE_SLICE_END, track, end_ns);
  impl_->write();
}

void PerfettoWriter::instant(Track track, std::uint64_t time_ns, const Event& event) {
  impl_->describe(impl_->begin_event(TrackEvent::TYPE_INSTANT, track, time_ns), event);
  impl_->write();
}

void PerfettoWriter::value(Track track, std::uint64_t time_ns, std::int64_t value) {
  impl_->begin_event(TrackEvent::TYPE_COUNTER, track, time_ns).set_counter_value(value);
  impl_->write();
}

void PerfettoWriter::value(Track track, std::uint64_t time_ns, double value) {
  impl_->begin_event(TrackEvent::TYPE_COUNTER, track, time_ns).set_double_counter_value(value);
  impl_->write();
}

Status PerfettoWriter::status() const {
  return impl_->file.status();
}

Status PerfettoWriter::finish() {
  return impl_->file.publish();
}

}  // namespace orrery
