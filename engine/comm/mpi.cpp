// One process a rank, over MPI. Every (lane, group) has its own communicator, made once in the
// same order on all ranks and named "<lane>/<group>".
//
// How to wait was measured (Open MPI 4.1, 4 ranks x 3 lane threads on 2 cores, one rank late by a
// 0.25 s computation): threads blocked in a collective, with mpi_yield_when_idle, took 15 % off
// the computing threads (and up to 30 % more CPU); MPI_Test with sleeps of 20 to 50 us took
// nothing measurable, but as the way to move data it is slower (256 KiB to each of 4: 231 us
// against 138 us). So the long wait, for the slowest member, is the rendezvous and sleeps; the
// data then move when everybody is there, polled without a pause while they may come through
// shared memory, and with short sleeps beyond: over a slow link a transfer takes milliseconds, in
// which the cores belong to those who compute.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "core/check.h"
#include "core/quantity.h"
#include "engine/comm/collectives.h"
#include "engine/comm/watch.h"

namespace orrery::engine {
namespace {

using Clock = std::chrono::steady_clock;

Error mpi_error(int code, const std::string& where) {
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  return Error::of(ErrorCode::kRun, where, "MPI: " + std::string(text));
}

// TRY_MPI(MPI_Xxx(...), "where"): returns the error from the enclosing function.
#define TRY_MPI(call, where)                                          \
  do {                                                                \
    const int mpi_code = (call);                                      \
    if (mpi_code != MPI_SUCCESS) return mpi_error(mpi_code, (where)); \
  } while (false)

bool is_open() {
  int initialized = 0;
  int finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  return initialized != 0 && finalized == 0;
}

constexpr int kDataTag = 1;
constexpr int kClockTag = 2;
constexpr int kRollCallTag = 3;
constexpr int kHereTag = 4;

// What a rendezvous in flight reads and writes.
struct Table {
  Card mine;
  std::vector<Card> cards;
  std::uint64_t question = 0;
};

class MpiChannel final : public CollectiveChannel {
 public:
  MpiChannel(Membership membership, const CommTuning& tuning, MPI_Comm comm)
      : CollectiveChannel(std::move(membership), tuning), comm_(comm) {}
  MpiChannel(const MpiChannel&) = delete;
  MpiChannel& operator=(const MpiChannel&) = delete;
  ~MpiChannel() override {
    if (comm_ != MPI_COMM_NULL && is_open() && !given_up_) MPI_Comm_free(&comm_);
  }
  // From the watching thread: an error once the data of a collective have been moving for too long.
  std::optional<Error> stuck(Clock::time_point now) const;

 protected:
  Result<Traffic> gather(const std::byte* send, std::byte* recv, std::int64_t bytes,
                         bool in_place) override;
  Result<Traffic> exchange(const std::byte* send, const Parts& send_parts, std::byte* recv,
                           const Parts& recv_parts) override;
  Status meet(const Card& mine, Card* cards) override;

 private:
  // While it lives, data are moving.
  class Moving {
   public:
    explicit Moving(MpiChannel& channel) : since_(channel.moving_since_) {
      since_ = Clock::now().time_since_epoch().count();
    }
    ~Moving() { since_ = 0; }
    Moving(const Moving&) = delete;
    Moving& operator=(const Moving&) = delete;

   private:
    std::atomic<Clock::rep>& since_;
  };

  Status finish(std::vector<MPI_Request>& requests);
  Status answer_roll_call();
  Result<std::vector<std::int32_t>> call_the_roll();

