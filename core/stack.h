// Stack: a training framework of a release, by what it does where a run's description is silent,
// and by what it costs beyond device and links. One file each in configs/stacks, which also says
// what published runs call it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/result.h"
#include "core/units.h"

namespace orrery {

enum class AttentionKernel : std::uint8_t {
  kUnfused,       // scores in memory
  kFusedSoftmax,  // the same with masks, scale and softmax in one kernel
  kFlash,         // scores never in memory (FlashAttention 1 and 2)
  kFlashAsync,    // the same with Hopper's asynchronous units (FlashAttention 3, cuDNN 9)
};
// "unfused", "fused_softmax", "flash", "flash_async"
const char* name_of(AttentionKernel kernel);
inline bool is_flash(AttentionKernel kernel) {
  return kernel == AttentionKernel::kFlash || kernel == AttentionKernel::kFlashAsync;
}

// What the loss keeps of the logits.
enum class LossKernel : std::uint8_t {
  kTorch,    // cross_entropy of PyTorch: log-probabilities in fp32, and gradients beside them
  kInPlace,  // Megatron's: one fp32 copy becomes probabilities, then gradients
  kFused,    // logits as they are, and their gradients
  kChunked,  // some rows at a time, gradients at once
};
const char* name_of(LossKernel kernel);  // "torch", "in_place", "fused", "chunked"

// A way in which runs name a stack: every word occurs in what the run says of its framework, in
// either case, and its date lies between `from` and `until` ("2024-03"; empty: open).
struct StackMatch {
  std::vector<std::string> words;
  std::string from, until;
  bool operator==(const StackMatch&) const = default;
};

struct Stack {
  std::string name;
  std::string family;  // whose prior its parameters start from: "megatron", "fsdp", ...
  // What it does, from its documentation (each file's "source").
  AttentionKernel attention = AttentionKernel::kFlash;
  bool fuses_sinks = false;          // flash kernels know sinks: an assumption that most do not
  bool fused_passes = true;          // element-wise neighbours in one kernel
  bool overlaps_gradients = true;    // reduction of gradients beside the last backward
  bool overlaps_parameters = false;  // gathering of updated parameters beside the first forward
  bool overlaps_tensor = false;      // collectives of the tensor axis beside products, in parts
  bool overlaps_stages = true;       // sends between stages beside compute
  bool overlaps_experts = false;     // exchanges of one micro-batch beside another's compute
  bool fp32_gradients = true;        // of the weights, summed and reduced so
  bool fp32_loss = true;             // logits are copied to fp32
  bool graphs = false;               // launches are captured once
  // Sums in the switches that can (LinkTier::in_network_reduction; NCCL's NVLS and CollNet).
  bool in_network_reduction = false;
  LossKernel loss = LossKernel::kInPlace;
  // At the step the 16 bit gradients that a rank updates are flattened and copied to fp32 (ZeRO 1
  // and 2 of DeepSpeed); else the optimizer reads the buffer that they were summed in.
  bool copies_gradients = false;
  bool fused_optimizer = true;       // else AdamW's two temporaries, of all that a rank updates
  bool fused_sums = true;            // products add to the summed gradients, none in between
  bool keeps_stage_outputs = true;   // what a stage has sent on, until its backward
  bool keeps_expert_outputs = true;  // weighted by the router behind the experts' last product
  // Of sharded parameters, as many at most are gathered at a time; 0: a layer and the one ahead.
  std::int64_t live_parameters = 0;
  std::string recompute = "none";         // in the words of published runs (validation/words.h)
  std::string selective = "core_attn";    // what "selective" alone means: the same, or "op"
  std::string dispatcher = "all_to_all";  // as Layout::dispatcher, or "deduplicated"
  std::int64_t micro_batch = 1;           // sequences
  std::string positions = "learned";      // of models with plain MLPs: "learned", "alibi"
  std::vector<StackMatch> frameworks;     // how runs name it
  std::string released;                   // "2024-07"
  std::string source;                     // of what stands above
  // Free parameters of the stack (simulator/stages/parameters.h has meaning, range and prior).
  double host_per_kernel_s = 30e-6;
  double pass_factor = 1;       // bytes of element-wise passes over what they cannot avoid
  double product_factor = 1;    // time of products over that of the device's curve
  double attention_factor = 1;  // the same of attention
  double exposed_share = 0.1;   // of what is overlapped, the part that is not hidden
  double step_s = 0.01;         // of each step, beyond its ops: data, logging, host
  double straggle = 0.01;       // relative, a doubling of the ranks that wait for each other
  double reserve_bytes = 2e9;   // context, communicators and libraries: not the allocator's
  double fragmentation = 1.1;   // what the allocator takes over what comes and goes in a step
  bool operator==(const Stack&) const = default;
};

// One free parameter: its member, its key in a file, and the physical range that a file may give.
// What they mean: simulator/stages/parameters.h.
struct StackParameter {
  const char* name;
  double Stack::*member;
  double min, max;
};
const std::vector<StackParameter>& stack_parameters();

// `name` is a name in configs/stacks or a file.
Result<Stack> load_stack(const std::string& name);
Result<Stack> parse_stack(const std::string& text, const std::string& place);
Json to_json(const Stack& stack);
// Every one of configs/stacks, sorted by name.
Result<std::vector<Stack>> load_stacks();
// The stack that a run's words name: of all that match, the one with the most letters in its words,
// then the dated one, then by name. `date` is "2024", "2024-07" or empty. nullptr: none.
const Stack* choose_stack(const std::vector<Stack>& stacks, const std::string& words,
                          const std::string& date);

}  // namespace orrery
