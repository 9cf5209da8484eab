// Causal attention inside documents, by chunks of query rows (with the log-sum-exp kept; backward
// recomputes the probabilities from it, as in Dao et al. 2022, FlashAttention, algorithm 4). Heads
// of one key-value head are rows of one product: k and v are never repeated. Buffers have the size
// of the worst case, one document that spans the sequence, so that memory does not depend on the
// data. A chunk is done by tiles of its rows, which see no key behind their last: half of the
// scores of a document are never made, and those of a tile stay in the cache from the product to
// the next.
#include <ATen/ops/_softmax.h>
#include <ATen/ops/_softmax_backward_data.h>
#include <ATen/ops/ones.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/torch/compat.h"
#include "engine/torch/primitives_bodies.h"

namespace orrery::engine {
namespace {

constexpr std::int64_t kTileRows = 64;

// Sizes and views of one attention.
struct Shape {
  std::int64_t kv, group, d, tokens, chunk;
  double scale;
  bool mixed;  // scores are computed in another dtype than their statistics
  at::ScalarType low, stat;

  Shape(const Prim& prim, const at::Tensor& q)
      : kv(prim.kv_heads),
        group(prim.heads / prim.kv_heads),
        d(prim.head_dim),
        tokens(prim.sequence_tokens),
        chunk(chunk_rows(prim)),
        scale(1 / std::sqrt(static_cast<double>(prim.head_dim))),
        mixed(q.scalar_type() != stat_type(q)),
        low(q.scalar_type()),
        stat(stat_type(q)) {}
  std::int64_t scores() const { return kv * group * chunk * tokens; }
  std::int64_t query() const { return kv * group * chunk * d; }
  std::int64_t keys() const { return kv * tokens * d; }
  std::int64_t vector() const { return kv * group * chunk; }

  // Rows [begin, begin+n) of x[T, heads*d] as [kv, group, n, d].
  at::Tensor by_head(const at::Tensor& x, std::int64_t begin, std::int64_t n) const {
    return x.narrow(0, begin, n).view({n, kv, group, d}).permute({1, 2, 0, 3});
  }
  // Rows of k or v as [kv, n, d].
  at::Tensor by_kv(const at::Tensor& x, std::int64_t begin, std::int64_t n) const {
    return x.narrow(0, begin, n).view({n, kv, d}).transpose(0, 1);
  }
};

// A chunk of queries: n rows from `row` on, which see the keys [first, first + keys).
struct Chunk {
  std::int64_t row, n, first, keys;
};

// Calls body for the tiles of a chunk.
template <class Body>
void for_tiles(const Chunk& c, Body&& body) {
  for_slices(c.n, kTileRows, [&](std::int64_t begin, std::int64_t n) {
    body(Chunk{c.row + begin, n, c.first, c.keys - c.n + begin + n});
  });
}

at::Tensor load_query(const Shape& s, const at::Tensor& buffer, const at::Tensor& x,
                      const Chunk& c) {
  carve(buffer, {s.kv, s.group, c.n, s.d}).copy_(s.by_head(x, c.row, c.n));
  return carve(buffer, {s.kv, s.group * c.n, s.d});
}

at::Tensor load_keys(const Shape& s, const at::Tensor& buffer, const at::Tensor& x,
                     const Chunk& c) {
  const at::Tensor keys = carve(buffer, {s.kv, c.keys, s.d});
  keys.copy_(s.by_kv(x, c.first, c.keys));
  return keys;
}

// The statistic's rows of a chunk as [heads, n].
at::Tensor statistic_rows(const at::Tensor& statistic, const Chunk& c) {
  return statistic.narrow(0, c.row, c.n).t();
}

template <class Body>
void for_chunks(const Shape& s, const BlockContext& context, std::int64_t rows, Body&& body) {
  std::int64_t first = 0;
  for (const auto& sequence : context.documents) {
    std::int64_t total = 0;
    for (std::int64_t length : sequence) {
      for_slices(length, s.chunk, [&](std::int64_t begin, std::int64_t n) {
        body(Chunk{first + begin, n, first, begin + n}, begin + n == length);
      });
      first += length;
      total += length;
    }
    CHECK(total == s.tokens, "the documents of a sequence do not fill it");
  }
  CHECK(first == rows, "the documents do not cover the rows");
}

// The buffers that scores go through, shared by both directions.
struct Scores {
  at::Tensor high;  // in the statistics' dtype
  at::Tensor low;   // in the compute dtype; undefined when that is the same
  at::Tensor mask;

