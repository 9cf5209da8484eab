// nccl-tests' tables -> samples of transfers.
//
// The size of a row is that of the whole buffer: nccl-tests, doc/PERFORMANCE.md, "S is the size in
// bytes of the total array", which for all-gather is sendcount * sizeof * n and for reduce-scatter
// recvcount * sizeof * n; of all-to-all and all-reduce it is a rank's buffer. So a rank sends
// S (n - 1) / n, and twice that in an all-reduce; these are the factors of the same page between
// algbw = S / time and busbw. Each row is held against both columns: a row whose columns disagree
// is another version's, or torn.
#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "core/cluster.h"
#include "simulator/calibration/samples.h"
#include "simulator/calibration/text_lines.h"

namespace orrery::simulator {
namespace {

struct Test {
  const char* name;
  TransferKind kind;
  std::int64_t passes;  // of the buffer over the links: an all-reduce scatters and gathers
};

constexpr std::array<Test, 4> kTests = {{{"all_gather_perf", TransferKind::kGather, 1},
                                         {"reduce_scatter_perf", TransferKind::kReduce, 1},
                                         {"all_reduce_perf", TransferKind::kReduce, 2},
                                         {"alltoall_perf", TransferKind::kExchange, 1}}};
constexpr std::array<const char*, 9> kOthers = {
    "sendrecv_perf",  "broadcast_perf", "reduce_perf",    "gather_perf",         "scatter_perf",
    "alltoallv_perf", "hypercube_perf", "bisection_perf", "all_reduce_bias_perf"};
constexpr double kMostBytes = 1e15, kMostMicroseconds = 1e9;
constexpr std::int64_t kMostRanks = 1 << 20;

// Columns of a row: leading ones, then time, algbw, busbw, #wrong out of place and in place.
struct Columns {
  std::size_t first = 5, second = 9, total = 13;
};

struct Half {
  double us = 0, algbw = 0, busbw = 0;
  std::optional<double> wrong;  // empty: not checked
};

struct Row {
  std::size_t line = 0;
  double bytes = 0;
  std::int64_t elements = 0;
  std::string dtype;
  std::array<Half, 2> halves;
};

// One table with its header.
struct Table {
  std::string test;                           // by its name where the text has it
  std::map<std::int64_t, std::string> hosts;  // rank -> host
  std::set<std::int64_t> twice;               // ranks that stand on several hosts
  std::string device;
  Columns columns;
  std::vector<Row> rows;
  std::size_t torn = 0, torn_line = 0;
  bool ended = false;             // "# Avg bus bandwidth"
  std::optional<double> average;  // GB/s
  bool failed = false;            // "# Out of bounds values : N FAILED"
  std::size_t line = 0;
};

std::string dtype_of(const std::string& word) {
  if (word == "float") return "fp32";
  if (word == "double") return "fp64";
  if (word == "half") return "fp16";
  if (word == "bfloat16") return "bf16";
  for (const char* known : {"int8", "uint8", "int32", "uint32", "int64", "uint64", "fp8_e4m3",
                            "fp8_e5m2", "f8e4m3", "f8e5m2"}) {
    if (word == known) return word;
  }
  return "";
}

// The name of a test as a word of its own: "./build/all_gather_perf", "all_gather_perf_mpi".
std::string test_in(const std::string& line) {
  const auto named = [&](const std::string& name) {
    const std::size_t at = line.find(name);
    if (at == std::string::npos) return false;
    const char before = at == 0 ? ' ' : line[at - 1];
    return before != '_' && (before < 'a' || before > 'z');
  };
  for (const Test& test : kTests) {
    if (named(test.name)) return test.name;
  }
  for (const char* other : kOthers) {
    if (named(other)) return other;
  }
  return "";
}

// "#  Rank  0 Group  0 Pid   6899 on   node-a device  0 [0000:04:00] NVIDIA H100": also older
// versions without the group.
bool read_device(const std::vector<std::string>& words, Table& table) {
  const auto at = [&](const char* word) {
    return static_cast<std::size_t>(std::find(words.begin(), words.end(), word) - words.begin());
  };
  const std::size_t rank = at("Rank"), on = at("on"), device = at("device"), group = at("Group");
  if (rank + 1 >= words.size() || on + 1 >= words.size() || device >= words.size()) return false;
  const std::optional<std::int64_t> number = whole_of(words[rank + 1]);
  if (!number || *number < 0 || *number >= kMostRanks) return false;
  // A split run has several groups at once: one of them is measured.
  if (group + 1 < words.size() && words[group + 1] != "0") return true;
  const auto [found, fresh] = table.hosts.emplace(*number, words[on + 1]);
  if (!fresh && found->second != words[on + 1]) table.twice.insert(*number);
  std::string name;
  for (std::size_t i = device + 3; i < words.size(); ++i)
    name += (name.empty() ? "" : " ") + words[i];
  if (!name.empty()) table.device = name;
  return true;
}

// "#  size  count  type  redop  root  time  algbw  busbw  #wrong  time ...". Older versions leave
// redop and root out.
bool read_header(const std::vector<std::string>& words, Table& table) {
  std::vector<std::size_t> times;
  const std::size_t skip = !words.empty() && words[0] == "#" ? 1 : 0;
  for (std::size_t i = skip; i < words.size(); ++i) {
    if (words[i] == "time" || words[i] == "cpu_time") times.push_back(i - skip);
  }
  if (times.size() != 2 || times[0] < 3 || times[1] < times[0] + 4) return false;
  table.columns = {times[0], times[1], std::max(words.size() - skip, times[1] + 4)};
  return true;
}

bool read_half(const std::vector<std::string>& words, std::size_t at, Half& half) {
  std::array<double, 3> values{};
  for (std::size_t i = 0; i < 3; ++i) {
    const std::optional<double> value = number_of(words[at + i]);
    if (!value) return false;
    values[i] = *value;
  }
  half = {values[0], values[1], values[2], number_of(words[at + 3])};
  return half.wrong.has_value() || words[at + 3] == "N/A";
}

// Whether the line begins as a row does; `row` is filled where it is whole.
bool begins_as_row(const std::vector<std::string>& words) {
  return words.size() >= 3 && whole_of(words[0]) && whole_of(words[1]) &&
         !dtype_of(words[2]).empty();
}

bool read_row(const std::vector<std::string>& words, const Columns& columns, Row& row) {
  // Where an op has no redop, older versions print blanks in its place.
  const bool blank = columns.first == 5 && words.size() + 1 == columns.total;
  const std::size_t less = blank ? 1 : 0;
  if (words.size() < columns.second + 4 - less) return false;
  row.bytes = static_cast<double>(*whole_of(words[0]));
  row.elements = *whole_of(words[1]);
  row.dtype = dtype_of(words[2]);
  return read_half(words, columns.first - less, row.halves[0]) &&
         read_half(words, columns.second - less, row.halves[1]);
}

class Reader {
 public:
  explicit Reader(const std::string& file) : file_(file) {}

