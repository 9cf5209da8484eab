// See hosts.h. Hosts: Open MPI's hostfile(5). Slurm's variables: sbatch(1), "output environment
// variables".
#include "cli/hosts.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <optional>

#include "cli/engine_launch.h"
#include "cli/output.h"
#include "core/configs.h"

namespace orrery::cli {
namespace {

constexpr std::int64_t kMostSlots = 1'000'000;

std::optional<std::int64_t> whole_number(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  return whole && value >= 1 && value <= kMostSlots ? std::optional(value) : std::nullopt;
}

std::vector<std::string_view> words_of(std::string_view line) {
  constexpr std::string_view kBlank = " \t\r";
  std::vector<std::string_view> words;
  while (true) {
    line.remove_prefix(std::min(line.find_first_not_of(kBlank), line.size()));
    if (line.empty()) return words;
    const std::size_t end = std::min(line.find_first_of(kBlank), line.size());
    words.push_back(line.substr(0, end));
    line.remove_prefix(end);
  }
}

bool is_host_name(std::string_view name) {
  const auto fits = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_';
  };
  return !name.empty() && name.front() != '-' && std::all_of(name.begin(), name.end(), fits);
}

constexpr const char* kForm = "a line is `name`, `name:4` or `name slots=4`; remarks begin with #";

// One line with at least one word.
Result<Host> parse_host(const std::vector<std::string_view>& words, const std::string& place,
                        std::int64_t default_slots) {
  std::string_view name = words.front();
  std::optional<std::string_view> slots;
  if (const std::size_t colon = name.find(':'); colon != std::string_view::npos) {
    slots = name.substr(colon + 1);
    name = name.substr(0, colon);
  }
  if (!is_host_name(name)) {
    return Error::of(ErrorCode::kInvalid, place, fmt::format("'{}' is no host name", name), kForm);
  }
  for (std::size_t i = 1; i < words.size(); ++i) {
    const std::string_view word = words[i];
    if (!word.starts_with("slots=")) {
      return Error::of(ErrorCode::kInvalid, place,
                       fmt::format("'{}' behind {} means nothing", word, name), kForm);
    }
    if (slots) {
      return Error::of(ErrorCode::kInvalid, place, fmt::format("the slots of {} twice", name),
                       kForm);
    }
    slots = word.substr(6);
  }
  const auto count = slots ? whole_number(*slots) : std::optional(default_slots);
  if (!count) {
    return Error::of(ErrorCode::kInvalid, place,
                     fmt::format("'{}' is no number of slots for {}", *slots, name),
                     fmt::format("a whole number from 1 to {}", kMostSlots));
  }
  return Host{std::string(name), *count, place};
}

std::string text_of(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr ? value : "";
}

std::string own_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof(name) - 1) == 0 ? name : "localhost";
}

struct Wanted {
  std::int64_t ranks = 0, devices_per_node = 1;
  std::int64_t nodes() const { return (ranks + devices_per_node - 1) / devices_per_node; }
};

// Slots by node, as Slurm says it; empty where no Slurm is.
Result<std::vector<Host>> slurm_hosts() {
  if (text_of("SLURM_JOB_ID").empty() || text_of("SLURM_JOB_NODELIST").empty()) {
    return std::vector<Host>();
  }
  if (const std::string tasks = text_of("SLURM_TASKS_PER_NODE"); !tasks.empty()) {
    return parse_slurm_tasks(tasks);
  }
  const std::string nodes = text_of("SLURM_JOB_NUM_NODES");
  const std::string each = text_of("SLURM_NTASKS_PER_NODE");
  if (nodes.empty() || each.empty()) return std::vector<Host>();
  return parse_slurm_tasks(each + "(x" + nodes + ")");
}

Result<Placement> in_slurm(const std::vector<Host>& nodes, const Wanted& wanted) {
  Placement placement;
  // One node: as on any machine, with or without Slurm.
  if (nodes.size() == 1 && wanted.nodes() == 1) return placement;
  const std::string mend = fmt::format("sbatch --nodes={} --ntasks-per-node={}", wanted.nodes(),
                                       std::min(wanted.devices_per_node, wanted.ranks));
  TRY_OK(fill_hosts(nodes, wanted.ranks, wanted.devices_per_node,
                    {"Slurm job " + text_of("SLURM_JOB_ID"), mend, mend}));
  placement.kind = Placement::Kind::kScheduler;
  return placement;
}

Result<Placement> on_hosts(const std::string& path, const Wanted& wanted) {
  TRY(const std::string text, read_file(path));
  TRY(const std::vector<Host> all, parse_hosts(text, path, wanted.devices_per_node));
  Placement placement;
  const std::string slots = fmt::format("slots={}", wanted.devices_per_node);
  TRY(placement.hosts, fill_hosts(all, wanted.ranks, wanted.devices_per_node,
                                  {path, "write " + slots + ", or plan for a cluster of such nodes",
                                   "add lines `name " + slots + "`, or plan for fewer nodes"}));
  const std::string& first = placement.hosts.front().name;
  const bool here = placement.hosts.size() == 1 && (first == own_name() || first == "localhost");
  if (here) return Placement{};
  placement.kind = Placement::Kind::kHosts;
  return placement;
}

// The remote shell may have words of its own: "ssh -p 2222".
Status check_remote_shell(const std::string& shell) {
  const std::vector<std::string_view> words = words_of(shell);
  if (words.empty() || find_program(std::string(words.front())).ok()) return Ok{};
  return Error::of(ErrorCode::kIo, "--remote-shell",
                   fmt::format("'{}' is no program that can be started", words.front()),
                   "it is called as `CMD HOST COMMAND...`, as ssh is");
}

}  // namespace

