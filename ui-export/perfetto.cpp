// See perfetto.h. Rows come from SQLite one at a time and sorted (it sorts beyond memory in files
// of its own), and leave as packets; the viewer sorts the packets by time.
#include "ui-export/perfetto.h"

#include <algorithm>
#include <limits>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "core/trace_events.h"
#include "ui-export/perfetto_writer.h"

namespace orrery {
namespace {

using Track = PerfettoWriter::Track;
using Event = PerfettoWriter::Event;
using Once = PerfettoWriter::Once;
using Unit = PerfettoWriter::Unit;
using Cells = std::vector<Cell>;

std::int64_t integer(const Cell& cell) {
  const auto* value = std::get_if<std::int64_t>(&cell);
  return value ? *value : 0;
}
std::int32_t integer32(const Cell& cell) {
  return static_cast<std::int32_t>(integer(cell));
}
std::string text(const Cell& cell) {
  const auto* value = std::get_if<std::string>(&cell);
  return value ? *value : "";
}
bool is_null(const Cell& cell) {
  return std::holds_alternative<std::monostate>(cell);
}

// Wraps rather than overflows: the numbers may come from a damaged file.
std::int64_t sum(std::int64_t a, std::int64_t b) {
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(a) + static_cast<std::uint64_t>(b));
}

std::int64_t difference(std::int64_t a, std::int64_t b) {
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(a) - static_cast<std::uint64_t>(b));
}

// The id of an arrow: FNV-1a over what names it, so that both ends find it without a table of all.
class FlowId {
 public:
  explicit FlowId(std::string_view kind) { add(kind); }
  FlowId& add(std::string_view text) {
    for (const char c : text) byte(static_cast<unsigned char>(c));
    byte(0);
    return *this;
  }
  FlowId& add(std::int64_t number) {
    for (unsigned shift = 0; shift < 64; shift += 8) {
      byte((static_cast<std::uint64_t>(number) >> shift) & 0xFFU);
    }
    return *this;
  }
  std::uint64_t value() const { return hash_ == 0 ? 1 : hash_; }

 private:
  void byte(std::uint64_t value) { hash_ = (hash_ ^ value) * 0x100000001B3ULL; }
  std::uint64_t hash_ = 0xCBF29CE484222325ULL;
};

struct StaticOp {
  OpRow row;
  std::int64_t static_bytes = -1;                 // -1: they depend on data
  std::vector<std::int32_t> waits_for, waits_in;  // ops of other lanes: before it, after it
};

// Tracks of one lane: the last is only used where spans overlap.
struct LaneTracks {
  std::int32_t place = 0;
  std::vector<std::pair<Track, std::uint64_t>> tracks;  // and the end of the last slice there
};

struct RankTracks {
  std::int32_t role = 0;
  Track process = PerfettoWriter::kRoot;
  LaneTracks steps;
  std::map<std::string, LaneTracks> lanes;
};

constexpr std::int32_t kCounterPlace = 100;  // below the lanes

class Exporter {
 public:
  Exporter(TraceReader& trace, PerfettoWriter& out) : trace_(trace), out_(out) {}

  Status run() {
    TRY_OK(read_static());
    TRY_OK(read_origin());
    TRY_OK(read_flows());
    TRY_OK(write_tracks());
    TRY_OK(write_steps());
    TRY_OK(write_spans());
    TRY_OK(write_memory());
    TRY_OK(write_metrics());
    TRY_OK(write_counters());
    return write_notes();
  }

 private:
  // Each row of a SELECT, until the file cannot be written.
  template <class Row>
  Status each(const std::string& sql, const Row& row) {
    return trace_.each_row(sql, [&](const Cells& cells) -> Status {
      row(cells);
      return out_.status();
    });
  }
  // The times of a damaged file may lie further apart than 2^63; readers take them as signed.
  std::uint64_t since_origin(std::int64_t ns) const {
    if (ns < origin_ns_) return 0;
    constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    return std::min(most, static_cast<std::uint64_t>(ns) - static_cast<std::uint64_t>(origin_ns_));
  }

  Status read_static();
  Status read_origin();
  Status read_flows();
  Status write_tracks();
  Status write_steps();
  Status write_spans();
  void write_span(const Cells& cells);
  void add_collective(const Cells& cells, std::int32_t rank, const StaticOp& op, Event& event);
  void add_flows(std::int32_t rank, std::int32_t step, const StaticOp& op, Event& event);
  Status write_memory();
  std::string memory_name(std::int32_t cls) const;
  Status write_metrics();
  Status write_counters();
  Status write_notes();

