// Collectives of the host as jobs of fake streams.
#include <stdexcept>
#include <utility>

#include "core/program/wire.h"
#include "engine/comm/stream_channels.h"
#include "tests/engine/fake_device.h"
#include "tests/engine/fake_stream.h"

namespace orrery::engine::test {
namespace {

class FakeChannel final : public StreamChannel {
 public:
  FakeChannel(Communicator& communicator, Channel& channel)
      : communicator_(communicator), channel_(channel) {}

  std::int32_t size() const override { return channel_.size(); }
  std::int32_t index() const override { return channel_.index(); }

  Result<Traffic> all_gather(const void* send, void* recv, std::int64_t bytes,
                             StreamHandle stream) override {
    launch(stream, [=, this] { return channel_.all_gather(send, recv, bytes); });
    return traffic_of(all_gather_wire(size(), bytes));
  }
  Result<Traffic> reduce_scatter(const void* send, void* recv, std::int64_t count, DType dtype,
                                 StreamHandle stream) override {
    launch(stream, [=, this] { return channel_.reduce_scatter(send, recv, count, dtype); });
    return traffic_of(reduce_scatter_wire(size(), count, size_of(dtype)));
  }
  Result<Traffic> all_reduce(void* data, std::int64_t count, DType dtype,
                             StreamHandle stream) override {
    launch(stream, [=, this] { return channel_.all_reduce(data, count, dtype); });
    return traffic_of(all_reduce_wire(size(), count, size_of(dtype)));
  }
  Result<Traffic> all_to_all_v(const void* send, const std::vector<std::int64_t>& send_bytes,
                               void* recv, const std::vector<std::int64_t>& recv_bytes,
                               StreamHandle stream) override {
    launch(stream, [=, this] { return channel_.all_to_all_v(send, send_bytes, recv, recv_bytes); });
    return exchange_traffic(send_bytes, recv_bytes, index());
  }

 private:
  template <class Call>
  void launch(StreamHandle stream, Call call) {
    // Not through the entry's C function: a job that a failed stream drops must take its memory
    // along.
    FakeStream::of_handle(stream).enqueue([this, call = std::move(call)] {
      const Result<Traffic> moved = call();
      if (moved.ok()) return;
      communicator_.abort(moved.error());
      throw std::runtime_error(moved.error().text());
    });
  }

  Communicator& communicator_;
  Channel& channel_;
};

class FakeCollectives final : public StreamCommunicator {
 public:
  explicit FakeCollectives(Communicator& communicator) : communicator_(communicator) {}

  StreamChannel& channel(Lane lane, std::int32_t group) override {
    for (auto& row : channels_) {
      if (row.lane == lane && row.group == group) return *row.channel;
    }
    channels_.push_back(
        {lane, group,
         std::make_unique<FakeChannel>(communicator_, communicator_.channel(lane, group))});
    return *channels_.back().channel;
  }
  Status health() override { return Ok{}; }
  void abort() override {}

 private:
  struct Row {
    Lane lane;
    std::int32_t group;
    std::unique_ptr<FakeChannel> channel;
  };
  Communicator& communicator_;
  std::vector<Row> channels_;
};

}  // namespace

std::unique_ptr<StreamCommunicator> make_fake_collectives(Communicator& communicator) {
  return std::make_unique<FakeCollectives>(communicator);
}

}  // namespace orrery::engine::test