Result<std::vector<Host>> parse_hosts(std::string_view text, const std::string& place,
                                      std::int64_t default_slots) {
  std::vector<Host> hosts;
  Error error{ErrorCode::kInvalid, {}};
  for (int number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    line = line.substr(0, line.find('#'));
    const std::vector<std::string_view> words = words_of(line);
    if (words.empty()) continue;
    Result<Host> host = parse_host(words, fmt::format("{}:{}", place, number), default_slots);
    if (!host.ok()) {
      error.problems.push_back(host.error().problems.front());
      continue;
    }
    const auto same = [&](const Host& earlier) { return earlier.name == host.value().name; };
    const auto earlier = std::find_if(hosts.begin(), hosts.end(), same);
    if (earlier != hosts.end()) {
      error.problems.push_back(
          {host.value().place,
           fmt::format("{} stands at {} already", earlier->name, earlier->place),
           "one line a host: its ranks have numbers in a row"});
      continue;
    }
    hosts.push_back(std::move(host).value());
  }
  if (!error.problems.empty()) return error;
  if (hosts.empty()) return Error::of(ErrorCode::kInvalid, place, "names no host", kForm);
  return hosts;
}

Result<std::vector<Host>> parse_slurm_tasks(std::string_view text) {
  std::vector<Host> hosts;
  for (std::string_view rest = text; !rest.empty();) {
    const std::size_t comma = std::min(rest.find(','), rest.size());
    std::string_view item = rest.substr(0, comma);
    rest.remove_prefix(std::min(comma + 1, rest.size()));
    std::optional<std::int64_t> times = 1;
    if (const std::size_t open = item.find("(x"); open != std::string_view::npos) {
      const std::string_view count = item.substr(open + 2);
      times = count.ends_with(')') ? whole_number(count.substr(0, count.size() - 1)) : std::nullopt;
      item = item.substr(0, open);
    }
    const std::optional<std::int64_t> slots = whole_number(item);
    if (!slots || !times) {
      return Error::of(ErrorCode::kInvalid, "SLURM_TASKS_PER_NODE",
                       fmt::format("'{}' is not of the form 4(x2),3", text),
                       "name the hosts: --hosts FILE");
    }
    for (std::int64_t i = 0; i < *times; ++i) {
      const std::string name = fmt::format("node {}", hosts.size() + 1);
      hosts.push_back({name, *slots, "SLURM_TASKS_PER_NODE"});
    }
  }
  return hosts;
}

Result<std::vector<Host>> fill_hosts(const std::vector<Host>& hosts, std::int64_t ranks,
                                     std::int64_t devices_per_node, const HostAdvice& advice) {
  std::vector<Host> used;
  Error error{ErrorCode::kInvalid, {}};
  std::int64_t left = ranks;
  for (const Host& host : hosts) {
    if (left == 0) break;
    const std::int64_t fair = std::min(devices_per_node, left);
    const std::int64_t taken = std::min(host.slots, left);
    if (taken != fair) {
      error.problems.push_back({host.place,
                                fmt::format("{} has {}, but the plan has {} on a node", host.name,
                                            plural(static_cast<std::size_t>(host.slots), "slot"),
                                            plural(static_cast<std::size_t>(fair), "rank")),
                                advice.for_slots});
    }
    used.push_back({host.name, taken, host.place});
    left -= fair;
  }
  if (left > 0) {
    const Wanted wanted{ranks, devices_per_node};
    error.problems.push_back(
        {advice.source,
         fmt::format("{}, but the plan is for {} ranks on {} nodes of {}",
                     plural(hosts.size(), "host"), ranks, wanted.nodes(), devices_per_node),
         advice.for_number});
  }
  if (!error.problems.empty()) return error;
  return used;
}

Result<Placement> place_ranks(PlacementWords words, const Cluster& cluster, std::int64_t ranks,
                              const std::string& plan) {
  const auto fall_back = [](std::string& word, const char* variable) {
    if (word.empty()) word = text_of(variable);
  };
  fall_back(words.hosts, "ORRERY_HOSTS");
  fall_back(words.remote_shell, "ORRERY_REMOTE_SHELL");
  fall_back(words.interface_name, "ORRERY_INTERFACE");
  const Wanted wanted{ranks, cluster.devices_per_node};
  Placement placement;
  if (!words.hosts.empty()) {
    TRY(placement, on_hosts(words.hosts, wanted));
  } else {
    TRY(const std::vector<Host> nodes, slurm_hosts());
    if (!nodes.empty()) {
      TRY(placement, in_slurm(nodes, wanted));
    } else if (wanted.nodes() > 1) {
      return Error::of(ErrorCode::kInvalid, plan + ":/cluster",
                       fmt::format("the plan is for {} ({} nodes of {}), and no hosts are named",
                                   cluster.name, wanted.nodes(), wanted.devices_per_node),
                       fmt::format("--hosts FILE with a line `name slots={}` for each, or run it "
                                   "in a Slurm job; nodes on this machine: scripts/lab",
                                   wanted.devices_per_node));
    }
  }
  if (!placement.spread()) return placement;
  TRY_OK(check_remote_shell(words.remote_shell));
  placement.remote_shell = std::move(words.remote_shell);
  placement.interface_name = std::move(words.interface_name);
  return placement;
}

}  // namespace orrery::cli