  std::vector<Table> read(const std::string& text) {
    const std::vector<std::string> lines = terminal_lines(text);
    for (std::size_t i = 0; i < lines.size(); ++i) read_line(lines[i], i);
    close();
    return std::move(tables_);
  }

 private:
  void close() {
    if (!now_.rows.empty() || now_.torn > 0 || now_.failed) tables_.push_back(std::move(now_));
    now_ = Table{};
  }

  // Each line of a header begins a table where rows came before it.
  void begin() {
    if (!now_.rows.empty() || now_.torn > 0) close();
  }

  void read_line(const std::string& line, std::size_t index) {
    const std::vector<std::string> words = words_of(line);
    if (begins_as_row(words)) {
      add_row(words, index);
      return;
    }
    if (line.find("Avg bus bandwidth") != std::string::npos) {
      now_.ended = true;
      now_.average = number_of(words.back());
      return;
    }
    if (line.find("Out of bounds values") != std::string::npos) {
      now_.failed = line.find("FAILED") != std::string::npos;
      return;
    }
    if (line.find("nThread") != std::string::npos) begin();
    if (const std::string test = test_in(line); !test.empty()) {
      begin();
      now_.test = test;
    }
    if (line.find("Rank") != std::string::npos) {
      Table probe;
      if (read_device(words, probe)) begin();
      read_device(words, now_);
    }
    read_header(words, now_);
  }

  void add_row(const std::vector<std::string>& words, std::size_t index) {
    Row row;
    row.line = index;
    if (now_.rows.empty() && now_.torn == 0) now_.line = index;
    if (read_row(words, now_.columns, row)) {
      now_.rows.push_back(row);
    } else {
      if (now_.torn == 0) now_.torn_line = index;
      ++now_.torn;
    }
  }

