// Wall time of a long run: failures, restarts and checkpoints on top of the steps.
//
// Failures of a device are a Poisson process of mean time `device_mtbf` between them; any stops the
// run, which goes on from its last checkpoint after `restart`. With M the mean time between
// failures of the cluster, C the time that a save stops training and R the restart:
//   Young 1974    interval = sqrt(2 C M)
//   Daly 2006     interval = sqrt(2 C M) (1 + sqrt(C / 2M) / 3 + (C / 2M) / 9) - C, for C < 2 M;
//                 else M
//   Daly 2006     wall = M e^(R/M) (e^((interval + C) / M) - 1) solve / interval
// (J. W. Young, Comm. ACM 17(9), 1974; J. T. Daly, FGCS 22(3), 2006, equations 20 and 37.)
#pragma once

#include <cstdint>

#include "core/units.h"

namespace orrery::planner {

// 419 unexpected interruptions in 54 days on 16,384 H100 (The Llama 3 Herd of Models,
// arXiv:2407.21783, section 3.3.4): 50,700 hours a device.
inline constexpr double kDeviceMtbfSeconds = 54.0 * 86400 * 16384 / 419;
// To detect a failure, replace the device and start again: MegaScale (arXiv:2402.15627) reports
// less than ten minutes on more than 10,000 devices. The work lost since the save comes on top.
inline constexpr double kRestartSeconds = 600;
// Checkpoints are written at a storage rate that grows with the cluster: Llama 3 sustains 2 TB/s
// for 16,384 devices (section 3.3.1).
inline constexpr double kStoreBytesPerSecondADevice = 2e12 / 16384;

struct Reliability {
  Seconds device_mtbf{kDeviceMtbfSeconds};
  Seconds restart{kRestartSeconds};
  Seconds save{0};  // how long training stops for a checkpoint; 0: save_time() of what is trained
};

// What a run is made of: its step, and what a checkpoint of it holds.
struct RunFacts {
  Seconds step, p10, p90;
  std::int64_t tokens_a_step = 0, devices = 0;
  double checkpoint_bytes = 0;
};

// What a checkpoint holds, over the storage rate of the devices.
Seconds save_time(const RunFacts& facts);

Seconds young_interval(Seconds save, Seconds mtbf);
Seconds daly_interval(Seconds save, Seconds mtbf);
// Expected wall time of `solve` seconds of steps; infinite where failures come faster than any
// interval can be finished.
Seconds wall_time(Seconds solve, Seconds interval, Seconds save, Seconds restart, Seconds mtbf);

struct LongRun {
  std::int64_t tokens = 0, steps = 0;  // the last step may be half empty
  Seconds solve;                       // of the steps alone
  Seconds save, interval, mtbf;        // of the cluster
  Seconds wall;                        // expected
  Seconds wall_p10, wall_p90;          // at the ends of the step's interval
  double goodput = 0;                  // solve / wall
  double failures = 0;                 // expected
};

// A run of `tokens` > 0 by the predicted step, with Daly's interval.
LongRun run_of(const RunFacts& facts, std::int64_t tokens, const Reliability& reliability);

// The longest step with which the run's wall time is at most `limit`; 0 where none is.
Seconds longest_step(const RunFacts& facts, std::int64_t tokens, const Reliability& reliability,
                     Seconds limit);

}  // namespace orrery::planner