  void slice(Track parent, const std::string& name, LaneTracks& lane, std::int64_t start_ns,
             std::int64_t end_ns, const Event& event);

  TraceReader& trace_;
  PerfettoWriter& out_;
  std::int64_t origin_ns_ = 0;
  std::map<std::pair<std::int32_t, std::int32_t>, StaticOp> ops_;  // role, op
  std::map<std::int32_t, Group> groups_;
  std::map<std::int32_t, std::string> classes_;
  std::map<std::int32_t, RankTracks> ranks_;
  // Rows of table `flow`, by each end: rank, step, op.
  using Moment = std::tuple<std::int32_t, std::int32_t, std::int32_t>;
  std::multimap<Moment, std::uint64_t> flows_from_, flows_to_;
  Track run_ = PerfettoWriter::kRoot;
};

Status Exporter::read_static() {
  TRY(auto rows, trace_.ops());
  for (OpRow& row : rows) {
    const std::pair key(row.role, row.op);
    ops_[key].row = std::move(row);
  }
  TRY_OK(each("SELECT role, op, static_bytes FROM op WHERE static_bytes IS NOT NULL",
              [&](const Cells& c) {
                ops_.at({integer32(c[0]), integer32(c[1])}).static_bytes = integer(c[2]);
              }));
  TRY_OK(
      each("SELECT d.role, d.op, d.on_op FROM dep d JOIN op a ON a.role = d.role AND a.op = d.op "
           "JOIN op b ON b.role = d.role AND b.op = d.on_op WHERE a.lane <> b.lane "
           "ORDER BY d.role, d.op, d.on_op",
           [&](const Cells& c) {
             const std::int32_t role = integer32(c[0]), after = integer32(c[1]);
             const std::int32_t before = integer32(c[2]);
             ops_.at({role, after}).waits_for.push_back(before);
             ops_.at({role, before}).waits_in.push_back(after);
           }));
  TRY_OK(each("SELECT class, name FROM buffer_class",
              [&](const Cells& c) { classes_[integer32(c[0])] = text(c[1]); }));
  return each("SELECT group_id, name, size, stride FROM comm_group", [&](const Cells& c) {
    groups_[integer32(c[0])] = {text(c[1]), std::max(integer32(c[2]), 1),
                                std::max(integer32(c[3]), 1)};
  });
}

Status Exporter::read_origin() {
  return each(
      "SELECT min(at) FROM (SELECT min(start_ns) AS at FROM span UNION ALL "
      "SELECT min(start_ns) FROM step UNION ALL SELECT min(time_ns) FROM alloc UNION ALL "
      "SELECT min(time_ns) FROM counter UNION ALL SELECT min(time_ns) FROM event)",
      [&](const Cells& c) { origin_ns_ = integer(c[0]); });
}

Status Exporter::read_flows() {
  TRY(const auto flows, trace_.flows());
  for (const FlowEvent& flow : flows) {
    const std::uint64_t id = FlowId("flow")
                                 .add(flow.step)
                                 .add(flow.from_rank)
                                 .add(flow.from_op)
                                 .add(flow.to_rank)
                                 .add(flow.to_op)
                                 .value();
    flows_from_.emplace(Moment(flow.from_rank, flow.step, flow.from_op), id);
    flows_to_.emplace(Moment(flow.to_rank, flow.step, flow.to_op), id);
  }
  return Ok{};
}

// A process a rank, and below it the steps, the lanes of its role (compute first) and the counters.
Status Exporter::write_tracks() {
  const RunInfo& run = trace_.run();
  run_ = out_.track(PerfettoWriter::kRoot, "run", 0);
  Event about{"run", "run", {}, {}, {}};
  about.arguments = {{"kind", name_of(run.kind)}, {"status", name_of(run.status)}};
  if (!run.reason.empty()) about.arguments.push_back({"reason", Once{run.reason}});
  if (!run.stack.empty()) about.arguments.push_back({"stack", Once{run.stack}});
  if (!run.created.empty()) about.arguments.push_back({"created", Once{run.created}});
  about.arguments.push_back({"origin_ns", origin_ns_});
  out_.instant(run_, 0, about);

  TRY(const auto ranks, trace_.ranks());
  for (const RankInfo& rank : ranks) {
    std::string name = "rank " + std::to_string(rank.rank);
    if (!rank.node.empty()) name += " @ " + rank.node;
    if (!rank.device.empty()) name += " " + rank.device;
    RankTracks& tracks = ranks_[rank.rank];
    tracks.role = rank.role;
    // Viewers take process 0 for the idle one.
    tracks.process = out_.process(static_cast<std::int32_t>(sum(rank.rank, 1)), name);
    tracks.steps.tracks.emplace_back(out_.track(tracks.process, "steps", 0), 0);
    std::vector<std::string> lanes;
    for (auto op = ops_.lower_bound({rank.role, 0});
         op != ops_.end() && op->first.first == rank.role; ++op) {
      const std::string& lane = op->second.row.lane;
      if (std::find(lanes.begin(), lanes.end(), lane) == lanes.end()) lanes.push_back(lane);
    }
    std::stable_partition(lanes.begin(), lanes.end(),
                          [](const std::string& lane) { return lane == "compute"; });
    for (const std::string& lane : lanes) {
      LaneTracks& of_lane = tracks.lanes[lane];
      of_lane.place = static_cast<std::int32_t>(tracks.lanes.size());
      of_lane.tracks.emplace_back(out_.track(tracks.process, lane, of_lane.place), 0);
    }
  }
  return out_.status();
}