  Scores(const Shape& s, const at::Tensor& like)
      : high(scratch(like, {s.scores()}, s.stat)),
        low(s.mixed ? scratch(like, {s.scores()}, s.low) : at::Tensor()),
        mask(at::ones({s.chunk, s.chunk}, like.options().dtype(at::kBool))) {
    mask.triu_(1);
  }

  // a b into `wide`, through the low buffer where dtypes differ.
  at::Tensor product(const at::Tensor& wide, const at::Tensor& a, const at::Tensor& b) const {
    const std::int64_t shape[] = {a.size(0), a.size(1), b.size(2)};
    const at::Tensor out = carve(wide, shape);
    if (!low.defined()) {
      bmm_to(out, a, b);
      return out;
    }
    const at::Tensor narrow = carve(low, shape);
    bmm_to(narrow, a, b);
    out.copy_(narrow);
    return out;
  }
  // `wide` as an operand of a product.
  at::Tensor lowered(const at::Tensor& wide) const {
    if (!low.defined()) return wide;
    const at::Tensor out = carve(low, wide.sizes());
    out.copy_(wide);
    return out;
  }
  // Fills the scores of keys that come after their query.
  void fill_future(const Shape& s, const Chunk& c, const at::Tensor& scores, double value) const {
    scores.view({s.kv * s.group, c.n, c.keys})
        .narrow(2, c.keys - c.n, c.n)
        .masked_fill_(mask.narrow(0, 0, c.n).narrow(1, 0, c.n), value);
  }
};

// Buffers of backward; dk and dv sum over the chunks of one document.
struct Gradients {
  at::Tensor k, v, q, dy, dk, dv, wide_o, wide_dy, dp, lse, dot, low_product, high_product;

  Gradients(const Shape& s, const at::Tensor& like)
      : k(scratch(like, {s.keys()}, s.low)),
        v(scratch(like, {s.keys()}, s.low)),
        q(scratch(like, {s.query()}, s.low)),
        dy(scratch(like, {s.query()}, s.low)),
        dk(scratch(like, {s.keys()}, s.stat)),
        dv(scratch(like, {s.keys()}, s.stat)),
        wide_o(scratch(like, {s.query()}, s.stat)),
        wide_dy(scratch(like, {s.query()}, s.stat)),
        dp(scratch(like, {s.scores()}, s.stat)),
        lse(scratch(like, {s.vector()}, s.stat)),
        dot(scratch(like, {s.vector()}, s.stat)) {
    if (!s.mixed) return;
    low_product = scratch(like, {s.keys()}, s.low);
    high_product = scratch(like, {s.keys()}, s.stat);
  }

