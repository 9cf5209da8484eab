// Rules over outlines. See verify.h.
#include "core/outline/verify.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <string>
#include <string_view>
#include <tuple>

#include "core/check.h"
#include "core/outline/verify_forms.h"

namespace orrery::outline {
namespace {

bool near(double a, double b) {
  return std::abs(a - b) <= 1e-9 * std::max(std::abs(a), std::abs(b));
}

std::string number(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.10g", value);
  return text.data();
}

const char* name_of_axis(Axis axis) {
  constexpr std::array<const char*, kNumAxes> names = {
      "tensor", "context", "expert", "expert tensor", "stage", "data", "expert data", "sequence"};
  return names[static_cast<std::size_t>(axis)];
}

bool is_product(const Task& t) {
  return t.kind == TaskKind::kProduct || t.kind == TaskKind::kGrouped;
}

bool is_collective(const Task& t) {
  return t.kind == TaskKind::kCollective;
}

// One layer or end, with what is expected of it.
class Check {
 public:
  Check(const Job& job, std::string where, const Outline& outline, bool whole,
        std::vector<Violation>& found)
      : job_(job), where_(std::move(where)), o_(outline), whole_(whole), found_(found) {}

  void note(const char* rule, const std::string& reason) {
    found_.push_back({rule, where_ + ": " + reason});
  }
  void equal(const char* rule, const std::string& what, double is, double expected) {
    if (!near(is, expected)) note(rule, what + " is " + number(is) + ", not " + number(expected));
  }

  void flops(const Forms::Flops& expected);
  void recompute();
  void pairs();
  void kept(double input);
  void groups(const std::vector<Forms::Moved>& needed);

 private:
  // Op by op, in a layer.
  bool by_ops() const { return job_.recompute.ops && !whole_ && where_.front() == 'l'; }
  void recompute_ops();
  bool again(const Task& t) const { return whole_ || job_.recompute.again(t.module); }
  void backward_flops();
  void inputs_kept();