// On the first track of the lane that is free by then. A further one has the lane's name too:
// viewers show such siblings as one track of several rows.
void Exporter::slice(Track parent, const std::string& name, LaneTracks& lane, std::int64_t start_ns,
                     std::int64_t end_ns, const Event& event) {
  const std::uint64_t start = since_origin(start_ns);
  const std::uint64_t end = std::max(start, since_origin(end_ns));
  auto free = std::find_if(lane.tracks.begin(), lane.tracks.end(),
                           [&](const auto& track) { return track.second <= start; });
  if (free == lane.tracks.end()) {
    free = lane.tracks.insert(free, {out_.track(parent, name, lane.place), 0});
  }
  free->second = end;
  out_.slice(free->first, start, end, event);
}

Status Exporter::write_steps() {
  static const char* const kMetrics[] = {"loss", "balance_loss", "z_loss", "grad_norm", "lr"};
  return each(
      "SELECT s.rank, s.step, s.start_ns, s.end_ns, s.tokens, p.bytes, s.loss, s.balance_loss, "
      "s.z_loss, s.grad_norm, s.lr FROM step s LEFT JOIN "
      "(SELECT rank, step, max(peak_bytes) AS bytes FROM peak WHERE class = -1 "
      "GROUP BY rank, step) p ON p.rank = s.rank AND p.step = s.step "
      "ORDER BY s.rank, s.start_ns, s.end_ns, s.step",
      [&](const Cells& c) {
        const auto rank = ranks_.find(integer32(c[0]));
        if (rank == ranks_.end()) return;
        const std::string name = "step " + std::to_string(integer(c[1]));
        Event event{Once{name}, "step", {}, {}, {}};
        event.arguments = {{"step", integer(c[1])}, {"tokens", integer(c[4])}};
        if (!is_null(c[5])) event.arguments.push_back({"peak_bytes", integer(c[5])});
        for (std::size_t i = 0; i < std::size(kMetrics); ++i) {
          if (const auto* value = std::get_if<double>(&c[6 + i])) {
            event.arguments.push_back({kMetrics[i], *value});
          }
        }
        RankTracks& tracks = rank->second;
        slice(tracks.process, "steps", tracks.steps, integer(c[2]), integer(c[3]), event);
      });
}

Status Exporter::write_spans() {
  // A span with two collectives (a damaged trace) is still one slice.
  std::int64_t last = -1;
  return each(
      "SELECT s.rank, s.step, s.op, s.start_ns, s.end_ns, s.exposed_ns, c.sequence, c.group_id, "
      "c.posted_ns, c.ready_ns, c.sent_bytes, c.received_bytes, s.rowid "
      "FROM span s LEFT JOIN collective c ON c.rank = s.rank AND c.step = s.step AND c.op = s.op "
      "ORDER BY s.rank, s.start_ns, s.end_ns, s.op, s.rowid, c.rowid",
      [&](const Cells& c) {
        if (integer(c[12]) != last) write_span(c);
        last = integer(c[12]);
      });
}

