// See inject.h.
#include "engine/inject.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <csignal>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "core/quantity.h"
#include "engine/torch/poison.h"

namespace orrery::engine {
namespace {

struct KindName {
  const char* name;
  FaultKind kind;
};
constexpr KindName kKinds[] = {{"kill", FaultKind::kKill},   {"hang", FaultKind::kHang},
                               {"slow", FaultKind::kSlow},   {"mismatch", FaultKind::kMismatch},
                               {"sizes", FaultKind::kSizes}, {"oom", FaultKind::kMemory},
                               {"nan", FaultKind::kNan}};

// At a rendezvous only, or at an op of the compute lane only.
bool is_of_collectives(FaultKind kind) {
  return kind == FaultKind::kMismatch || kind == FaultKind::kSizes;
}
bool is_of_compute(FaultKind kind) {
  return kind == FaultKind::kMemory || kind == FaultKind::kNan;
}

bool meets(const Op& op) {
  return is_collective(op.kind) && op.lane != Lane::kCompute;
}

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> words(1);
  for (const char c : text) {
    if (c == at) {
      words.emplace_back();
    } else {
      words.back() += c;
    }
  }
  return words;
}

template <class Number>
bool read(const std::string& text, Number& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size() && out >= 0;
}

class InjectedChannel final : public Channel {
 public:
  InjectedChannel(Channel& inner, Injector& injector) : inner_(inner), injector_(injector) {}
  std::int32_t size() const override { return inner_.size(); }
  std::int32_t index() const override { return inner_.index(); }
  Result<Traffic> all_gather(const void* send, void* recv, std::int64_t bytes) override {
    return inner_.all_gather(send, recv, bytes);
  }
  Result<Traffic> reduce_scatter(const void* send, void* recv, std::int64_t count,
                                 DType dtype) override {
    return inner_.reduce_scatter(send, recv, count, dtype);
  }
  Result<Traffic> all_reduce(void* data, std::int64_t count, DType dtype) override {
    return inner_.all_reduce(data, count, dtype);
  }
  Result<Traffic> all_to_all_v(const void* send, const std::vector<std::int64_t>& send_bytes,
                               void* recv, const std::vector<std::int64_t>& recv_bytes) override {
    return inner_.all_to_all_v(send, send_bytes, recv, recv_bytes);
  }
  using Channel::rendezvous;
  Status rendezvous(const Intent& intent) override {
    Intent changed = intent;
    if (size() > 1) injector_.at_rendezvous(changed);
    return inner_.rendezvous(changed);
  }

 private:
  Channel& inner_;
  Injector& injector_;
};

class Injected final : public Communicator {
 public:
  Injected(Communicator& inner, Injector& injector) : inner_(inner), injector_(injector) {}
  std::int32_t rank() const override { return inner_.rank(); }
  std::int32_t world() const override { return inner_.world(); }
  Channel& channel(Lane lane, std::int32_t group) override {
    Channel& sound = inner_.channel(lane, group);
    const std::lock_guard lock(mutex_);  // each lane asks from its own thread
    auto& channel = channels_[{lane, group}];
    if (!channel) channel = std::make_unique<InjectedChannel>(sound, injector_);
    return *channel;
  }
  Result<ClockOffset> clock_offset() override { return inner_.clock_offset(); }
  void abort(const Error& error) override { inner_.abort(error); }

 private:
  Communicator& inner_;
  Injector& injector_;
  std::mutex mutex_;
  std::map<std::pair<Lane, std::int32_t>, std::unique_ptr<InjectedChannel>> channels_;
};

}  // namespace

Result<Fault> parse_fault(const std::string& text, const std::string& where) {
  const auto usage = [&](const std::string& what) {
    return Error::of(ErrorCode::kUsage, where, what,
                     "write it as in hang:rank=1,step=2,op=layer.0/moe/dispatch; kinds are kill, "
                     "hang, slow, mismatch, sizes, oom, nan");
  };
  const std::size_t colon = text.find(':');
  const auto* kind = std::find_if(std::begin(kKinds), std::end(kKinds), [&](const KindName& k) {
    return text.substr(0, colon) == k.name;
  });
  if (kind == std::end(kKinds)) return usage("no such fault: " + text);
  Fault fault;
  fault.kind = kind->kind;
  fault.text = text;
  if (colon == std::string::npos) return fault;
  for (const std::string& word : split(text.substr(colon + 1), ',')) {
    const std::size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : word.substr(equals + 1);
    bool good = false;
    if (name == "rank") good = read(value, fault.rank);
    if (name == "step") good = read(value, fault.step);
    if (name == "seconds") good = read(value, fault.seconds);
    if (name == "op") {
      fault.op = value;
      good = !value.empty();
    }
    if (!good) return usage("unusable word in a fault: " + word);
  }
  return fault;
}

