// The executor's insides, shared by executor*.cpp. Not for other folders.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "engine/torch/device.h"
#include "engine/torch/executor.h"
#include "engine/torch/interpreter.h"
#include "engine/torch/metered_allocator.h"

namespace orrery::engine {

// What a buffer holds: a tensor, or the tape of a block.
struct Slot {
  at::Tensor tensor;
  std::unique_ptr<Tape> tape;
  std::int64_t bytes = 0;      // as the meter counted them
  std::int32_t parts_due = 0;  // of an exchange that writes it in parts: those not yet posted
};

// The places of kNumMetrics.
enum Metric : std::size_t { kLoss, kBalance, kZ, kSquaredNorm, kWorldCheck };
static_assert(kWorldCheck + 1 == kNumMetrics);

// Where a block's parameter stands in the flat storage of one of its op's units.
struct ParamPlace {
  std::size_t unit = 0;  // index into Op::units
  std::int64_t offset = 0, numel = 0;
};

// The numbers of one optimizer step.
struct AdamStep {
  double clip, lr, beta1, beta2, eps, correction1, correction2;
};
// executor_device.cpp: the same update as the loops of executor_update.cpp, by launched operations
// on flat tensors of one dtype.
void launch_adamw(const AdamStep& s, double decay, const at::Tensor& g, const at::Tensor& w,
                  const at::Tensor& m, const at::Tensor& v);

class ExecutorImpl final : public Executor {
 public:
  ExecutorImpl(const Program& program, std::int32_t rank, Communicator& communicator,
               TraceSink& trace, const ExecutorOptions& options);
  ~ExecutorImpl() override;

  Status initialize();
  Result<StepResult> run_step(std::int32_t step, const std::vector<MicroBatch>& batch) override;
  at::Tensor shard(std::int32_t unit) const override;
  std::vector<at::Tensor> router_biases() const override;
  std::int64_t live_bytes() const override { return meter_->live() + host_meter_->live(); }

 private:
  // executor.cpp: the walk.
  Status fill_state();
  Status walk(const std::vector<MicroBatch>& batch);
  Status run_compute(OpId id, const std::vector<MicroBatch>& batch);
  Status compute(const Op& op, const std::vector<MicroBatch>& batch);
  Status post(OpId id);
  Status wait_for(OpId id);
  std::vector<LanePoint> moments(const std::vector<OpId>& ops) const;
  Status wait_for_host(const Op& op);
  void expect_complete(const Op& op) const;
  void free_buffers(OpId id);
  Status nothing_left() const;
  void drop_step();
  void end_step(StepResult& result);
  Error at_op(const Op& op, const Error& error) const;

  // executor_blocks.cpp: ops that run a block.
  void forward(const Op& op);
  void backward(const Op& op);
  void forward_backward(const Op& op);
  BlockContext context_of(const Op& op, BufferId received) const;
  ParamPlace place_of(const Op& op, const BlockParam& wanted) const;
  void add_loss(const Op& op, const Block& block, const std::vector<at::Tensor>& outputs);
  ParamResolver params_of(const Op& op, const Block& block) const;
  ParamResolver grads_of(const Op& op, const Block& block);

  // executor_comm.cpp: collectives and copies, run by the thread of their lane.
  Device::Job lane_job(OpId id);
  Status run_copy(OpId id, std::int32_t step, std::int64_t enqueued);
  Status run_collective(OpId id, std::int32_t step, std::int64_t enqueued);
  Result<Traffic> communicate(const Op& op, Channel& channel);
  Result<Traffic> exchange_counts(const Op& op, Channel* channel);
  void record_counts(const Op& op, const std::int64_t* sent, const std::int64_t* got);
  Result<Traffic> all_to_all(const Op& op, Channel& channel);
  Result<Traffic> all_to_all_v(const Op& op, Channel& channel);
  Result<Traffic> count_tokens(const Op& op, Channel& channel);
  void allocate_outputs(const Op& op);
  // executor_intent.cpp
  struct MemberBytes {
    std::vector<std::int64_t> to, from;
  };
  std::int64_t part_bytes(const Op& op, std::int32_t part, std::int32_t var) const;
  MemberBytes exchanged_bytes(const Op& op) const;
  Intent intent_of(const Op& op, const Channel& channel) const;