  MPI_Comm comm_;
  std::atomic<Clock::rep> moving_since_ = 0;  // 0: no data are moving
  std::atomic<std::uint64_t> op_key_ = 0;     // of the last rendezvous
  // Outlives a rendezvous that was given up, as MPI may still write to it.
  std::unique_ptr<Table> table_ = std::make_unique<Table>();
  bool given_up_ = false;
};

// As pairwise messages too: what each member sends where is known then, and can be priced; which of
// its own algorithms MPI would choose is not.
Result<Traffic> MpiChannel::gather(const std::byte* send, std::byte* recv, std::int64_t bytes,
                                   bool in_place) {
  const std::byte* own = recv + index() * bytes;
  if (!in_place) std::memcpy(recv + index() * bytes, send, static_cast<std::size_t>(bytes));
  Parts from;
  Parts to;
  for (std::int32_t peer = 0; peer < size(); ++peer) {
    from.offsets.push_back(0);
    from.bytes.push_back(peer == index() ? 0 : bytes);
    to.offsets.push_back(peer * bytes);
    to.bytes.push_back(peer == index() ? 0 : bytes);
  }
  return exchange(own, from, recv, to);
}

// Polls with yields for as long as a transfer through shared memory takes, then with sleeps.
Status MpiChannel::finish(std::vector<MPI_Request>& requests) {
  constexpr auto kSpin = std::chrono::microseconds(500);
  constexpr auto kPause = std::chrono::microseconds(100);
  const auto count = static_cast<int>(requests.size());
  const auto start = Clock::now();
  while (true) {
    int done = 0;
    TRY_MPI(MPI_Testall(count, requests.data(), &done, MPI_STATUSES_IGNORE), membership().name);
    if (done != 0) return Ok{};
    if (Clock::now() - start < kSpin) {
      sched_yield();
    } else {
      std::this_thread::sleep_for(kPause);
    }
  }
}

// Posts a message a peer (several beyond the size MPI can count) and nothing where both sides know
// that there are no bytes. Measured as fast as MPI_Alltoallv, whose displacements are ints.
Result<Traffic> MpiChannel::exchange(const std::byte* send, const Parts& send_parts,
                                     std::byte* recv, const Parts& recv_parts) {
  const Moving moving(*this);
  Traffic traffic;
  std::vector<MPI_Request> requests;
  const auto members = static_cast<std::size_t>(size());
  const auto own = static_cast<std::size_t>(index());
  for (std::size_t step = 1; step < members; ++step) {
    const std::size_t peer = (own + members - step) % members;
    std::byte* to = recv + recv_parts.offsets[peer];
    for (std::int64_t start = 0; start < recv_parts.bytes[peer];) {
      const auto piece = std::min(tuning().largest_message, recv_parts.bytes[peer] - start);
      TRY_MPI(MPI_Irecv(to + start, static_cast<int>(piece), MPI_BYTE, static_cast<int>(peer),
                        kDataTag, comm_, &requests.emplace_back()),
              membership().name);
      traffic.bytes_received += piece;
      start += piece;
    }
  }
  for (std::size_t step = 1; step < members; ++step) {
    const std::size_t peer = (own + step) % members;
    const std::byte* from = send + send_parts.offsets[peer];
    for (std::int64_t start = 0; start < send_parts.bytes[peer];) {
      const auto piece = std::min(tuning().largest_message, send_parts.bytes[peer] - start);
      TRY_MPI(MPI_Isend(from + start, static_cast<int>(piece), MPI_BYTE, static_cast<int>(peer),
                        kDataTag, comm_, &requests.emplace_back()),
              membership().name);
      traffic.bytes_sent += piece;
      start += piece;
    }
  }
  TRY_OK(finish(requests));
  return traffic;
}

// Polls with yields for 20 us, then sleeps between polls: 20 to 50 us, and after a long wait a
// sixteenth of it, up to 400 us, since each poll costs those who compute. After a tenth of a second
// it also looks, ten times a second, whether a member that has given up asks who is here.
Status MpiChannel::meet(const Card& mine, Card* cards) {
  constexpr auto kSpin = std::chrono::microseconds(20);
  constexpr auto kLongest = std::chrono::nanoseconds(400'000);
  constexpr auto kLook = std::chrono::milliseconds(100);
  op_key_ = mine.op_key;
  table_->mine = mine;
  table_->cards.resize(static_cast<std::size_t>(size()));
  MPI_Request request = MPI_REQUEST_NULL;
  TRY_MPI(MPI_Iallgather(&table_->mine, sizeof(Card), MPI_BYTE, table_->cards.data(), sizeof(Card),
                         MPI_BYTE, comm_, &request),
          membership().name);
  const auto start = Clock::now();
  auto look = start + std::min<std::chrono::nanoseconds>(kLook, tuning().stall_limit);
  std::chrono::nanoseconds pause = std::chrono::microseconds(20);
  while (true) {
    int done = 0;
    TRY_MPI(MPI_Test(&request, &done, MPI_STATUS_IGNORE), membership().name);
    if (done != 0) break;
    const auto now = Clock::now();
    if (now - start < kSpin) {
      sched_yield();
      continue;
    }
    if (now >= look) {
      if (now - start >= tuning().stall_limit) {
        TRY(const std::vector<std::int32_t> missing, call_the_roll());
        return stalled(mine.op_key, missing);
      }
      TRY_OK(answer_roll_call());
      look = std::min(now + kLook, start + tuning().stall_limit);
    }
    std::this_thread::sleep_for(pause);
    pause = std::clamp<std::chrono::nanoseconds>((now - start) / 16, pause, kLongest);
  }
  std::copy(table_->cards.begin(), table_->cards.end(), cards);
  return Ok{};
}

// Answers each member that asks who has come. The question is its op key: it may be an old one.
Status MpiChannel::answer_roll_call() {
  while (true) {
    int asked = 0;
    MPI_Status who;
    TRY_MPI(MPI_Iprobe(MPI_ANY_SOURCE, kRollCallTag, comm_, &asked, &who), membership().name);
    if (asked == 0) return Ok{};
    std::uint64_t key = 0;
    TRY_MPI(MPI_Recv(&key, sizeof(key), MPI_BYTE, who.MPI_SOURCE, kRollCallTag, comm_,
                     MPI_STATUS_IGNORE),
            membership().name);
    TRY_MPI(MPI_Send(&key, sizeof(key), MPI_BYTE, who.MPI_SOURCE, kHereTag, comm_),
            membership().name);
  }
}

// Nobody said who is missing so far, since the normal case shall not pay for it. Who waits too
// answers within a tenth of a second; who does not within a second is not here. The run is over
// then: what is in flight is left so.
Result<std::vector<std::int32_t>> MpiChannel::call_the_roll() {
  Table& table = *table_.release();
  table.question = table.mine.op_key;
  given_up_ = true;
  std::vector<bool> here(static_cast<std::size_t>(size()));
  here[static_cast<std::size_t>(index())] = true;
  for (std::int32_t member = 0; member < size(); ++member) {
    if (member == index()) continue;
    MPI_Request sent = MPI_REQUEST_NULL;
    TRY_MPI(MPI_Isend(&table.question, sizeof(table.question), MPI_BYTE, member, kRollCallTag,
                      comm_, &sent),
            membership().name);
    TRY_MPI(MPI_Request_free(&sent), membership().name);
  }
  const auto end = Clock::now() + std::chrono::seconds(1);
  while (Clock::now() < end) {
    TRY_OK(answer_roll_call());
    int answered = 0;
    MPI_Status who;
    TRY_MPI(MPI_Iprobe(MPI_ANY_SOURCE, kHereTag, comm_, &answered, &who), membership().name);
    if (answered == 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      continue;
    }
    std::uint64_t key = 0;
    TRY_MPI(
        MPI_Recv(&key, sizeof(key), MPI_BYTE, who.MPI_SOURCE, kHereTag, comm_, MPI_STATUS_IGNORE),
        membership().name);
    here[static_cast<std::size_t>(who.MPI_SOURCE)] = true;
  }
  std::vector<std::int32_t> missing;
  for (std::int32_t member = 0; member < size(); ++member) {
    if (!here[static_cast<std::size_t>(member)]) missing.push_back(member);
  }
  return missing;
}

std::optional<Error> MpiChannel::stuck(Clock::time_point now) const {
  const Clock::rep since = moving_since_;
  if (since == 0) return std::nullopt;
  const auto moving = now.time_since_epoch() - Clock::duration(since);
  if (moving < tuning().stall_limit) return std::nullopt;
  return Error::of(ErrorCode::kRun, membership().name,
                   "the data of op " + name_of_op(op_key_) + " have been moving for " +
                       format_seconds(Seconds(std::chrono::duration<double>(moving).count())),
                   "a member stopped inside the op, or the network did; where a transfer takes "
                   "this long, raise --stall-limit");
}

// Cristian's method: of many round trips to rank 0 the shortest bounds the error by half of it.
class ClockProbe {
 public:
  explicit ClockProbe(MPI_Comm comm) : comm_(comm) {}

  Result<ClockOffset> run(std::int32_t rank, std::int32_t world) {
    ClockOffset offset;
    for (std::int32_t other = 1; other < world; ++other) {
      if (rank == 0) TRY_OK(answer(other));
      if (rank == other) {
        TRY(offset, ask());
      }
    }
    TRY_MPI(MPI_Barrier(comm_), kWhere);
    return offset;
  }

 private:
  static constexpr int kRounds = 50;
  static constexpr const char* kWhere = "clock";

  static std::int64_t now() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch())
        .count();
  }
  Status answer(std::int32_t other) {
    for (int round = 0; round < kRounds; ++round) {
      TRY_MPI(MPI_Recv(nullptr, 0, MPI_BYTE, other, kClockTag, comm_, MPI_STATUS_IGNORE), kWhere);
      const std::int64_t time = now();
      TRY_MPI(MPI_Send(&time, 1, MPI_INT64_T, other, kClockTag, comm_), kWhere);
    }
    return Ok{};
  }
  Result<ClockOffset> ask() {
    std::int64_t shortest = INT64_MAX;
    ClockOffset best;
    for (int round = 0; round < kRounds; ++round) {
      std::int64_t time = 0;
      const std::int64_t before = now();
      TRY_MPI(MPI_Send(nullptr, 0, MPI_BYTE, 0, kClockTag, comm_), kWhere);
      TRY_MPI(MPI_Recv(&time, 1, MPI_INT64_T, 0, kClockTag, comm_, MPI_STATUS_IGNORE), kWhere);
      const std::int64_t after = now();
      if (after - before >= shortest) continue;
      shortest = after - before;
      best = {time - (before + shortest / 2), (shortest + 1) / 2};
    }
    return best;
  }

