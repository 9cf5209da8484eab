// Faults on purpose, to see what they do: "KIND:rank=R,step=S[,op=PATH][,seconds=T]". Tests and
// docs/faults.md use it; a run with one says so in its trace.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "core/program/program.h"
#include "core/result.h"
#include "engine/comm/communicator.h"

namespace at {
class Tensor;
}

namespace orrery::engine {

enum class FaultKind {
  kKill,      // the process dies of SIGKILL
  kHang,      // the thread that runs the op stops for good
  kSlow,      // the op takes `seconds` longer, in this and every later step
  kMismatch,  // the rank issues another collective than its peers
  kSizes,     // the same collective, with other byte counts
  kMemory,    // the op asks for more memory than there is
  kNan,       // the gradients hold NaN, in this and every later step
};

struct Fault {
  FaultKind kind = FaultKind::kKill;
  std::int32_t rank = 0, step = 0;  // steps as the trace counts them, from 0
  std::string op;                   // a path of the program; empty: the first op that fits
  double seconds = 0.1;
  std::string text;  // as it was given
};

// kUsage for anything that does not follow the form above.
Result<Fault> parse_fault(const std::string& text, const std::string& where);
// kUsage where the program has no such rank or no such op, or the op cannot have this fault.
Status check_fault(const Fault& fault, const Program& program, const std::string& where);

// One rank's share of a fault. Outlives the executor that uses it.
class Injector {
 public:
  Injector(const Fault& fault, const Program& program, std::int32_t rank);

  void begin_step(std::int32_t step) { step_ = step; }
  // For ExecutorOptions::observe; empty where this rank has no such fault.
  std::function<void(const Op&, BufferId, const at::Tensor&)> observer();
  // For the rendezvous of `op_key` on a network lane: does what is to be done, and may change what
  // the rank announces.
  void at_rendezvous(Intent& intent);

 private:
  bool due(const std::string& path);
  void act();

  const Fault fault_;
  const bool mine_;
  std::atomic<std::int32_t> step_ = 0;
  std::atomic<std::int32_t> last_ = -1;         // step in which it happened last
  std::map<std::uint64_t, std::string> paths_;  // of collectives, by op key
};

// `inner` with the injector at each rendezvous. Both outlive it.
std::unique_ptr<Communicator> make_injected(Communicator& inner, Injector& injector);

}  // namespace orrery::engine
