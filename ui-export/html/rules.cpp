// See rules.h.
#include "ui-export/html/rules.h"

#include <algorithm>
#include <map>

namespace orrery::html {

std::string rule_words(const std::string& rule) {
  static const std::map<std::string, std::string> words = {
      {"world", "the axes do not multiply to the number of devices"},
      {"world_size", "the axes do not multiply to the number of devices"},
      {"world_factors", "sharding and replicas do not multiply to the data axis"},
      {"expert_world_factors", "the axes of the experts do not multiply to the number of devices"},
      {"batch", "the batch does not divide over data ranks and micro-batches"},
      {"batch_divides", "the batch does not divide over data ranks and micro-batches"},
      {"heads_divide", "the attention heads do not divide over the ranks"},
      {"layers_divide", "more pipeline stages than layers"},
      {"stage_layers", "the layers of the stages do not add up"},
      {"schedule", "the schedule does not take so many stages or micro-batches"},
      {"experts_divide", "the experts do not divide over the expert ranks"},
      {"ep_without_experts", "expert ranks of a model without experts"},
      {"context", "a sequence does not divide over the context ranks"},
      {"sharding", "shards and replicas do not multiply to the data axis"},
      {"documents", "the documents do not fill a sequence"},
      {"tensor_domain", "tensor ranks beyond the innermost links: not worth looking at"},
      {"context_rows", "fewer than 256 rows of a sequence a rank: not worth looking at"},
      {"micro_batch_tokens", "micro-batches of more than 65,536 tokens: not worth looking at"},
      {"engine_axes", "an axis that the engine does not run"},
      {"dispatcher", "a dispatcher that needs several expert ranks"},
      {"chunk_ranges", "a chunk larger than what it cuts"},
      {"exchange_parts", "expert exchanges cut into parts that the experts do not divide into"},
      {"recompute_range", "more layers run again than there are"},
      {"swap_range", "more layers swapped than are run again"},
      {"keep_range", "more layers kept gathered than there are"},
      {"host_memory", "the host has no memory for what would move there"},
      {"memory", "legal, but found not to fit in a device's memory"}};
  if (const auto found = words.find(rule); found != words.end()) return found->second;
  std::string plain = rule;
  std::replace(plain.begin(), plain.end(), '_', ' ');
  return plain;
}

}  // namespace orrery::html
