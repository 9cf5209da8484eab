// `nvidia-smi topo -m`: a row for each device (and NIC), a column for each device and NIC, then
// columns of affinity; below it legends, which say nothing that the cells do not.
#include <algorithm>
#include <array>

#include "simulator/calibration/samples.h"
#include "simulator/calibration/text_lines.h"

namespace orrery::simulator {
namespace {

constexpr std::size_t kMostDevices = 256;

bool is_digits(const std::string& text, std::size_t from) {
  return from < text.size() && text.find_first_not_of("0123456789", from) == std::string::npos;
}

bool is_device(const std::string& word) {
  return word.compare(0, 3, "GPU") == 0 && is_digits(word, 3);
}

// "NIC0", and "mlx5_0" of older drivers.
bool is_nic(const std::string& word) {
  return (word.compare(0, 3, "NIC") == 0 && is_digits(word, 3)) || word.compare(0, 4, "mlx5") == 0;
}

bool is_link(const std::string& word) {
  if (word.compare(0, 2, "NV") == 0) return is_digits(word, 2);
  constexpr std::array<const char*, 6> kLinks = {"X", "PIX", "PXB", "PHB", "NODE", "SYS"};
  return std::find(kLinks.begin(), kLinks.end(), word) != kLinks.end();
}

class Matrix {
 public:
  Matrix(const std::string& file, std::vector<Problem>& problems)
      : file_(file), problems_(problems) {}

  // GPU0 GPU1 ... NIC0 ... CPU Affinity ...: a row of names and nothing else before the affinity.
  bool is_header(const std::vector<std::string>& words) const {
    if (words.empty() || words[0] != "GPU0") return false;
    return words.size() == 1 || !is_link(words[1]);
  }

  void read_header(const std::vector<std::string>& words, std::size_t line) {
    header_line_ = line;
    for (const std::string& word : words) {
      if (is_device(word)) {
        ++devices_;
      } else if (is_nic(word)) {
        ++topology.nics;
      } else {
        break;
      }
    }
    topology.place = place_of(file_, line);
    if (devices_ > kMostDevices) {
      problems_.push_back({topology.place, std::to_string(devices_) + " devices in one node", ""});
    }
  }

  void read_row(const std::vector<std::string>& words, std::size_t line) {
    const std::string where = place_of(file_, line);
    const std::string expected = "GPU" + std::to_string(topology.links.size());
    if (words[0] != expected) {
      problems_.push_back({where, "the row of " + words[0] + " where " + expected + "'s would be",
                           "give the whole output of nvidia-smi topo -m"});
      return;
    }
    if (words.size() < devices_ + 1) {
      problems_.push_back({where,
                           "a row of " + std::to_string(words.size() - 1) + " cells for " +
                               std::to_string(devices_) + " devices",
                           "the line is cut: print it without wrapping"});
      return;
    }
    std::vector<std::string> row(words.begin() + 1,
                                 words.begin() + 1 + static_cast<std::ptrdiff_t>(devices_));
    for (std::size_t c = 0; c < row.size(); ++c) {
      const bool self = c == topology.links.size();
      if (is_link(row[c]) && (row[c] == "X") == self) continue;
      problems_.push_back({where,
                           "'" + row[c].substr(0, 40) + "' between GPU" +
                               std::to_string(topology.links.size()) + " and GPU" +
                               std::to_string(c) + " is no link",
                           "X, NV#, PIX, PXB, PHB, NODE or SYS"});
    }
    topology.links.push_back(std::move(row));
  }

  // Whole, and the same in both directions.
  void check() {
    if (topology.links.size() != devices_) {
      problems_.push_back({place_of(file_, header_line_),
                           "its header names " + std::to_string(devices_) + " devices, " +
                               std::to_string(topology.links.size()) + " have a row",
                           "give the whole output of nvidia-smi topo -m"});
      return;
    }
    for (std::size_t a = 0; a < devices_; ++a) {
      for (std::size_t b = 0; b < a; ++b) {
        if (topology.links[a][b] == topology.links[b][a]) continue;
        problems_.push_back({topology.place,
                             "GPU" + std::to_string(b) + " reaches GPU" + std::to_string(a) +
                                 " by " + topology.links[b][a] + ", but back by " +
                                 topology.links[a][b],
                             "the output is torn: print it again"});
      }
    }
  }

  bool started() const { return devices_ > 0; }
  NodeTopology topology;

 private:
  const std::string& file_;
  std::vector<Problem>& problems_;
  std::size_t devices_ = 0, header_line_ = 0;
};

}  // namespace

Result<Measurements> import_topology(const std::string& text, const std::string& place) {
  Measurements out;
  out.tool = "nvidia-smi topo -m";
  out.file = place;
  std::vector<Problem> problems;
  std::vector<Matrix> matrices;
  const std::vector<std::string> lines = terminal_lines(text);
  for (std::size_t i = 0; i < lines.size() && problems.empty(); ++i) {
    const std::vector<std::string> words = words_of(lines[i]);
    if (words.empty()) continue;
    Matrix fresh(place, problems);
    if (fresh.is_header(words)) {
      fresh.read_header(words, i);
      matrices.push_back(fresh);
    } else if (is_device(words[0]) && !matrices.empty()) {
      matrices.back().read_row(words, i);
    }
  }
  if (problems.empty()) {
    for (Matrix& m : matrices) {
      m.check();
      out.nodes.push_back(m.topology);
    }
  }
  if (problems.empty() && out.nodes.empty()) {
    problems.push_back({place, "has no matrix of links", "give the output of nvidia-smi topo -m"});
  }
  if (!problems.empty()) return Error{ErrorCode::kInvalid, problems};
  return out;
}

}  // namespace orrery::simulator