  MPI_Comm comm_;
};

class Mpi final : public Communicator {
 public:
  explicit Mpi(MpiWorld self) : self_(self) {}

  Status open(const std::vector<Group>& groups, const std::vector<ChannelId>& channels,
              const CommTuning& tuning);

  std::int32_t rank() const override { return self_.rank; }
  std::int32_t world() const override { return self_.size; }
  Channel& channel(Lane lane, std::int32_t group) override {
    const auto found = channels_.find({lane, group});
    CHECK(found != channels_.end(), "a channel that was not asked for");
    return *found->second;
  }
  Result<ClockOffset> clock_offset() override {
    return ClockProbe(MPI_COMM_WORLD).run(self_.rank, self_.size);
  }

  void abort(const Error& error) override { mpi_abort(error); }

 private:
  MpiWorld self_;
  void watch(const std::function<void(const Error&)>& on_stall) const;

  std::map<ChannelId, std::unique_ptr<MpiChannel>> channels_;
  std::unique_ptr<Watch> watch_;  // last: it looks at the channels
};

// Data move by calls that block; a thread of their own sees when they do not come back.
void Mpi::watch(const std::function<void(const Error&)>& on_stall) const {
  const auto now = Clock::now();
  for (const auto& [id, channel] : channels_) {
    const std::optional<Error> error = channel->stuck(now);
    if (error) on_stall ? on_stall(*error) : mpi_abort(*error);
  }
}

Status Mpi::open(const std::vector<Group>& groups, const std::vector<ChannelId>& channels,
                 const CommTuning& tuning) {
  for (const ChannelId id : channels) {
    CHECK(id.group >= 0 && id.group < std::ssize(groups), "a channel of no group");
    const Group& group = groups[static_cast<std::size_t>(id.group)];
    Membership member = Membership::of(id.lane, group, self_.rank);
    MPI_Comm comm = MPI_COMM_NULL;
    if (group.size > 1) {
      TRY_MPI(MPI_Comm_split(MPI_COMM_WORLD, member.first, member.index, &comm), member.name);
      TRY_MPI(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN), member.name);
      TRY_MPI(MPI_Comm_set_name(comm, member.name.c_str()), member.name);
    }
    channels_.emplace(id, std::make_unique<MpiChannel>(std::move(member), tuning, comm));
  }
  watch_ = std::make_unique<Watch>(
      std::clamp<std::chrono::nanoseconds>(tuning.stall_limit / 4, std::chrono::milliseconds(1),
                                           std::chrono::seconds(1)),
      [this, on_stall = tuning.on_stall] { watch(on_stall); });
  return Ok{};
}

}  // namespace

