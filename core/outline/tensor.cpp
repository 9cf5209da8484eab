// The tensor axis: its ranks part the columns of one product and the rows of the next, so rows are
// gathered (or copied) before and summed after (Shoeybi 2019); with sequence parallel they part the
// rows of everything between (Korthikanti 2022).
#include "core/outline/builder.h"

namespace orrery::outline {

double residual_rows(const Job& job) {
  return rows_of(job) / (job.sequence_parallel ? static_cast<double>(job.layout.tp) : 1);
}

double gathered_share(const Job& job, const Task& t) {
  return job.precision == Precision::kFp8 && t.axis == Axis::kTensor ? 0.5 : 1;
}

void enter(const Job& job, Builder& b, const char* name) {
  if (job.layout.tp == 1) return;
  const double elements = rows_of(job) * static_cast<double>(job.model.hidden);
  const bool beside = job.stack.overlaps_tensor;
  if (job.sequence_parallel) {
    Task& t = b.collective(name, CollectiveKind::kAllGather, Axis::kTensor, elements, beside);
    t.bytes *= gathered_share(job, t);
    b.input_parts = static_cast<double>(job.layout.tp);
  } else {
    b.collective(name, CollectiveKind::kAllReduce, Axis::kTensor, elements).backward_only = true;
  }
}

void leave(const Job& job, Builder& b, const char* name) {
  b.input_parts = 1;
  if (job.layout.tp == 1) return;
  const double elements = rows_of(job) * static_cast<double>(job.model.hidden);
  b.collective(name,
               job.sequence_parallel ? CollectiveKind::kReduceScatter : CollectiveKind::kAllReduce,
               Axis::kTensor, elements, job.stack.overlaps_tensor);
}

}  // namespace orrery::outline