  // executor_device.cpp: what is done otherwise where jobs only launch.
  struct Launched {
    OpId op = -1;
    std::int64_t enqueued = 0;
    Traffic traffic;
  };
  // Counts on their way to the host: own ones, and those received.
  struct DueCounts {
    const Op* op = nullptr;
    at::Tensor sent, received;
  };
  void learn_counts(const Op& op);
  Status launch_collective(OpId id, std::int64_t enqueued);
  Result<Traffic> launch_counts(const Op& op, Channel& channel);
  Result<Traffic> launch_labels(const Op& op, Channel& channel);
  Result<Traffic> launch_metrics(const Op& op, Channel& channel);
  void launch_norm(const Op& op);
  void launch_bias(const Op& op);
  void trace_launched();
  bool on_host(BufferId b) const;
  Lane pool_of(BufferId b) const;

  // executor_update.cpp: everything else.
  void load_batch(const Op& op, const std::vector<MicroBatch>& batch);
  std::vector<std::int64_t> own_part(const std::vector<std::int64_t>& rows,
                                     std::int64_t padding) const;
  void unshard(const Op& op);
  void accumulate(const Op& op);
  void add_loads(const Op& op);
  void grad_norm(const Op& op);
  bool finite_norm(const Op& op);
  void update_bias(const Op& op);
  void optimizer_step(const Op& op);

  const Buffer& buffer(BufferId b) const { return role_.buffers[static_cast<std::size_t>(b)]; }
  const Block& block(const Op& op) const {
    return role_.blocks[static_cast<std::size_t>(op.block)];
  }
  const Unit& unit(std::int32_t u) const { return role_.units[static_cast<std::size_t>(u)]; }
  const Group& group(std::int32_t g) const { return program_.groups[static_cast<std::size_t>(g)]; }
  // The tensor a buffer holds; throws where nothing wrote it (a program that lacks an op).
  const at::Tensor& value(BufferId b) const;
  // The same, allocated as zeros at its first use in the step.
  at::Tensor& accumulator(BufferId b);
  // Of the pool of the buffer's memory space.
  at::Tensor allocate(BufferId b) const;
  void put(BufferId b, at::Tensor tensor);
  void record_alloc(BufferId b, std::int64_t delta);

  const Program& program_;
  const Role& role_;
  const std::int32_t rank_;
  Communicator& communicator_;
  TraceSink& trace_;
  const ExecutorOptions options_;
  std::shared_ptr<MemoryMeter> meter_, host_meter_;
  std::vector<Slot> slots_;
  std::shared_ptr<Device> device_;
  std::vector<LanePoint> points_;    // by op: when it has ended
  std::vector<Launched> launched_;   // of this step, for its trace; only where jobs launch
  std::vector<DueCounts> due_;       // the same
  at::Tensor host_metrics_;          // the same: what the world's metrics come back to
  std::vector<OpId> host_producer_;  // by buffer: the host_sync op that writes it
  std::array<std::vector<std::int64_t>, kNumLanes> sequence_;      // collectives so far, by group
  std::vector<std::vector<std::vector<std::int64_t>>> documents_;  // by micro-batch
  Binding binding_;
  std::int32_t step_ = 0;
  OpId current_ = -1;                // before a step: outside it, as Buffer::taken_by says
  std::int64_t op_taken_ = 0;        // bytes of the buffers the current op has taken
  std::int64_t workspace_peak_ = 0;  // most that an op of this step needed beside its buffers
  std::int64_t updates_ = 0;         // optimizer steps done
  bool counted_ = false;             // this step is among them
  bool updated_ = true;
  std::int32_t all_local_experts_ = 0;             // in all parts of an exchange
  double labels_ = 0;                              // of the world, in this step
  std::array<double, kNumMetrics> result_sums_{};  // as the world reduced them
};

// executor_init.cpp: fills a shard of a unit with the initial weights of its part of the world.
void initialize_shard(const Program& program, const Unit& unit, std::int32_t rank,
                      std::uint64_t seed, double std_dev, at::Tensor& shard);

}  // namespace orrery::engine