Result<MpiWorld> mpi_world() {
  int initialized = 0;
  MPI_Initialized(&initialized);
  if (initialized == 0) {
    // Ranks share cores, and Open MPI cannot always tell: without it a wait costs milliseconds.
    setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
    int provided = MPI_THREAD_SINGLE;
    TRY_MPI(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided), "MPI_Init_thread");
    TRY_MPI(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Init_thread");
  }
  int level = MPI_THREAD_SINGLE;
  TRY_MPI(MPI_Query_thread(&level), "MPI_Query_thread");
  if (level < MPI_THREAD_MULTIPLE) {
    return Error::of(ErrorCode::kRun, "MPI", "this MPI does not serve several threads",
                     "use an MPI built with MPI_THREAD_MULTIPLE (Debian's Open MPI is)");
  }
  MpiWorld self;
  TRY_MPI(MPI_Comm_rank(MPI_COMM_WORLD, &self.rank), "MPI");
  TRY_MPI(MPI_Comm_size(MPI_COMM_WORLD, &self.size), "MPI");
  return self;
}

std::string host_name() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "unknown";
}

void mpi_finish() {
  if (is_open()) MPI_Finalize();
}

void mpi_abort(const Error& error) {
  // Held until the process ends: a second thread must not end it before the words are out.
  static std::mutex one;
  one.lock();
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  const std::string text = "rank " + std::to_string(rank) + ": " + error.text();
  std::fputs(text.c_str(), stderr);
  std::fflush(stderr);
  MPI_Abort(MPI_COMM_WORLD, static_cast<int>(error.code));
}

