// See chrome.h. Written event by event, so that the file may be larger than memory.
#include "ui-export/chrome.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "ui-export/output_file.h"

namespace orrery {
namespace {

// As a JSON string; bytes that are not text of a trace (controls) are escaped.
std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
      out += escape;
    } else {
      out += c;
    }
  }
  return out + '"';
}

// From one moment to another in microseconds with three digits; exact, 0 when it is before.
std::string microseconds(std::int64_t from_ns, std::int64_t to_ns) {
  if (to_ns < from_ns) return "0.000";
  // Unsigned: the times of a damaged file may lie further apart than 2^63.
  const auto ns = static_cast<unsigned long long>(to_ns) - static_cast<unsigned long long>(from_ns);
  char text[32];
  std::snprintf(text, sizeof text, "%llu.%03llu", ns / 1000, ns % 1000);
  return text;
}

// The events, with commas between them.
class Output {
 public:
  explicit Output(const std::string& path) : file_(path) {}

  Status status() const { return file_.status(); }
  void text(const std::string& text) { file_.write(text); }
  void event(const std::string& body) {
    text(first_ ? "\n" : ",\n");
    text(body);
    first_ = false;
  }
  Status publish() { return file_.publish(); }

 private:
  OutputFile file_;
  bool first_ = true;
};

struct Source {
  std::vector<RankInfo> ranks;
  std::vector<OpRow> ops;
  std::vector<SpanEvent> spans;
  std::vector<StepEvent> steps;
  std::map<std::tuple<std::int32_t, std::int32_t, std::int32_t>, CollectiveEvent> collectives;
  std::map<std::pair<std::int32_t, std::int32_t>, const OpRow*> op_of;  // role, op
  std::map<std::int32_t, std::int32_t> role_of;                         // of a rank
  std::map<std::string, int> lanes;                                     // thread of a lane
  std::int64_t origin_ns = 0;
};

// Thread 0 of a rank shows its steps, the lanes follow.
Result<Source> read_source(TraceReader& trace) {
  Source source;
  TRY(source.ranks, trace.ranks());
  TRY(source.ops, trace.ops());
  TRY(source.spans, trace.spans());
  TRY(source.steps, trace.steps());
  TRY(const auto collectives, trace.collectives());
  for (const CollectiveEvent& c : collectives) source.collectives[{c.rank, c.step, c.op}] = c;
  for (const RankInfo& rank : source.ranks) source.role_of[rank.rank] = rank.role;
  if (!source.ops.empty()) source.lanes["compute"] = 1;  // first, whatever comes first
  for (const OpRow& op : source.ops) {
    source.op_of[{op.role, op.op}] = &op;
    source.lanes.try_emplace(op.lane, static_cast<int>(source.lanes.size()) + 1);
  }
  bool any = false;
  const auto see = [&](std::int64_t ns) {
    source.origin_ns = any ? std::min(source.origin_ns, ns) : ns;
    any = true;
  };
  for (const SpanEvent& span : source.spans) see(span.start_ns);
  for (const StepEvent& step : source.steps) see(step.start_ns);
  return source;
}

std::string metadata(const char* what, std::int32_t rank, int thread, const std::string& args) {
  return std::string("{\"ph\":\"M\",\"name\":\"") + what + "\",\"pid\":" + std::to_string(rank) +
         ",\"tid\":" + std::to_string(thread) + ",\"args\":{" + args + "}}";
}

void write_metadata(const Source& source, Output& out) {
  for (const RankInfo& rank : source.ranks) {
    std::string name = "rank " + std::to_string(rank.rank);
    if (!rank.node.empty()) name += " @ " + rank.node;
    if (!rank.device.empty()) name += " " + rank.device;
    out.event(metadata("process_name", rank.rank, 0, "\"name\":" + quoted(name)));
    out.event(metadata("process_sort_index", rank.rank, 0,
                       "\"sort_index\":" + std::to_string(rank.rank)));
    out.event(metadata("thread_name", rank.rank, 0, "\"name\":\"steps\""));
    for (const auto& [lane, thread] : source.lanes) {
      out.event(metadata("thread_name", rank.rank, thread, "\"name\":" + quoted(lane)));
      out.event(metadata("thread_sort_index", rank.rank, thread,
                         "\"sort_index\":" + std::to_string(thread)));
    }
  }
}

std::string complete_event(const Source& source, const std::string& name, std::int32_t rank,
                           int thread, std::int64_t start_ns, std::int64_t end_ns,
                           const std::string& args) {
  return "{\"ph\":\"X\",\"name\":" + quoted(name) + ",\"pid\":" + std::to_string(rank) +
         ",\"tid\":" + std::to_string(thread) +
         ",\"ts\":" + microseconds(source.origin_ns, start_ns) +
         ",\"dur\":" + microseconds(start_ns, end_ns) + ",\"args\":{" + args + "}}";
}

void write_steps(const Source& source, Output& out) {
  for (const StepEvent& step : source.steps) {
    out.event(complete_event(source, "step " + std::to_string(step.step), step.rank, 0,
                             step.start_ns, step.end_ns,
                             "\"tokens\":" + std::to_string(step.tokens)));
  }
}

void write_span(const Source& source, const SpanEvent& span, Output& out) {
  const auto role = source.role_of.find(span.rank);
  if (role == source.role_of.end()) return;
  const auto found = source.op_of.find({role->second, span.op});
  if (found == source.op_of.end()) return;
  const OpRow& op = *found->second;
  std::string args = "\"kind\":" + quoted(op.kind) + ",\"phase\":" + quoted(op.phase) +
                     ",\"step\":" + std::to_string(span.step) +
                     ",\"micro_batch\":" + std::to_string(op.micro_batch) +
                     ",\"chunk\":" + std::to_string(op.chunk) + ",\"op\":" + std::to_string(op.op);
  if (!op.unit.empty()) args += ",\"unit\":" + quoted(op.unit);
  if (!op.group.empty()) args += ",\"group\":" + quoted(op.group);
  const auto c = source.collectives.find({span.rank, span.step, span.op});
  if (c != source.collectives.end()) {
    args += ",\"sequence\":" + std::to_string(c->second.sequence) +
            ",\"bytes_sent\":" + std::to_string(c->second.bytes_sent) +
            ",\"bytes_received\":" + std::to_string(c->second.bytes_received) +
            ",\"wait_us\":" + microseconds(c->second.posted_ns, c->second.ready_ns);
  }
  out.event(complete_event(source, op.path, span.rank, source.lanes.at(op.lane), span.start_ns,
                           span.end_ns, args));
}

}  // namespace

Status export_chrome(TraceReader& trace, const std::string& out) {
  TRY(const Source source, read_source(trace));
  Output file(out);
  TRY_OK(file.status());
  file.text("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[");
  write_metadata(source, file);
  write_steps(source, file);
  for (const SpanEvent& span : source.spans) write_span(source, span, file);
  file.text("\n],\"otherData\":{\"run\":" + quoted(name_of(trace.run().kind)) +
            ",\"status\":" + quoted(name_of(trace.run().status)) +
            ",\"stack\":" + quoted(trace.run().stack) + "}}\n");
  return file.publish();
}

}  // namespace orrery
