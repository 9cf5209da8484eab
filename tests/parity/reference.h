// The reference of the parity tests: forward, backward and AdamW of Qwen3 (dense), Qwen3-MoE and
// dots.llm1 in plain double-precision loops, written from the mathematics and sharing nothing with
// the engine. Equations: Qwen3 technical report (arXiv 2505.09388); RMSNorm arXiv 1910.07467;
// rotary positions arXiv 2104.09864 (rotate-half); SwiGLU arXiv 2002.05202; AdamW arXiv 1711.05101;
// the sigmoid router with groups arXiv 2412.19437; its bias arXiv 2408.15664; z-loss arXiv
// 2202.08906.
//
//   x  = embed[ids];  per layer: x1 = x + attention(rms_norm(x)),  x2 = x1 + mlp(rms_norm(x1));
//   logits = head(rms_norm(x)),  loss = mean cross entropy over the labels that are not ignored.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/model.h"
#include "core/workload.h"

namespace orrery::reference {

// A label that asks for no prediction.
inline constexpr std::int64_t kIgnored = -100;

// Row-major tensors by name (shapes() lists them). Expert weights are stacked: [E, out, in].
using Parameters = std::map<std::string, std::vector<double>>;

// Rows of tokens; labels[i] is what the logits at i shall predict (already shifted). `documents`
// holds the lengths of each row's documents, which sum to `tokens`: positions and causality restart
// at each.
struct Batch {
  std::int64_t sequences = 0;
  std::int64_t tokens = 0;                           // of one sequence
  std::vector<std::int64_t> ids;                     // [sequences * tokens]
  std::vector<std::int64_t> labels;                  // [sequences * tokens]
  std::vector<std::vector<std::int64_t>> documents;  // [sequences][documents]
};

// The balancing loss sums, over MoE layers and groups g of the G groups of the batch,
//   coefficient * E / (k * T_g^2 * G) * sum_e n[g,e] * p[g,e],
// n = (token, slot) picks (no gradient), p = sum of the router's probabilities over the T_g tokens:
// the mean over groups of E * sum_e f_e * P_e. A group is a sequence, or a global micro-batch. The
// probabilities of a sigmoid router are its scores divided by their sum.
struct Options {
  bool balance = false;  // with model.balance_coefficient
  BalanceScope scope = BalanceScope::kSequence;
  std::vector<int> micro_batch_of_sequence;  // [sequences], from 0; only for kMicrobatchGlobal
  // z_loss * mean over tokens of log(sum_e exp(logit_e))^2, summed over MoE layers.
  double z_loss = 0;
  Parameters biases{};  // "layers.N.router_bias" [E] where the model has them; absent: zero
};

struct Output {
  double loss = 0;  // cross entropy; 0 if every label is ignored
  double balance_loss = 0;
  double z_loss = 0;
  std::vector<double> logits;                      // [sequences * tokens * V]
  Parameters grads;                                // of loss + balance_loss + z_loss
  double grad_norm = 0;                            // L2 over all of grads
  std::vector<std::vector<std::int64_t>> routing;  // a MoE layer: [sequences * tokens * k] experts,
                                                   // best choice first
};

// The parameters of a model and their shapes.
std::map<std::string, std::vector<std::int64_t>> shapes(const Model& model);

// CHECKs that parameters, ids, labels and documents fit the model and one another.
Output run(const Model& model, const Parameters& parameters, const Batch& batch,
           const Options& options);

// Loss-free balancing, once a step: with n_e the picks of expert e in `routing` (all tokens of the
// step), bias_e += speed * sign(mean of n - n_e).
void update_biases(const Model& model, const std::vector<std::vector<std::int64_t>>& routing,
                   double speed, Parameters& biases);

struct AdamState {
  Parameters m, v;  // created at the first step
};

// One step, `step` counted from 1: gradients are clipped to hyper.clip_norm by `grad_norm`; weight
// decay is decoupled and spares the parameters with "norm" in their name.
void adamw(Parameters& parameters, AdamState& state, const Parameters& grads, const AdamW& hyper,
           double grad_norm, std::int64_t step);

}  // namespace orrery::reference