Status mpi_agree(const Status& mine, std::uint64_t fingerprint) {
  TRY(const MpiWorld self, mpi_world());
  // Where this call itself fails, nobody can be told but by ending all.
  const auto must = [](int code) {
    if (code != MPI_SUCCESS) mpi_abort(mpi_error(code, "before the run"));
  };
  int failed = mine.ok() ? 0 : 1;
  must(MPI_Allreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD));
  if (failed == 0) {
    std::uint64_t extremes[2] = {fingerprint, ~fingerprint};  // the second: of the least
    must(MPI_Allreduce(MPI_IN_PLACE, extremes, 2, MPI_UINT64_T, MPI_MAX, MPI_COMM_WORLD));
    if (extremes[0] == ~extremes[1]) return Ok{};
    Error differ = Error::of(ErrorCode::kInvalid, "MPI", "the ranks were given different plans",
                             "give every node the same plan file");
    if (self.rank != 0) differ.problems.clear();
    return differ;
  }
  int first = mine.ok() ? self.size : self.rank;
  must(MPI_Allreduce(MPI_IN_PLACE, &first, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD));
  int code = mine.ok() ? 0 : static_cast<int>(mine.error().code);
  must(MPI_Bcast(&code, 1, MPI_INT, first, MPI_COMM_WORLD));
  // Among several hosts, the one where a file is missing.
  const std::string host = host_name();
  const std::uint64_t hash = std::hash<std::string>()(host);
  std::uint64_t hosts[2] = {hash, ~hash};
  must(MPI_Allreduce(MPI_IN_PLACE, hosts, 2, MPI_UINT64_T, MPI_MAX, MPI_COMM_WORLD));
  const bool several = hosts[0] != ~hosts[1];
  if (self.rank != first) return Error{static_cast<ErrorCode>(code), {}};
  Error error = mine.error();
  for (Problem& problem : error.problems) {
    if (failed == self.size) break;
    const std::string who =
        "rank " + std::to_string(self.rank) + (several ? " on " + host : std::string());
    problem.where = problem.where.empty() ? who : who + ": " + problem.where;
  }
  return error;
}

Result<std::unique_ptr<Communicator>> make_mpi(const std::vector<Group>& groups,
                                               const std::vector<ChannelId>& channels,
                                               std::int32_t world, const CommTuning& tuning) {
  TRY(const MpiWorld self, mpi_world());
  if (self.size != world) {
    return Error::of(ErrorCode::kInvalid, "MPI",
                     "the plan is for " + std::to_string(world) + " ranks, but " +
                         std::to_string(self.size) + " were started",
                     "start it with mpirun -np " + std::to_string(world));
  }
  check_groups(groups, world);
  CHECK(tuning.largest_message >= 1 && tuning.largest_message <= INT_MAX, "MPI counts in ints");
  auto mpi = std::make_unique<Mpi>(self);
  TRY_OK(mpi->open(groups, channels, tuning));
  return std::unique_ptr<Communicator>(std::move(mpi));
}

}  // namespace orrery::engine