  const Job& job_;
  std::string where_;
  const Outline& o_;
  bool whole_;
  std::vector<Violation>& found_;
};

// By the parts of a layer that FLOPs are counted for.
Forms::Flops flops_by_part(const std::vector<Task>& tasks) {
  Forms::Flops sum;
  for (const Task& t : tasks) {
    if (t.flops > 0) sum[Forms::part_of(t.module)] += t.flops;
  }
  return sum;
}

void Check::flops(const Forms::Flops& expected) {
  Forms::Flops is = flops_by_part(o_.forward);
  const double ranks = Forms(job_).ranks();
  for (const auto& [part, flops] : expected) {
    equal("flops_conserved", part + " of " + number(ranks) + " ranks", is[part] * ranks, flops);
    is.erase(part);
  }
  for (const auto& [part, flops] : is) note("flops_conserved", part + " has no closed form");
  backward_flops();
}

void Check::backward_flops() {
  Forms::Flops expected;
  for (const Task& t : o_.forward) {
    if (t.flops <= 0) continue;
    const bool weights = t.module != Module::kCoreAttention;
    const double times =
        t.kind == TaskKind::kAttention ? 2.5 : (weights && job_.trains_adapters ? 1 : 2);
    expected[Forms::part_of(t.module)] += times * t.flops;
  }
  Forms::Flops is = flops_by_part(o_.backward);
  for (const auto& [part, flops] : expected) {
    equal("flops_conserved", part + " in backward", is[part], flops);
  }
}

// What is run again is forward's, in its order.
void Check::recompute() {
  if (by_ops()) {
    recompute_ops();
    return;
  }
  std::size_t at = 0;
  for (const Task& t : o_.forward) {
    if (!again(t)) continue;
    if (at == o_.again.size()) {
      note("recompute_exact", std::string(t.name) + " is not run again");
      return;
    }
    const Task& a = o_.again[at++];
    if (std::string_view(a.name) != t.name || a.flops != t.flops || a.bytes != t.bytes ||
        a.kind != t.kind || a.module != t.module) {
      note("recompute_exact", std::string("after ") + std::to_string(at - 1) + " tasks " + a.name +
                                  " stands where forward has " + t.name);
      return;
    }
  }
  if (at < o_.again.size()) {
    note("recompute_exact", std::string(o_.again[at].name) + " is run again and not named");
  }
}

// Half of each product, all passes and what brings rows to a rank; not attention, not sums.
void Check::recompute_ops() {
  Forms::Flops expected;
  for (const Task& t : o_.forward) {
    if (is_product(t)) expected[Forms::part_of(t.module)] += t.flops / 2;
  }
  Forms::Flops is = flops_by_part(o_.again);
  for (const auto& [part, flops] : expected) {
    equal("recompute_exact", part + " run again", is[part], flops);
    is.erase(part);
  }
  for (const auto& [part, flops] : is) note("recompute_exact", part + " is run again");
  const auto count = [](const std::vector<Task>& tasks, auto what) {
    return static_cast<double>(std::count_if(tasks.begin(), tasks.end(), what));
  };
  const auto passes = [](const Task& t) { return t.kind == TaskKind::kPass; };
  const auto brings = [](const Task& t) {
    return is_collective(t) && (t.collective == CollectiveKind::kAllGather ||
                                t.collective == CollectiveKind::kAllToAll);
  };
  equal("recompute_exact", "passes run again", count(o_.again, passes), count(o_.forward, passes));
  equal("recompute_exact", "gathers and exchanges run again", count(o_.again, brings),
        count(o_.forward, brings));
  equal("recompute_exact", "collectives run again", count(o_.again, is_collective),
        count(o_.again, brings));
}

using Carried = std::tuple<Axis, CollectiveKind, double>;

std::string words_of(const Carried& c) {
  constexpr std::array<const char*, 5> names = {"all-gather", "reduce-scatter", "all-reduce",
                                                "exchange", "ring"};
  return std::string(names[static_cast<std::size_t>(std::get<1>(c))]) + " of " +
         number(std::get<2>(c)) + " bytes on the " + name_of_axis(std::get<0>(c)) + " axis";
}

// Collectives of backward by what they carry; those that `forward` calls for, taken away.
void Check::pairs() {
  std::map<Carried, int> open;
  for (const Task& t : o_.backward) {
    if (is_collective(t)) ++open[{t.axis, t.collective, t.bytes}];
  }
  const auto take = [&](const Carried& c, const char* of) {
    if (--open[c] < 0) note("collective_pairs", words_of(c) + " is missing in backward of " + of);
  };
  // Rows of the tensor axis are gathered in the width of products, summed in 16 bit or more.
  const auto share = [&](Axis axis) {
    return axis == Axis::kTensor ? Forms(job_).gathered_bytes() / Forms(job_).row_bytes() : 1;
  };
  int sums = 0, rows = 0;
  for (const Task& t : o_.forward) {
    if (!is_collective(t)) continue;
    switch (t.collective) {
      case CollectiveKind::kAllGather:
        take({t.axis, CollectiveKind::kReduceScatter, t.bytes / share(t.axis)}, t.name);
        // Korthikanti 2022: what was gathered is not kept, and gathered again.
        if (t.axis == Axis::kTensor) take({t.axis, CollectiveKind::kAllGather, t.bytes}, t.name);
        break;
      case CollectiveKind::kReduceScatter:
        take({t.axis, CollectiveKind::kAllGather, t.bytes * share(t.axis)}, t.name);
        break;
      case CollectiveKind::kRing:
        take({t.axis, CollectiveKind::kRing, 2 * t.bytes}, t.name);
        break;
      case CollectiveKind::kAllToAll:
        take({t.axis, CollectiveKind::kAllToAll, t.bytes}, t.name);
        break;
      case CollectiveKind::kAllReduce:
        if (near(t.bytes, Forms(job_).row_bytes())) ++rows;
        ++sums;
    }
  }
  // Shoeybi 2019's f and g: a sum forward is a copy backward, and a copy forward a sum backward.
  const Carried copy{Axis::kTensor, CollectiveKind::kAllReduce, Forms(job_).row_bytes()};
  for (auto& [carried, count] : open) {
    const auto& [axis, kind, bytes] = carried;
    if (axis == Axis::kTensor && kind == CollectiveKind::kAllReduce &&
        near(bytes, std::get<2>(copy))) {
      rows -= count;
      count = 0;
    }
    if (count > 0) note("collective_pairs", words_of(carried) + " has no forward counterpart");
  }
  const bool end = where_.front() != 'l';  // an end has one half of a pair
  if (!end && rows != 0) {
    note("collective_pairs", std::to_string(std::abs(rows)) + " all-reduces more " +
                                 (rows > 0 ? "forward" : "backward"));
  }
  if (end && !job_.sequence_parallel && job_.layout.tp > 1 && sums == 1 && std::abs(rows) != 1) {
    note("collective_pairs", "an end has one all-reduce of its rows in one direction");
  }
}

void Check::kept(double input) {
  double own = 0, dropped = 0, inputs = 0;
  for (const Task& t : o_.forward) {
    (again(t) ? dropped : own) += t.saves;
    if (again(t) && is_product(t)) inputs += t.m * t.k * Forms(job_).width();
    if (t.saves < 0) note("reads_what_is_kept", std::string(t.name) + " keeps less than nothing");
  }
  for (const Task& t : o_.backward) {
    if (t.saves > 0) note("reads_what_is_kept", std::string(t.name) + " keeps in backward");
  }
  double least = whole_ ? input : own, most = whole_ ? input : own + inputs;
  if (by_ops()) {  // outputs instead: of attention, and of half of the products
    least = input;
    for (const Task& t : o_.forward) {
      const double output = is_product(t) ? t.m * t.n / 2 : t.m * t.n * t.k;
      if (is_product(t) || t.kind == TaskKind::kAttention) least += output * Forms(job_).width();
    }
    most = least;
  }
  if (o_.saves < least * (1 - 1e-9) || o_.saves > most * (1 + 1e-9)) {
    note("reads_what_is_kept", "keeps " + number(o_.saves) + " bytes, its tasks leave " +
                                   number(least) +
                                   (whole_ ? " (the input)" : " and what is run again reads ") +
                                   (whole_ ? "" : number(most - least)));
  }
  if (o_.worst < dropped * (1 - 1e-9)) {
    note("reads_what_is_kept",
         "holds " + number(o_.worst) + " bytes while it runs again what left " + number(dropped));
  }
  inputs_kept();
}

// The gradient of a weight needs its product's input: kept by the product, by another of the same
// columns, or as the output of a kernel that keeps that.
void Check::inputs_kept() {
  if (job_.trains_adapters || by_ops()) return;  // frozen weights; outputs are kept instead
  for (const Task& t : o_.forward) {
    if (!is_product(t) || t.saves > 0) continue;
    const bool other = std::any_of(o_.forward.begin(), o_.forward.end(), [&](const Task& u) {
      if (u.kind == TaskKind::kAttention) return t.module == Module::kOutput && u.saves > 0;
      return is_product(u) && u.saves > 0 && near(u.k, t.k);
    });
    if (!other) note("reads_what_is_kept", std::string("nobody keeps the input of ") + t.name);
  }
}

// Each needed collective once, where it is needed; none besides, and none of one rank.
void Check::groups(const std::vector<Forms::Moved>& needed) {
  std::vector<bool> used(o_.forward.size(), false);
  const auto place = [&](const char* name) {
    for (std::size_t i = 0; i < o_.forward.size(); ++i) {
      if (std::string_view(o_.forward[i].name) == name) return i;
    }
    return o_.forward.size();
  };
  for (const Forms::Moved& n : needed) {
    const std::size_t from = n.after == nullptr ? 0 : place(n.after) + 1;
    const std::size_t to = n.before == nullptr ? o_.forward.size() : place(n.before);
    std::size_t at = from;
    while (at < to && (used[at] || !is_collective(o_.forward[at]) ||
                       o_.forward[at].axis != n.axis || o_.forward[at].collective != n.kind)) {
      ++at;
    }
    if (at >= to) {
      note("axis_of_group", words_of({n.axis, n.kind, n.bytes}) + " is missing " +
                                (n.after != nullptr ? std::string("after ") + n.after
                                                    : std::string("before ") + n.before));
      continue;
    }
    used[at] = true;
    equal("collective_bytes", o_.forward[at].name, o_.forward[at].bytes, n.bytes);
  }
  for (std::size_t i = 0; i < o_.forward.size(); ++i) {
    if (!is_collective(o_.forward[i]) || used[i]) continue;
    note("axis_of_group", std::string(o_.forward[i].name) + " on the " +
                              name_of_axis(o_.forward[i].axis) + " axis serves no split");
  }
  for (const std::vector<Task>* tasks : {&o_.forward, &o_.backward, &o_.again}) {
    for (const Task& t : *tasks) {
      if (!is_collective(t) || Forms(job_).ranks_of(t.axis) > 1) continue;
      note("axis_of_group",
           std::string(t.name) + " on the " + name_of_axis(t.axis) + " axis of one rank");
    }
  }
}

void check_parameters(const Job& job, const Pieces& pieces, std::vector<Violation>& found) {
  const Forms forms(job);
  double sum = 0;
  const auto add = [&](const Parameters& p) {
    const auto tp = static_cast<double>(job.layout.tp), ep = static_cast<double>(job.layout.ep),
               etp = static_cast<double>(job.layout.etp);
    sum += tp * (p.dense - p.replicated) + p.replicated;
    sum += ep * (etp * (p.expert - p.expert_replicated) + p.expert_replicated);
  };
  add(pieces.embedding.parameters);
  for (const Piece& p : pieces.layers) add(p.parameters);
  add(pieces.head.parameters);
  const Model& m = job.model;
  // A further token has a layer like the last, a norm of its own and the model's head.
  Parameters last_norm;
  last_norm.dense = last_norm.replicated = pieces.head.parameters.replicated;
  for (std::int64_t i = 0; i < m.mtp_layers; ++i) {
    add(pieces.further.parameters);
    add(pieces.layers.back().parameters);
    add(last_norm);
  }
  auto expected = static_cast<double>(parameter_count(m));
  if (m.tied_head) expected += static_cast<double>(m.vocab * m.hidden);  // both ends have it
  expected += static_cast<double>(m.layers + m.mtp_layers) * forms.repeated_key_parameters();
  if (std::abs(sum - expected) <= 1e-9 * expected) return;
  found.push_back({"parameters_conserved",
                   "all ranks hold " + number(sum) + " parameters, not " + number(expected)});
}

}  // namespace

Pieces pieces_of(const Job& job) {
  CHECK(violations(job).empty(), "an outline of no legal job");
  Pieces out;
  out.embedding = embedding(job);
  out.further = further_token(job);
  out.head = head(job);
  const Recompute& r = job.recompute;
  for (std::int64_t i = 0; i < job.model.layers; ++i) {
    const bool again = r.full && (r.full_layers == 0 || i < r.full_layers);
    out.again.push_back(again);
    out.layers.push_back(layer(job, i, again));
  }
  return out;
}

std::vector<Violation> verify(const Job& job, const Pieces& pieces) {
  std::vector<Violation> found;
  const Forms forms(job);
  const auto check = [&](const std::string& where, const Piece& piece, bool whole, double input,
                         const Forms::Flops& flops, const std::vector<Forms::Moved>& moved) {
    Check c(job, where, piece.outline, whole, found);
    c.flops(flops);
    c.recompute();
    c.pairs();
    c.kept(input);
    c.groups(moved);
  };
  const std::size_t layers = pieces.layers.size();
  if (layers != static_cast<std::size_t>(job.model.layers)) {
    found.push_back({"parameters_conserved",
                     std::to_string(layers) + " layers, not " + std::to_string(job.model.layers)});
    return found;
  }
  check("embedding", pieces.embedding, false, 0, {}, forms.embedding_moved());
  for (std::size_t i = 0; i < layers; ++i) {
    const auto l = static_cast<std::int64_t>(i);
    check("layer " + std::to_string(i), pieces.layers[i], pieces.again[i], forms.input_bytes(),
          forms.layer_flops(l), forms.layer_moved(l));
  }
  check("further token", pieces.further, false, 0, forms.further_flops(), forms.further_moved());
  check("head", pieces.head, false, 0, forms.head_flops(), forms.head_moved());
  check_parameters(job, pieces, found);
  return found;
}

}  // namespace orrery::outline