void Exporter::write_span(const Cells& cells) {
  const std::int32_t rank = integer32(cells[0]), step = integer32(cells[1]);
  const auto tracks = ranks_.find(rank);
  if (tracks == ranks_.end()) return;
  const auto found = ops_.find({tracks->second.role, integer32(cells[2])});
  if (found == ops_.end()) return;
  const StaticOp& op = found->second;
  Event event{std::string_view(op.row.path),
              op.row.communication ? "communication" : "compute",
              {},
              {},
              {}};
  event.arguments = {{"kind", op.row.kind},
                     {"phase", op.row.phase},
                     {"step", std::int64_t{step}},
                     {"micro_batch", std::int64_t{op.row.micro_batch}},
                     {"chunk", std::int64_t{op.row.chunk}},
                     {"op", std::int64_t{op.row.op}}};
  if (!op.row.unit.empty()) event.arguments.push_back({"unit", op.row.unit});
  if (!op.row.group.empty()) event.arguments.push_back({"group", op.row.group});
  if (op.static_bytes >= 0) event.arguments.push_back({"bytes_written", op.static_bytes});
  if (!is_null(cells[5])) event.arguments.push_back({"exposed_ns", integer(cells[5])});
  if (!is_null(cells[6])) add_collective(cells, rank, op, event);
  add_flows(rank, step, op, event);
  slice(tracks->second.process, op.row.lane, tracks->second.lanes.at(op.row.lane),
        integer(cells[3]), integer(cells[4]), event);
}

// The same collective on every rank of the group: one flow through all its slices.
void Exporter::add_collective(const Cells& cells, std::int32_t rank, const StaticOp& op,
                              Event& event) {
  const std::int64_t posted = integer(cells[8]), ready = integer(cells[9]);
  event.arguments.insert(event.arguments.end(), {{"sequence", integer(cells[6])},
                                                 {"bytes_sent", integer(cells[10])},
                                                 {"bytes_received", integer(cells[11])},
                                                 {"wait_ns", difference(ready, posted)}});
  const auto group = groups_.find(integer32(cells[7]));
  if (group == groups_.end() || group->second.size < 2) return;
  event.flows.push_back(FlowId("collective")
                            .add(group->second.name)
                            .add(group->second.first_of(rank))
                            .add(op.row.lane)
                            .add(integer(cells[1]))
                            .add(integer(cells[6]))
                            .value());
}

// What waits for what on another lane, and the arrows that the trace itself names.
void Exporter::add_flows(std::int32_t rank, std::int32_t step, const StaticOp& op, Event& event) {
  const auto id = [&](std::int32_t before, std::int32_t after) {
    return FlowId("dependency").add(rank).add(step).add(before).add(after).value();
  };
  for (const std::int32_t after : op.waits_in) event.flows.push_back(id(op.row.op, after));
  for (const std::int32_t before : op.waits_for) event.flow_ends.push_back(id(before, op.row.op));
  const Moment here(rank, step, op.row.op);
  const auto from = flows_from_.equal_range(here), to = flows_to_.equal_range(here);
  for (auto flow = from.first; flow != from.second; ++flow) event.flows.push_back(flow->second);
  for (auto flow = to.first; flow != to.second; ++flow) event.flow_ends.push_back(flow->second);
}

// The loss and its companions are of the world: told once, from the lowest rank that has the step.
Status Exporter::write_metrics() {
  static const char* const kMetrics[] = {"loss", "balance_loss", "z_loss", "grad_norm", "lr"};
  std::map<std::string, Track> tracks;
  return each(
      "SELECT end_ns, loss, balance_loss, z_loss, grad_norm, lr, min(rank) FROM step "
      "GROUP BY step ORDER BY end_ns, step",
      [&](const Cells& c) {
        for (std::size_t i = 0; i < std::size(kMetrics); ++i) {
          const auto* value = std::get_if<double>(&c[i + 1]);
          if (!value) continue;
          Track& track = tracks[kMetrics[i]];
          if (track == PerfettoWriter::kRoot) {
            track = out_.counter(run_, kMetrics[i], static_cast<std::int32_t>(i), Unit::kNone);
          }
          out_.value(track, since_origin(integer(c[0])), *value);
        }
      });
}

Status Exporter::write_counters() {
  std::map<std::pair<std::int64_t, std::string>, Track> tracks;
  return each(
      "SELECT rank, time_ns, name, value FROM counter WHERE value IS NOT NULL "
      "ORDER BY rank, name, time_ns, rowid",
      [&](const Cells& c) {
        const auto rank = ranks_.find(integer32(c[0]));
        Track& track = tracks[{integer(c[0]), text(c[2])}];
        if (track == PerfettoWriter::kRoot) {
          track = out_.counter(rank == ranks_.end() ? run_ : rank->second.process, text(c[2]),
                               2 * kCounterPlace, Unit::kNone);
        }
        const auto* value = std::get_if<double>(&c[3]);
        out_.value(track, since_origin(integer(c[1])), value ? *value : 0);
      });
}

