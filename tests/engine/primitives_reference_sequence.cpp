// Plain loops of the kinds that move rows and heads between the ranks of a sequence: each element
// of a result is looked up where its name (rank, sequence, position, head) says. No ATen here.
#include <algorithm>

#include "engine/torch/compat.h"
#include "tests/engine/primitives_reference_kinds.h"

namespace orrery::engine {
namespace {

// Copies head `from` of row `row` to head `to` of row `at`.
void copy_head(const Prim& p, const Matrix& x, std::int64_t row, std::int64_t from, Matrix& y,
               std::int64_t at, std::int64_t to) {
  for (std::int64_t i = 0; i < p.head_dim; ++i) {
    y.at(at, to * p.head_dim + i) = x.at(row, from * p.head_dim + i);
  }
}

Matrix pack_heads(const Prim& p, const Matrices& in) {
  const std::int64_t sp = p.parts, tokens = in[0].rows, q = p.heads / sp,
                     kv = std::max(p.kv_heads, sp) / sp;
  Matrix y(sp * tokens, (q + 2 * kv) * p.head_dim);
  for (std::int64_t peer = 0; peer < sp; ++peer) {
    for (std::int64_t t = 0; t < tokens; ++t) {
      const std::int64_t row = peer * tokens + t, first = peer * p.kv_heads / sp;
      for (std::int64_t h = 0; h < q; ++h) copy_head(p, in[0], t, peer * q + h, y, row, h);
      for (std::int64_t h = 0; h < kv; ++h) {
        copy_head(p, in[1], t, first + h, y, row, q + h);
        copy_head(p, in[2], t, first + h, y, row, q + kv + h);
      }
    }
  }
  return y;
}

// Row of (peer, sequence, position) for each row of (sequence, peer, position).
std::vector<std::int64_t> peer_rows(const Prim& p, std::int64_t rows) {
  const std::int64_t local = rows / p.parts / p.sequences;
  std::vector<std::int64_t> out;
  for (std::int64_t sequence = 0; sequence < p.sequences; ++sequence) {
    for (std::int64_t position = 0; position < p.parts * local; ++position) {
      const std::int64_t peer = position / local;
      out.push_back(peer * p.sequences * local + sequence * local + position % local);
    }
  }
  return out;
}

Matrices unpack_sequence(const Prim& p, const Matrix& packed) {
  const std::int64_t q = p.heads / p.parts, kv = std::max(p.kv_heads, p.parts) / p.parts;
  const std::vector<std::int64_t> from = peer_rows(p, packed.rows);
  Matrix query(packed.rows, q * p.head_dim), key(packed.rows, kv * p.head_dim), value = key;
  for (std::int64_t r = 0; r < packed.rows; ++r) {
    const std::int64_t row = from[static_cast<std::size_t>(r)];
    for (std::int64_t h = 0; h < q; ++h) copy_head(p, packed, row, h, query, r, h);
    for (std::int64_t h = 0; h < kv; ++h) {
      copy_head(p, packed, row, q + h, key, r, h);
      copy_head(p, packed, row, q + kv + h, value, r, h);
    }
  }
  return {query, key, value};
}

Matrix pack_sequence(const Prim& p, const Matrix& x) {
  const std::vector<std::int64_t> to = peer_rows(p, x.rows);
  Matrix y(x.rows, x.cols);
  for (std::int64_t r = 0; r < x.rows; ++r) {
    for (std::int64_t c = 0; c < x.cols; ++c) {
      y.at(to[static_cast<std::size_t>(r)], c) = x.at(r, c);
    }
  }
  return y;
}

Matrix unpack_heads(const Prim& p, const Matrix& x) {
  Matrix y(x.rows / p.parts, x.cols * p.parts);
  for (std::int64_t t = 0; t < y.rows; ++t) {
    for (std::int64_t c = 0; c < y.cols; ++c) {
      y.at(t, c) = x.at(c / x.cols * y.rows + t, c % x.cols);
    }
  }
  return y;
}

}  // namespace

Matrices evaluate_sequence(const Site& s, const Matrices& in) {
  switch (s.prim.kind) {
    case PrimKind::kPackHeads:
      return {pack_heads(s.prim, in)};
    case PrimKind::kUnpackSequence:
      return unpack_sequence(s.prim, in[0]);
    case PrimKind::kPackSequence:
      return {pack_sequence(s.prim, in[0])};
    case PrimKind::kUnpackHeads:
      return {unpack_heads(s.prim, in[0])};
    default:
      CHECK(false, "not a kind that moves rows of a sequence");
  }
}

}  // namespace orrery::engine