  const std::string& file_;
  std::vector<Table> tables_;
  Table now_;
};

// busbw / algbw of the largest row: what the kind of the test shows in.
double bus_factor(const Table& table) {
  double most = 0, factor = 0;
  for (const Row& row : table.rows) {
    if (row.bytes <= most || row.halves[0].algbw <= 0) continue;
    most = row.bytes;
    factor = row.halves[0].busbw / row.halves[0].algbw;
  }
  return factor;
}

bool near(double a, double b, double tolerance) {
  return std::abs(a - b) <= tolerance * std::abs(b);
}

// The test by its name, else by its columns: an all-reduce counts the elements of its whole buffer;
// the others those of a part; all-to-all is not checked in place, and reductions name their sum.
Result<std::string> test_of(const Table& table, const std::string& file, double n) {
  if (!table.test.empty()) return table.test;
  const std::string where = place_of(file, table.line);
  const double factor = bus_factor(table), part = (n - 1) / n;
  if (n > 2 && near(factor, 2 * part, 0.02)) return std::string("all_reduce_perf");
  bool in_place_checked = false, checked = false;
  for (const Row& row : table.rows) {
    checked = checked || row.halves[0].wrong.has_value();
    in_place_checked = in_place_checked || row.halves[1].wrong.has_value();
  }
  if (checked && !in_place_checked && near(factor, part, 0.02)) {
    return std::string("alltoall_perf");
  }
  return Error::of(ErrorCode::kInvalid, where,
                   "a table of " + std::to_string(table.rows.size()) +
                       " rows whose test is not said: gathers, exchanges and sums can look alike",
                   "put a line \"# all_gather_perf\" (or the test that it was) above its header");
}

Status check_ranks(const Table& table, const std::string& file) {
  const std::string where = place_of(file, table.line);
  const char* fix = "keep the lines \"#  Rank  0 Group  0 Pid ... on HOST device ...\"";
  if (table.hosts.empty()) {
    return Error::of(ErrorCode::kInvalid, where, "no line says which ranks this table is of", fix);
  }
  if (!table.twice.empty()) {
    return Error::of(ErrorCode::kInvalid, where,
                     "rank " + std::to_string(*table.twice.begin()) +
                         " is on two hosts: each process measured alone",
                     "build nccl-tests with MPI=1, so that its processes make one group");
  }
  const auto ranks = static_cast<std::int64_t>(table.hosts.size());
  if (table.hosts.rbegin()->first != ranks - 1) {
    return Error::of(ErrorCode::kInvalid, where,
                     "the header names " + std::to_string(ranks) + " ranks up to rank " +
                         std::to_string(table.hosts.rbegin()->first) + ": lines are lost",
                     fix);
  }
  if (ranks < 2) {
    return Error::of(ErrorCode::kInvalid, where, "measured with one rank: nothing was sent",
                     "run it with -g 8, or under mpirun with a build for MPI");
  }
  return Ok{};
}

std::string shown(double value) {
  return Json(value).dump();
}

// As "# Avg bus bandwidth" has it: over all rows, in and out of place.
double mean_bus(const Table& table) {
  double sum = 0;
  for (const Row& row : table.rows) sum += row.halves[0].busbw + row.halves[1].busbw;
  return table.rows.empty() ? 0 : sum / static_cast<double>(2 * table.rows.size());
}

// Empty where the half is a measurement.
std::string wrong_with(const Row& row, const Half& half, double factor) {
  if (row.bytes < 0 || row.bytes > kMostBytes) return "size " + shown(row.bytes) + " is no size";
  if (half.us <= 0 || half.us > kMostMicroseconds) return "time " + shown(half.us) + " us is none";
  if (half.algbw < 1) return "";  // two decimals say too little
  if (!near(row.bytes / half.us * 1e-3, half.algbw, 0.05)) {
    return "size / time is " + shown(row.bytes / half.us * 1e-3) + " GB/s, but algbw says " +
           shown(half.algbw);
  }
  if (!near(half.busbw, half.algbw * factor, 0.05)) {
    return "busbw " + shown(half.busbw) + " is not " + shown(factor) + " of algbw " +
           shown(half.algbw);
  }
  return "";
}

class Sampler {
 public:
  Sampler(const std::string& file, Measurements& out, std::vector<Problem>& problems)
      : file_(file), out_(out), problems_(problems) {}