Status Exporter::write_notes() {
  return each("SELECT rank, time_ns, name, message FROM event ORDER BY rank, time_ns, name, rowid",
              [&](const Cells& c) {
                const auto rank = ranks_.find(integer32(c[0]));
                const std::string name = text(c[2]), message = text(c[3]);
                Event event{Once{name}, "note", {{"message", Once{message}}}, {}, {}};
                const Track track =
                    rank == ranks_.end() ? run_ : rank->second.steps.tracks.front().first;
                out_.instant(track, since_origin(integer(c[1])), event);
              });
}

// The live bytes of one rank, class by class, as its changes come.
class LiveMemory {
 public:
  void change(std::int32_t cls, std::int64_t delta) { live_[cls] = sum(live_[cls], delta); }
  // The classes that differ from what was last written, with the total of the device's.
  template <class Write>
  void flush(const Write& write) {
    std::int64_t total = 0;
    for (const auto& [cls, live] : live_) {
      if (cls != kHostClass) total = sum(total, live);
      put(cls, live, write);
    }
    put(-1, total, write);
  }

 private:
  template <class Write>
  void put(std::int32_t cls, std::int64_t live, const Write& write) {
    const auto [last, first] = written_.try_emplace(cls, live);
    if (!first && last->second == live) return;
    last->second = live;
    write(cls, live);
  }
  std::map<std::int32_t, std::int64_t> live_, written_;
};

// What lives before the first step is in no change of a simulated trace. It is the first step's
// peak less the highest sum of its changes, for the classes that hold something then.
constexpr const char* kBaseSql = R"sql(
WITH first AS (SELECT rank, min(step) AS step FROM peak GROUP BY rank),
live AS (
  SELECT a.rank, a.class,
         sum(a.delta_bytes) OVER (PARTITION BY a.rank, a.class ORDER BY a.time_ns, a.rowid
                                  ROWS UNBOUNDED PRECEDING) AS bytes
  FROM alloc a JOIN first f ON f.rank = a.rank AND f.step = a.step),
high AS (SELECT rank, class, max(bytes) AS bytes FROM live GROUP BY rank, class)
SELECT p.rank, p.class, p.peak_bytes - max(coalesce(h.bytes, 0), 0)
FROM first f JOIN peak p ON p.rank = f.rank AND p.step = f.step
     JOIN rank r ON r.rank = p.rank
     LEFT JOIN high h ON h.rank = p.rank AND h.class = p.class
WHERE p.class = $host OR EXISTS (SELECT 1 FROM buffer b WHERE b.role = r.role
                                 AND b.class = p.class AND b.taken_by = -1)
)sql";

std::string Exporter::memory_name(std::int32_t cls) const {
  if (cls == -1) return "memory total less workspace";  // which no change tells of
  const auto name = classes_.find(cls);
  return "memory " + (name == classes_.end() ? std::to_string(cls) : name->second);
}

Status Exporter::write_memory() {
  std::string base_sql = kBaseSql;
  base_sql.replace(base_sql.find("$host"), 5, std::to_string(kHostClass));
  std::map<std::int32_t, LiveMemory> memory;
  TRY_OK(each(base_sql, [&](const Cells& c) {
    if (integer(c[2]) > 0) memory[integer32(c[0])].change(integer32(c[1]), integer(c[2]));
  }));
  std::map<std::pair<std::int32_t, std::int32_t>, Track> tracks;  // rank, class
  std::int32_t rank = 0;
  std::int64_t time_ns = 0;
  bool any = false;
  const auto flush = [&] {
    const auto place = ranks_.find(rank);
    if (!any || place == ranks_.end()) return;
    memory[rank].flush([&](std::int32_t cls, std::int64_t live) {
      Track& track = tracks[{rank, cls}];
      if (track == PerfettoWriter::kRoot) {
        track = out_.counter(place->second.process, memory_name(cls),
                             static_cast<std::int32_t>(sum(kCounterPlace, cls)), Unit::kBytes);
      }
      out_.value(track, since_origin(time_ns), live);
    });
  };
  TRY_OK(each("SELECT rank, time_ns, class, delta_bytes FROM alloc ORDER BY rank, time_ns, rowid",
              [&](const Cells& c) {
                // Changes at one moment are one value.
                if (any && (integer32(c[0]) != rank || integer(c[1]) != time_ns)) flush();
                rank = integer32(c[0]);
                time_ns = integer(c[1]);
                any = true;
                memory[rank].change(integer32(c[2]), integer(c[3]));
              }));
  flush();
  return out_.status();
}

}  // namespace

Status export_perfetto(TraceReader& trace, const std::string& out) {
  PerfettoWriter writer(out);
  TRY_OK(writer.status());
  TRY_OK(Exporter(trace, writer).run());
  return writer.finish();
}

}  // namespace orrery
