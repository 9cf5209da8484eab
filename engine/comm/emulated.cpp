// See emulated.h.
#include "engine/comm/emulated.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "core/check.h"
#include "core/quantity.h"

namespace orrery::engine {
namespace {

using Clock = std::chrono::steady_clock;

Clock::duration duration_of(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

// When the link of a rank is free again.
class Link {
 public:
  // Takes the link for `busy` from `start` on, or from when it is free; the end of that.
  Clock::time_point take(Clock::time_point start, Clock::duration busy) {
    const std::lock_guard lock(mutex_);
    free_ = std::max(start, free_) + busy;
    return free_;
  }

 private:
  std::mutex mutex_;
  Clock::time_point free_;
};

class EmulatedChannel final : public Channel {
 public:
  EmulatedChannel(Channel& inner, const LinkOptions& options, Link& link)
      : inner_(inner), options_(options), link_(link) {}

  std::int32_t size() const override { return inner_.size(); }
  std::int32_t index() const override { return inner_.index(); }
  Result<Traffic> all_gather(const void* send, void* recv, std::int64_t bytes) override {
    return slowly([&] { return inner_.all_gather(send, recv, bytes); });
  }
  Result<Traffic> reduce_scatter(const void* send, void* recv, std::int64_t count,
                                 DType dtype) override {
    return slowly([&] { return inner_.reduce_scatter(send, recv, count, dtype); });
  }
  Result<Traffic> all_reduce(void* data, std::int64_t count, DType dtype) override {
    return slowly([&] { return inner_.all_reduce(data, count, dtype); });
  }
  Result<Traffic> all_to_all_v(const void* send, const std::vector<std::int64_t>& send_bytes,
                               void* recv, const std::vector<std::int64_t>& recv_bytes) override {
    return slowly([&] { return inner_.all_to_all_v(send, send_bytes, recv, recv_bytes); });
  }
  using Channel::rendezvous;
  Status rendezvous(const Intent& intent) override {
    TRY_OK(inner_.rendezvous(intent));
    met_ = Clock::now();
    return Ok{};
  }

 private:
  template <class Move>
  Result<Traffic> slowly(Move move) {
    const Clock::time_point start = std::exchange(met_, std::nullopt).value_or(Clock::now());
    TRY(const Traffic traffic, move());
    if (size() == 1) return traffic;
    const auto bytes = static_cast<double>(std::max(traffic.bytes_sent, traffic.bytes_received));
    const Clock::duration busy = duration_of(bytes / options_.bandwidth.value());
    const int steps = std::bit_width(static_cast<unsigned>(size() - 1));  // ceil(log2 n)
    const Clock::duration latency = duration_of(options_.latency.value() * steps);
    const Clock::time_point mine =
        (options_.shared ? link_.take(start, busy) : start + busy) + latency;
    TRY(const Clock::time_point end, latest(mine));
    std::this_thread::sleep_until(end);
    return traffic;
  }

  // Of the ends that the members worked out for themselves. As what remains until then: hosts have
  // clocks of their own.
  Result<Clock::time_point> latest(Clock::time_point end) {
    std::vector<std::int64_t> remaining(static_cast<std::size_t>(size()));
    const Clock::time_point now = Clock::now();
    const std::int64_t mine = std::chrono::nanoseconds(end - now).count();
    TRY_OK(inner_.all_gather(&mine, remaining.data(), sizeof(mine)));
    return now + std::chrono::nanoseconds(*std::max_element(remaining.begin(), remaining.end()));
  }

  Channel& inner_;
  const LinkOptions options_;
  Link& link_;
  std::optional<Clock::time_point> met_;
};

class Emulated final : public Communicator {
 public:
  Emulated(Communicator& inner, const std::vector<Group>& groups, LinkOptions link)
      : inner_(inner), groups_(groups), options_(std::move(link)) {}

  std::int32_t rank() const override { return inner_.rank(); }
  std::int32_t world() const override { return inner_.world(); }
  Channel& channel(Lane lane, std::int32_t group) override {
    Channel& fast = inner_.channel(lane, group);
    const bool named =
        is_slow(name_of(lane)) || is_slow(groups_[static_cast<std::size_t>(group)].name);
    if (!named && !options_.only.empty()) return fast;
    const std::lock_guard lock(mutex_);  // each lane asks from its own thread
    auto& slow = channels_[{lane, group}];
    if (!slow) slow = std::make_unique<EmulatedChannel>(fast, options_, link_);
    return *slow;
  }
  Result<ClockOffset> clock_offset() override { return inner_.clock_offset(); }
  void abort(const Error& error) override { inner_.abort(error); }

 private:
  bool is_slow(const std::string& name) const {
    return std::find(options_.only.begin(), options_.only.end(), name) != options_.only.end();
  }

  Communicator& inner_;
  const std::vector<Group> groups_;
  const LinkOptions options_;
  Link link_;
  std::mutex mutex_;
  std::map<std::pair<Lane, std::int32_t>, std::unique_ptr<EmulatedChannel>> channels_;
};

std::string trimmed(const std::string& text) {
  const std::size_t first = text.find_first_not_of(' ');
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(' ') - first + 1);
}

}  // namespace

Result<LinkOptions> parse_link(const std::string& text, const std::string& where) {
  std::vector<std::string> words(1);
  for (const char c : text) {
    if (c == ',') {
      words.emplace_back();
    } else {
      words.back() += c;
    }
  }
  const auto usage = [&](const std::string& what) {
    return Error::of(ErrorCode::kUsage, where, what, "write it as in \"100 Mbit/s,1 ms\"");
  };
  if (words.size() < 2) return usage("a link is a bandwidth and a latency, got " + text);
  const auto rate = parse_quantity(words[0], "bytes/s", where);
  const auto latency = parse_quantity(words[1], "s", where);
  for (const auto* read : {&rate, &latency}) {
    if (!read->ok()) return Error{ErrorCode::kUsage, read->error().problems};
  }
  if (rate.value() <= 0) return usage("a link carries more than 0 bytes/s");
  LinkOptions link;
  link.bandwidth = BytesPerSecond(rate.value());
  link.latency = Seconds(latency.value());
  for (std::size_t i = 2; i < words.size(); ++i) {
    const std::string word = trimmed(words[i]);
    if (word.empty()) return usage("an empty word in " + text);
    if (word == "shared") {
      link.shared = true;
    } else {
      link.only.push_back(word);
    }
  }
  return link;
}

std::string to_text(const LinkOptions& link) {
  std::string text = exact_quantity(link.bandwidth.value(), "bytes/s") + "," +
                     exact_quantity(link.latency.value(), "s");
  if (link.shared) text += ",shared";
  for (const std::string& name : link.only) text += "," + name;
  return text;
}

Status check_link(const LinkOptions& link, const std::vector<Group>& groups,
                  const std::string& where) {
  std::vector<std::string> names;
  for (int lane = 0; lane < kNumLanes; ++lane) names.emplace_back(name_of(static_cast<Lane>(lane)));
  for (const Group& group : groups) names.push_back(group.name);
  for (const std::string& name : link.only) {
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    std::string known;
    for (const std::string& other : names) known += (known.empty() ? "" : ", ") + other;
    return Error::of(ErrorCode::kUsage, where, "no lane or group is called " + name,
                     "there are " + known);
  }
  return Ok{};
}

std::unique_ptr<Communicator> make_emulated(Communicator& inner, const std::vector<Group>& groups,
                                            const LinkOptions& link) {
  CHECK(link.bandwidth.value() > 0 && link.latency.value() >= 0, "a link that carries nothing");
  CHECK(check_link(link, groups, "").ok(), "a link for an unknown lane or group");
  return std::make_unique<Emulated>(inner, groups, link);
}

}  // namespace orrery::engine
