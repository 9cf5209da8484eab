// The MPI back end under mpirun: every lane at once from its own worker thread, held against brute
// force, against the in-process back end and against the formulas. Prints what is wrong; exit 1.
// Usage: mpirun -np N test_comm_mpi [abort]. With "abort" one rank gives up while others wait.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/comm/communicator.h"
#include "engine/lane_worker.h"
#include "tests/engine/comm_cases.h"

namespace orrery::engine {
namespace {

std::mutex report_mutex;
int failures = 0;

void report(std::int32_t rank, const std::string& what) {
  const std::lock_guard lock(report_mutex);
  ++failures;
  std::fprintf(stderr, "rank %d: %s\n", rank, what.c_str());
}

// What each "<lane>/<group>" moved by the back end's own count.
using Totals = std::map<std::string, Traffic>;

// The scripts of one lane over all groups, several seeds.
Status run_lane(Communicator& self, Lane lane, const std::vector<Group>& groups, Totals& totals,
                std::mutex& totals_mutex) {
  const std::int32_t rank = self.rank();
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    for (std::size_t g = 0; g < groups.size(); ++g) {
      const Group& group = groups[g];
      const std::uint64_t own = seed + 1000 * static_cast<std::uint64_t>(lane);
      Channel& channel = self.channel(lane, static_cast<std::int32_t>(g));
      TRY(const auto actual, test::run_script(channel, own, group.first_of(rank), group.stride));
      const auto expected = test::expected_outcome(own, group.size, group.index_of(rank),
                                                   group.first_of(rank), group.stride);
      const std::string wrong = test::difference(actual, expected);
      if (!wrong.empty()) report(rank, group.name + ": " + wrong);
      const std::lock_guard lock(totals_mutex);
      Traffic& total = totals[std::string(name_of(lane)) + "/" + group.name];
      for (const Traffic& traffic : actual.traffic) {
        total.bytes_sent += traffic.bytes_sent;
        total.bytes_received += traffic.bytes_received;
      }
    }
  }
  return Ok{};
}

// All lanes of this rank at once.
Totals run_lanes(Communicator& self, const std::vector<Group>& groups) {
  Totals totals;
  std::mutex totals_mutex;
  std::vector<std::unique_ptr<LaneWorker>> lanes;
  for (const Lane lane : kNetworkLanes) {
    lanes.push_back(std::make_unique<LaneWorker>(name_of(lane)));
    lanes.back()->post([&, lane] { return run_lane(self, lane, groups, totals, totals_mutex); });
  }
  for (const auto& lane : lanes) {
    const Status status = lane->drain();
    if (!status.ok()) report(self.rank(), status.error().text());
  }
  return totals;
}

// The same script on threads gives the same bits as on processes.
void compare_with_threads(Communicator& self, const std::vector<Group>& groups) {
  const auto threads = make_in_process(groups, self.world());
  constexpr std::uint64_t kSeed = 4242;
  const auto mine = test::run_script(self.channel(Lane::kEp, 0), kSeed, 0, 1);
  std::vector<std::thread> running;
  std::string wrong = "the in-process run failed";
  for (std::int32_t rank = 0; rank < self.world(); ++rank) {
    running.emplace_back([&, rank] {
      Channel& channel = threads[static_cast<std::size_t>(rank)]->channel(Lane::kEp, 0);
      const auto theirs = test::run_script(channel, kSeed, 0, 1);
      if (rank != self.rank() || !theirs.ok() || !mine.ok()) return;
      wrong = test::difference(mine.value(), theirs.value());
    });
  }
  for (std::thread& thread : running) thread.join();
  if (!wrong.empty()) report(self.rank(), "MPI against in-process: " + wrong);
}

void check_rendezvous(Communicator& self) {
  if (self.world() == 1) return;  // nobody to disagree with
  Channel& channel = self.channel(Lane::kFsdp, 0);
  const bool odd = self.rank() == self.world() - 1;
  const Status met = channel.rendezvous(odd ? 99 : 7);
  if (met.ok()) return report(self.rank(), "different ops met without an error");
  const std::string last = "rank " + std::to_string(self.world() - 1) + " op 99";
  const std::string text = met.error().text();
  if (text.find("rank 0 op 7") == std::string::npos || text.find(last) == std::string::npos) {
    report(self.rank(), "the error does not name ranks and ops: " + text);
  }
  if (!channel.rendezvous(8).ok()) report(self.rank(), "the channel is broken after a mismatch");
}

// All processes share one clock here: the truth is zero, and the method knows its own error.
void check_clock(Communicator& self) {
  const auto clock = self.clock_offset();
  if (!clock.ok()) return report(self.rank(), clock.error().text());
  const auto [offset, error] = clock.value();
  if (std::abs(offset) > error) {
    report(self.rank(), "clock offset " + std::to_string(offset) + " ns, error " +
                            std::to_string(error) + " ns");
  }
}

// For the counting wrapper's test: what the back end counted, as lines of the wrapper's form.
void write_totals(const Totals& totals, std::int32_t rank) {
  const char* path = std::getenv("ORRERY_COMM_TOTALS");
  if (path == nullptr) return;
  std::FILE* file = std::fopen((std::string(path) + "." + std::to_string(rank)).c_str(), "w");
  if (file == nullptr) return report(rank, "cannot write the totals");
  for (const auto& [name, traffic] : totals) {
    if (traffic.bytes_sent == 0 && traffic.bytes_received == 0) continue;
    std::fprintf(file, "%s %lld %lld\n", name.c_str(), static_cast<long long>(traffic.bytes_sent),
                 static_cast<long long>(traffic.bytes_received));
  }
  std::fclose(file);
}

int run(bool abort) {
  const auto self = mpi_world();
  if (!self.ok()) {
    report(-1, self.error().text());
    return 1;
  }
  const std::vector<Group> groups = test::groups_of(self.value().size);
  const std::int32_t world = self.value().size;
  const auto other = make_mpi(groups, all_channels(groups), world + 1);
  if (other.ok() || other.error().code != ErrorCode::kInvalid) report(0, "another world accepted");

  // Messages of at most 1000 bytes: the second round takes the path of beyond 2 GiB.
  for (const MpiTuning tuning : {MpiTuning{}, MpiTuning{1000}}) {
    auto mpi = make_mpi(groups, all_channels(groups), world, tuning);
    if (!mpi.ok()) {
      report(self.value().rank, mpi.error().text());
      return 1;
    }
    Communicator& comm = *mpi.value();
    if (abort) {
      if (comm.rank() == 0) comm.abort(Error::of(ErrorCode::kRun, "op 17", "gave up on purpose"));
      if (comm.channel(Lane::kFsdp, 0).rendezvous(1).ok()) return 0;
    }
    const Totals totals = run_lanes(comm, groups);
    if (std::getenv("ORRERY_COMM_TOTALS") != nullptr) {
      write_totals(totals, comm.rank());
      break;  // the wrapper counts everything: only what is in the totals may run
    }
    compare_with_threads(comm, groups);
    check_rendezvous(comm);
    check_clock(comm);
  }
  mpi_finish();
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace orrery::engine

int main(int argc, char** argv) {
  return orrery::engine::run(argc > 1 && std::strcmp(argv[1], "abort") == 0);
}