  void add(const Table& table, const Test& test) {
    std::map<std::string, std::int64_t> hosts;  // ranks on each
    for (const auto& [rank, host] : table.hosts) ++hosts[host];
    const bool even = std::all_of(hosts.begin(), hosts.end(), [&](const auto& host) {
      return host.second == hosts.begin()->second;
    });
    const auto n = static_cast<std::int64_t>(table.hosts.size());
    const auto nodes = static_cast<std::int64_t>(hosts.size());
    const double part = static_cast<double>(test.passes * (n - 1)) / static_cast<double>(n);
    std::size_t wrong = 0;
    for (const Row& row : table.rows) {
      for (std::size_t h = 0; h < row.halves.size(); ++h) {
        const Half& half = row.halves[h];
        if (row.bytes == 0) continue;
        // nccl-tests runs no exchange in place, whatever it prints there.
        if (h == 1 && test.kind == TransferKind::kExchange) continue;
        if (half.wrong.value_or(0) != 0) {
          ++wrong;
          continue;
        }
        const std::string reason = wrong_with(row, half, part);
        if (!reason.empty()) {
          problems_.push_back({place_of(file_, row.line), reason,
                               "the row is torn, or of a version that counts otherwise: delete it "
                               "or measure again"});
          continue;
        }
        Sample s;
        s.op = SampleOp::kTransfer;
        s.which = static_cast<std::int32_t>(test.kind);
        s.dtype = row.dtype;
        s.bytes = row.bytes * part;
        s.ranks = n;
        s.passes = test.passes;
        s.nodes = nodes;
        s.seconds = half.us * 1e-6;
        s.source = place_of(file_, row.line) + " " + test.name + (h == 0 ? "" : ", in place");
        out_.samples.push_back(s);
      }
    }
    tell(table, test, wrong, even);
  }

 private:
  void tell(const Table& table, const Test& test, std::size_t wrong, bool even) {
    const std::string where = place_of(file_, table.line) + ": " + test.name + ": ";
    if (wrong == 0 && table.failed) {
      problems_.push_back({place_of(file_, table.line),
                           "its check failed, and no row says which results are wrong",
                           "run it with -c 1, or mend the machine first"});
    } else if (wrong > 0) {
      out_.notes.push_back(
          {true, where + std::to_string(wrong) + " results with wrong elements are left out"});
    }
    if (table.torn > 0) {
      out_.notes.push_back({true, place_of(file_, table.torn_line) + ": " + test.name + ": " +
                                      std::to_string(table.torn) + " torn rows are left out"});
    }
    if (const double mean = mean_bus(table); table.average && !near(mean, *table.average, 0.02)) {
      out_.notes.push_back({true, where + "its rows have a busbw of " + shown(mean) +
                                      " GB/s on average, its last line says " +
                                      shown(*table.average) + ": rows are missing"});
    }
    if (!table.ended) {
      out_.notes.push_back({true, where + "no \"# Avg bus bandwidth\": the output is cut"});
    }
    if (!even) {
      problems_.push_back({place_of(file_, table.line),
                           "its hosts have unequal numbers of ranks: no one link explains that",
                           "run as many ranks on every host"});
    }
  }

  const std::string& file_;
  Measurements& out_;
  std::vector<Problem>& problems_;
};

}  // namespace

Result<Measurements> import_nccl_tests(const std::string& text, const std::string& place) {
  Measurements out;
  out.tool = "nccl-tests";
  out.file = place;
  std::vector<Problem> problems;
  const auto keep = [&](const Error& error) {
    problems.insert(problems.end(), error.problems.begin(), error.problems.end());
  };
  Sampler sampler(place, out, problems);
  for (const Table& table : Reader(place).read(text)) {
    if (const Status ranks = check_ranks(table, place); !ranks.ok()) {
      keep(ranks.error());
      continue;
    }
    const auto name = test_of(table, place, static_cast<double>(table.hosts.size()));
    if (!name.ok()) {
      keep(name.error());
      continue;
    }
    const auto test = std::find_if(kTests.begin(), kTests.end(),
                                   [&](const Test& t) { return t.name == name.value(); });
    if (test == kTests.end()) {
      out.notes.push_back({false, place_of(place, table.line) + ": " + name.value() +
                                      ": no transfer of a training step, left out"});
      continue;
    }
    if (!table.device.empty()) out.device = table.device;
    sampler.add(table, *test);
  }
  if (problems.empty() && out.samples.empty()) {
    std::string cause = "has no row that can be used";
    for (const Note& note : out.notes) cause += "; " + note.text;
    problems.push_back({place, cause, "give the whole output of all_gather_perf and its like"});
  }
  if (!problems.empty()) return Error{ErrorCode::kInvalid, problems};
  return out;
}

}  // namespace orrery::simulator