  // sum[kv, keys, d] += a^T b.
  void add_product(const Shape& s, const at::Tensor& sum, const at::Tensor& a,
                   const at::Tensor& b) const {
    if (!s.mixed) {
      add_bmm_to(sum, a.transpose(1, 2), b);
      return;
    }
    const at::Tensor low = carve(low_product, sum.sizes());
    bmm_to(low, a.transpose(1, 2), b);
    const at::Tensor high = carve(high_product, sum.sizes());
    high.copy_(low);
    sum.add_(high);
  }
};

void softmax(at::Tensor x) {
  at::_softmax_out(x, x, -1, false);
}

// With p = softmax(x): dp becomes dx = p * (dp - sum(dp * p)).
void softmax_backward(at::Tensor dp, const at::Tensor& p) {
  at::_softmax_backward_data_out(dp, dp, p, -1, p.scalar_type());
}

void backward_tile(const BackwardCall& call, const Shape& s, const Chunk& c, const Scores& scores,
                   const Gradients& g, const at::Tensor& k, const at::Tensor& v) {
  const at::Tensor q = load_query(s, g.q, call.in[0], c);
  const at::Tensor dy = load_query(s, g.dy, call.grad_out[0], c);
  const at::Tensor lse = carve(g.lse, {s.kv, s.group * c.n, 1});
  lse.view({s.kv * s.group, c.n}).copy_(statistic_rows(call.statistic, c));
  // Sums are kept as [kv, tokens, d], so that a later tile adds to the same keys.
  const at::Tensor dk = g.dk.view({s.kv, s.tokens, s.d}).narrow(1, 0, c.keys);
  const at::Tensor dv = g.dv.view({s.kv, s.tokens, s.d}).narrow(1, 0, c.keys);
  q.mul_(s.scale);
  const at::Tensor p = scores.product(scores.high, q, k.transpose(1, 2));
  p.sub_(lse).exp_();
  scores.fill_future(s, c, p, 0);
  g.add_product(s, dv, scores.lowered(p), dy);
  const at::Tensor ds = scores.product(g.dp, dy, v.transpose(1, 2));
  softmax_backward(ds, p);
  const at::Tensor ds_low = scores.lowered(ds);
  const at::Tensor dq = carve(g.dy, {s.kv, s.group * c.n, s.d});  // dy is not read again
  bmm_to(dq, ds_low, k);
  dq.mul_(s.scale);
  s.by_head(call.grad_in[0], c.row, c.n).copy_(dq.view({s.kv, s.group, c.n, s.d}));
  g.add_product(s, dk, ds_low, q);
}

}  // namespace

void attention_forward(ForwardCall& call) {
  const at::Tensor& q = call.in[0];
  const Shape s(call.prim, q);
  const at::Tensor key = scratch(q, {s.keys()}, s.low), value = scratch(q, {s.keys()}, s.low);
  const at::Tensor query = scratch(q, {s.query()}, s.low);
  const at::Tensor most = scratch(q, {s.vector()}, s.stat), sum = scratch(q, {s.vector()}, s.stat);
  const Scores scores(s, q);
  for_chunks(s, call.context, q.size(0), [&](const Chunk& chunk, bool) {
    const at::Tensor k = load_keys(s, key, call.in[1], chunk);
    const at::Tensor v = load_keys(s, value, call.in[2], chunk);
    for_tiles(chunk, [&](const Chunk& c) {
      const at::Tensor x = load_query(s, query, q, c);
      x.mul_(s.scale);
      const at::Tensor p = scores.product(scores.high, x, k.narrow(1, 0, c.keys).transpose(1, 2));
      scores.fill_future(s, c, p, -std::numeric_limits<double>::infinity());
      const at::Tensor m = carve(most, {s.kv, s.group * c.n, 1});
      const at::Tensor z = carve(sum, {s.kv, s.group * c.n, 1});
      amax_to(m, p, -1, true);
      softmax(p);
      // The highest probability is exp(m - lse).
      amax_to(z, p, -1, true);
      m.sub_(z.log_());
      statistic_rows(call.statistic, c).copy_(m.view({s.kv * s.group, c.n}));
      bmm_to(x, scores.lowered(p), v.narrow(1, 0, c.keys));  // the queries are not read again
      s.by_head(call.out[0], c.row, c.n).copy_(x.view({s.kv, s.group, c.n, s.d}));
    });
  });
}

void attention_backward(BackwardCall& call) {
  const at::Tensor& q = call.in[0];
  const Shape s(call.prim, q);
  for (const at::Tensor& grad : call.grad_in) CHECK(grad.defined(), "q, k and v carry gradients");
  const Gradients g(s, q);
  const Scores scores(s, q);
  for_chunks(s, call.context, q.size(0), [&](const Chunk& chunk, bool last) {
    if (chunk.row == chunk.first) {
      g.dk.zero_();
      g.dv.zero_();
    }
    const at::Tensor k = load_keys(s, g.k, call.in[1], chunk);
    const at::Tensor v = load_keys(s, g.v, call.in[2], chunk);
    for_tiles(chunk, [&](const Chunk& c) {
      backward_tile(call, s, c, scores, g, k.narrow(1, 0, c.keys), v.narrow(1, 0, c.keys));
    });
    if (!last) return;
    const auto sum = [&](const at::Tensor& flat) {
      return flat.view({s.kv, s.tokens, s.d}).narrow(1, 0, chunk.keys);
    };
    s.by_kv(call.grad_in[1], chunk.first, chunk.keys).copy_(sum(g.dk));
    s.by_kv(call.grad_in[2], chunk.first, chunk.keys).copy_(sum(g.dv));
  });
}

}  // namespace orrery::engine
