// The back ends of a device under mpirun, over stand-ins of the vendors' libraries that are loaded
// as the real ones would be: every lane at once on a stream of its own, held against brute force.
// Prints what is wrong; exit 1. Usage: mpirun -np N test_comm_stream nccl|hccl [absent|fail]
#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/comm/stream_communicator.h"
#include "tests/engine/comm_cases.h"
#include "tests/engine/fake_stream.h"

namespace orrery::engine {
namespace {

std::mutex report_mutex;
int failures = 0;

void report(std::int32_t rank, const std::string& what) {
  const std::lock_guard lock(report_mutex);
  ++failures;
  std::fprintf(stderr, "rank %d: %s\n", rank, what.c_str());
}

// A channel whose calls return when the stream has passed them.
class Waiting final : public Channel {
 public:
  Waiting(StreamChannel& channel, test::FakeStream& stream) : channel_(channel), stream_(stream) {}

  std::int32_t size() const override { return channel_.size(); }
  std::int32_t index() const override { return channel_.index(); }
  Result<Traffic> all_gather(const void* send, void* recv, std::int64_t bytes) override {
    return waited(channel_.all_gather(send, recv, bytes, stream_.handle()));
  }
  Result<Traffic> reduce_scatter(const void* send, void* recv, std::int64_t count,
                                 DType dtype) override {
    return waited(channel_.reduce_scatter(send, recv, count, dtype, stream_.handle()));
  }
  Result<Traffic> all_reduce(void* data, std::int64_t count, DType dtype) override {
    return waited(channel_.all_reduce(data, count, dtype, stream_.handle()));
  }
  Result<Traffic> all_to_all_v(const void* send, const std::vector<std::int64_t>& send_bytes,
                               void* recv, const std::vector<std::int64_t>& recv_bytes) override {
    return waited(channel_.all_to_all_v(send, send_bytes, recv, recv_bytes, stream_.handle()));
  }
  Status rendezvous(const Intent&) override { return Ok{}; }

 private:
  Result<Traffic> waited(Result<Traffic> result) {
    stream_.synchronize();
    return result;
  }
  StreamChannel& channel_;
  test::FakeStream& stream_;
};

Status run_lane(StreamCommunicator& device, std::int32_t rank, Lane lane,
                const std::vector<Group>& groups) {
  test::FakeStream stream(static_cast<std::uint64_t>(rank * 10 + static_cast<int>(lane)));
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    for (std::size_t g = 0; g < groups.size(); ++g) {
      const Group& group = groups[g];
      const std::uint64_t own = seed + 1000 * static_cast<std::uint64_t>(lane);
      Waiting channel(device.channel(lane, static_cast<std::int32_t>(g)), stream);
      TRY(const auto actual, test::run_script(channel, own, group.first_of(rank), group.stride));
      const auto expected = test::expected_outcome(own, group.size, group.index_of(rank),
                                                   group.first_of(rank), group.stride);
      const std::string wrong = test::difference_but_rounding(actual, expected, group.size);
      if (!wrong.empty()) report(rank, group.name + ": " + wrong);
    }
  }
  return device.health();
}

// Calls only enqueue: a value set later in the stream's past is the one that is summed, and a
// second sum builds on the first without the host between them.
void check_order(StreamCommunicator& device, std::int32_t rank, std::int32_t world) {
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    test::FakeStream compute(seed), lane(seed + 50);
    std::vector<float> data(1000, -1.0f);
    compute.enqueue([&] { std::fill(data.begin(), data.end(), static_cast<float>(rank + 1)); });
    lane.wait_for(compute.record());
    StreamChannel& channel = device.channel(Lane::kFsdp, 0);
    for (int i = 0; i < 2; ++i) {
      const auto sum = channel.all_reduce(data.data(), 1000, DType::kFloat32, lane.handle());
      if (!sum.ok()) report(rank, sum.error().text());
    }
    compute.wait_for(lane.record());
    compute.enqueue([&] { data[0] += 1; });
    compute.synchronize();
    const auto expected = static_cast<float>(world * world * (world + 1) / 2);
    if (data[0] != expected + 1 || data[999] != expected) {
      report(rank, "streams and collectives out of order: " + std::to_string(data[999]));
    }
  }
}

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

// A library that is not there, and one whose call fails: errors with the loader's and its words.
int check_error(const Result<std::unique_ptr<StreamCommunicator>>& made, bool absent, bool nccl) {
  if (absent) {
    if (made.ok() || made.error().code != ErrorCode::kIo ||
        !contains(made.error().text(), "no_such_library.so") ||
        !contains(made.error().text(), nccl ? "ORRERY_NCCL_LIBRARY" : "HCCL_LIBRARY")) {
      report(0, "an absent library: " + (made.ok() ? "accepted" : made.error().text()));
    }
    return failures;
  }
  if (nccl) {  // its first call is that for an id
    if (made.ok() || !contains(made.error().text(), "ncclGetUniqueId: unhandled system error") ||
        !contains(made.error().text(), "told to fail")) {
      report(0, "a failing call: " + (made.ok() ? "accepted" : made.error().text()));
    }
    return failures;
  }
  float data[4] = {};
  const auto sent = made.value()->channel(Lane::kFsdp, 0).all_gather(data, data, 4, nullptr);
  if (sent.ok() || !contains(sent.error().text(), "HcclAllGather: remote rank failed")) {
    report(0, "a failing call: " + (sent.ok() ? "accepted" : sent.error().text()));
  }
  return failures;
}

int run(bool nccl, const std::string& mode) {
  const auto self = mpi_world();
  if (!self.ok()) return 1;
  const std::int32_t world = self.value().size, rank = self.value().rank;
  const std::vector<Group> groups = test::groups_of(world);
  {
    const std::vector<ChannelId> pairs = all_channels(groups);
    auto host = make_mpi(groups, pairs, world);
    if (!host.ok()) return 1;
    auto device = nccl ? make_nccl(pairs, *host.value()) : make_hccl(pairs, *host.value());
    if (!mode.empty()) return check_error(device, mode == "absent", nccl) == 0 ? 0 : 1;
    if (!device.ok()) {
      report(rank, device.error().text());
      return 1;
    }
    std::vector<std::thread> lanes;
    for (const Lane lane : kNetworkLanes) {
      lanes.emplace_back([&, lane] {
        const Status status = run_lane(*device.value(), rank, lane, groups);
        if (!status.ok()) report(rank, status.error().text());
      });
    }
    for (std::thread& lane : lanes) lane.join();
    check_order(*device.value(), rank, world);
  }
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace orrery::engine

int main(int argc, char** argv) {
  const bool nccl = argc > 1 && std::strcmp(argv[1], "nccl") == 0;
  const int code = orrery::engine::run(nccl, argc > 2 ? argv[2] : "");
  orrery::engine::mpi_finish();
  return code;
}