Status check_fault(const Fault& fault, const Program& program, const std::string& where) {
  if (fault.rank >= program.world) {
    return Error::of(ErrorCode::kUsage, where,
                     "there is no rank " + std::to_string(fault.rank) + " in a world of " +
                         std::to_string(program.world));
  }
  std::vector<std::string> paths;
  bool fits = false;
  for (const Op& op : program.role_of(fault.rank).ops) {
    // The observer sees an op of the compute lane by what it writes.
    const bool seen =
        meets(op) ? program.groups[static_cast<std::size_t>(op.group)].size > 1
                  : op.lane == Lane::kCompute && (!op.out.empty() || op.kind == OpKind::kGradNorm);
    const bool can = meets(op) ? !is_of_compute(fault.kind) : !is_of_collectives(fault.kind);
    if (!seen || !can) continue;
    fits = fits || fault.op.empty() || fault.op == op.path;
    paths.push_back(op.path);
  }
  if (fits) return Ok{};
  const std::string near = nearest(fault.op, paths);
  return Error::of(ErrorCode::kUsage, where,
                   fault.op.empty() ? "no op of this program can have this fault"
                                    : "no op that can have this fault is called " + fault.op,
                   near.empty() ? "" : "did you mean " + near + "?");
}

Injector::Injector(const Fault& fault, const Program& program, std::int32_t rank)
    : fault_(fault), mine_(fault.rank == rank) {
  for (const Op& op : program.role_of(rank).ops) {
    if (meets(op)) paths_[op.key] = op.path;
  }
}

// Once a step: in its own, and for what lasts in every later one.
bool Injector::due(const std::string& path) {
  if (!mine_ || (!fault_.op.empty() && fault_.op != path)) return false;
  const std::int32_t step = step_;
  const bool lasts = fault_.kind == FaultKind::kSlow || fault_.kind == FaultKind::kNan;
  if (step < fault_.step || (step > fault_.step && !lasts)) return false;
  return last_.exchange(step) != step;
}

void Injector::act() {
  if (fault_.kind == FaultKind::kKill) std::raise(SIGKILL);
  if (fault_.kind == FaultKind::kMemory) ask_for_too_much();
  if (fault_.kind == FaultKind::kSlow) {
    std::this_thread::sleep_for(std::chrono::duration<double>(fault_.seconds));
  }
  while (fault_.kind == FaultKind::kHang) std::this_thread::sleep_for(std::chrono::hours(1));
}

std::function<void(const Op&, BufferId, const at::Tensor&)> Injector::observer() {
  if (!mine_ || is_of_collectives(fault_.kind)) return nullptr;
  return [this](const Op& op, BufferId, const at::Tensor& tensor) {
    if (op.lane != Lane::kCompute) return;  // it was only posted
    if (fault_.kind == FaultKind::kNan) {
      if (op.kind == OpKind::kGradNorm && due(fault_.op)) poison(tensor);
    } else if (due(op.path)) {
      act();
    }
  };
}

void Injector::at_rendezvous(Intent& intent) {
  if (is_of_compute(fault_.kind)) return;
  // Without an op, what both lanes can have happens on the compute lane.
  if (fault_.op.empty() && !is_of_collectives(fault_.kind)) return;
  const auto path = paths_.find(intent.op_key);
  if (path == paths_.end() || !due(path->second)) return;
  if (fault_.kind == FaultKind::kMismatch) {
    const auto other = std::next(path) == paths_.end() ? paths_.begin() : std::next(path);
    intent.op_key = other->first;
  } else if (fault_.kind == FaultKind::kSizes) {
    intent.bytes += 8;
    for (std::int64_t& bytes : intent.to) bytes += 8;
  } else {
    act();
  }
}

std::unique_ptr<Communicator> make_injected(Communicator& inner, Injector& injector) {
  return std::make_unique<Injected>(inner, injector);
}

}  // namespace orrery::engine
