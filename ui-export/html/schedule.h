// A pipeline's schedule as a picture: what each stage does from the first forward to the last
// backward.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/json.h"

namespace orrery::html {

enum class PictureKind { kForward, kBackward, kInputGradient, kWeightGradient };

struct PictureCell {
  std::int32_t stage = 0;
  PictureKind kind = PictureKind::kForward;
  std::int32_t chunk = 0, micro_batch = 0;
  double begin_s = 0, end_s = 0;
};

struct PipelinePicture {
  std::string name;
  std::int32_t stages = 1, virtual_stages = 1, micro_batches = 1;
  std::vector<PictureCell> cells;  // of each stage in order; two of one time run side by side
};

// {"name", "stages", "virtual_stages", "micro_batches", "end_s" (the last cell's), "idle_share" (of
//  all stages over that time), "scale" (what "at" and "lasts" count to), "shown" (stages),
//  "rows": [{"at", "lasts", "kind", "chunk", "micro_batch"}]}, lists by stage. Kinds as
//  PictureKind;
// 4: a forward beside a backward; 5: several cells with no wait between. Of more than 32 stages,
// some are left out; of more than 20,000 cells, neighbours are drawn as one.
Json schedule_json(const PipelinePicture& schedule, std::vector<std::string>& omitted);

}  // namespace orrery::html
