// nvbandwidth -> copies between a device and its host, and between devices. It states bandwidths
// only: a sample stands for one copy of its default buffer, 512 MiB (--bufferSize).
#include <algorithm>
#include <array>
#include <optional>

#include "simulator/calibration/samples.h"
#include "simulator/calibration/text_lines.h"

namespace orrery::simulator {
namespace {

constexpr double kBufferBytes = 512.0 * 1024 * 1024;
constexpr double kMostRate = 1e6;  // GB/s

struct Case {
  const char* prefix;  // then "_ce", or "_sm" where a kernel copies instead of the copy engine
  SampleOp op;
};

constexpr std::array<Case, 4> kCases = {{{"host_to_device_memcpy", SampleOp::kCopyToDevice},
                                         {"device_to_host_memcpy", SampleOp::kCopyToHost},
                                         {"device_to_device_memcpy_read", SampleOp::kCopyToPeer},
                                         {"device_to_device_memcpy_write", SampleOp::kCopyToPeer}}};

// What a test measures; `engine` is whether the copy engine does.
const Case* case_of(const std::string& test, bool& engine) {
  for (const Case& known : kCases) {
    engine = test == std::string(known.prefix) + "_ce";
    if (engine || test == std::string(known.prefix) + "_sm") return &known;
  }
  return nullptr;
}

struct Cell {
  std::string test, place, word;
  std::size_t row = 0, column = 0;
};

// Cells of both forms become samples here.
class Cells {
 public:
  void add(const Cell& cell) {
    bool engine = false;
    const Case* known = case_of(cell.test, engine);
    if (known == nullptr || cell.word == "N/A") return;
    const std::optional<double> rate = number_of(cell.word);
    if (!rate || *rate <= 0 || *rate > kMostRate) {
      problems.push_back({cell.place,
                          cell.test + ": '" + cell.word.substr(0, 40) + "' is no bandwidth",
                          "the output is torn: measure again"});
      return;
    }
    Sample s;
    s.op = known->op;
    s.bytes = kBufferBytes;
    s.seconds = kBufferBytes / (*rate * 1e9);
    s.source = cell.place + " " + cell.test + ", " + std::to_string(cell.row) + " to " +
               std::to_string(cell.column);
    (engine ? by_engine : by_kernel).push_back(s);
  }

  // The copy engine's where there are any: those the training's copies use.
  Result<Measurements> finish(const std::string& place, std::string device) {
    Measurements out;
    out.tool = "nvbandwidth";
    out.file = place;
    out.device = std::move(device);
    out.samples = std::move(by_engine);
    const std::size_t engines = out.samples.size();
    for (const Sample& s : by_kernel) {
      const bool known = std::any_of(out.samples.begin(),
                                     out.samples.begin() + static_cast<std::ptrdiff_t>(engines),
                                     [&](const Sample& other) { return other.op == s.op; });
      if (!known) out.samples.push_back(s);
    }
    if (problems.empty() && out.samples.empty()) {
      problems.push_back({place, "has no copy between host and device, or between devices",
                          "run nvbandwidth -t host_to_device_memcpy_ce device_to_host_memcpy_ce"});
    }
    if (!problems.empty()) return Error{ErrorCode::kInvalid, problems};
    return out;
  }

  std::vector<Sample> by_engine, by_kernel;
  std::vector<Problem> problems;
};

// "Running NAME." starts a test; below its description stand the columns, then rows that begin
// with their index, up to a line that does not.
Result<Measurements> import_text(const std::string& text, const std::string& place) {
  Cells cells;
  std::string test, device;
  std::size_t columns = 0;
  bool described = false;
  const std::vector<std::string> lines = terminal_lines(text);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::vector<std::string> words = words_of(lines[i]);
    if (words.size() >= 2 && words[0] == "Running") {
      test = words[1].substr(0, words[1].find_last_not_of('.') + 1);
      described = false;
      columns = 0;
      continue;
    }
    if (words.size() >= 3 && words[0] == "Device" && words[1].back() == ':' && device.empty()) {
      device = lines[i].substr(lines[i].find(words[2], lines[i].find(':')));
    }
    if (lines[i].find("bandwidth (GB/s)") != std::string::npos) {
      described = true;
      columns = 0;
      continue;
    }
    if (!described || words.empty() || !whole_of(words[0])) {
      described = described && words.empty() && columns == 0;
      continue;
    }
    if (columns == 0) {
      columns = words.size();
      continue;
    }
    const auto row = static_cast<std::size_t>(std::max<std::int64_t>(*whole_of(words[0]), 0));
    if (words.size() != columns + 1) {
      cells.problems.push_back({place_of(place, i),
                                test + ": a row of " + std::to_string(words.size() - 1) +
                                    " cells below " + std::to_string(columns) + " columns",
                                "the output is torn: measure again"});
      continue;
    }
    for (std::size_t c = 0; c < columns; ++c) {
      cells.add({test, place_of(place, i), words[c + 1], row, c});
    }
  }
  return cells.finish(place, device);
}

std::string first_device(const Json& root) {
  const Json* list = root.find("GPU Device list");
  if (list == nullptr || !list->is_array() || list->items().empty()) return "";
  const Json& first = list->items().front();
  if (!first.is_string()) return "";
  // "0: NVIDIA H100 (00000000:19:00): (host)"
  const std::string& text = first.as_string();
  const std::size_t start = text.find(": ");
  const std::size_t end = text.find(" (");
  if (start == std::string::npos || end == std::string::npos || end < start + 2) return text;
  return text.substr(start + 2, end - start - 2);
}

void read_case(const Json& json, const std::string& place, Cells& cells) {
  ObjectReader reader(json, place, cells.problems);
  if (!json.is_object()) return;
  const std::string test = reader.text("name");
  // Waived and failed tests have no matrix.
  if (!reader.has("bandwidth_matrix")) return;
  const Json* rows = reader.array("bandwidth_matrix");
  if (rows == nullptr) return;
  for (std::size_t r = 0; r < rows->items().size(); ++r) {
    const Json& row = rows->items()[r];
    const std::string where = place + "/bandwidth_matrix/" + std::to_string(r);
    if (!row.is_array()) {
      cells.problems.push_back({where, "an array of cells expected", ""});
      continue;
    }
    for (std::size_t c = 0; c < row.items().size(); ++c) {
      const Json& cell = row.items()[c];
      const std::string word = cell.is_string() ? cell.as_string() : cell.dump(-1);
      cells.add({test, where + "/" + std::to_string(c), word, r, c});
    }
  }
}

Result<Measurements> import_json(const std::string& text, const std::string& place) {
  TRY(const Json json, Json::parse(text, place));
  Cells cells;
  ObjectReader file(json, place + ":", cells.problems);
  const Json* root = json.is_object() ? file.child("nvbandwidth") : nullptr;
  if (root == nullptr) return Error{ErrorCode::kInvalid, cells.problems};
  ObjectReader reader(*root, place + ":/nvbandwidth", cells.problems);
  if (const Json* tests = reader.array("testcases")) {
    for (std::size_t i = 0; i < tests->items().size(); ++i) {
      read_case(tests->items()[i], place + ":/nvbandwidth/testcases/" + std::to_string(i), cells);
    }
  }
  return cells.finish(place, first_device(*root));
}

}  // namespace

Result<Measurements> import_nvbandwidth(const std::string& text, const std::string& place) {
  const std::size_t start = text.find_first_not_of(" \t\r\n");
  if (start != std::string::npos && text[start] == '{') return import_json(text, place);
  return import_text(text, place);
}

}  // namespace orrery::simulator
