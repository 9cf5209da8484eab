// See speed.h.
#include "simulator/stages/speed.h"

namespace orrery::simulator {
namespace {

// Keys that a token attends to in the mean, itself among them.
double mean_attended(const Job& job) {
  const auto tokens = static_cast<double>(job.sequence_tokens);
  if (job.documents.empty()) return (tokens + 1) / 2;
  double pairs = 0;
  for (const std::int64_t d : job.documents) pairs += static_cast<double>(d * (d + 1)) / 2;
  return pairs / tokens;
}

}  // namespace

double tokens_a_step(const Job& job) {
  return static_cast<double>(job.sequence_tokens) * static_cast<double>(job.global_sequences);
}

FlopsPerSecond peak_of(const Job& job) {
  const DeviceProfile& d = job.cluster.device;
  switch (job.precision) {
    case Precision::kFp8:
      return d.peak_fp8;
    case Precision::kFp32:
      return d.peak_fp32;
    case Precision::kFp16:
      return d.peak_fp16;
    case Precision::kTf32:
      return d.peak_tf32;
    case Precision::kBf16:
      break;
  }
  return d.peak_bf16;
}

double least_device_seconds_a_token(const Job& job) {
  return training_flops_per_token(job.model, mean_attended(job)) / peak_of(job).value();
}

double mfu(const Job& job, Seconds step) {
  if (peak_of(job).value() <= 0) return 0;
  return least_device_seconds_a_token(job) * tokens_a_step(job) /
         (step.value() * static_cast<double>(job.cluster.devices));
}

}  // namespace orrery::simulator
