// The script, its inputs and its brute-force reference.
#include "tests/engine/comm_cases.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <random>

#include "core/program/wire.h"

namespace orrery::engine::test {
namespace {

enum class Kind { kAllGather, kReduceScatter, kAllReduce, kAllToAllV };

struct Call {
  Kind kind;
  DType dtype;
  std::int64_t count;
  bool in_place;
};

const DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat64, DType::kInt64};

std::size_t width(DType dtype) {
  if (dtype == DType::kBFloat16) return 2;
  return dtype == DType::kFloat32 ? 4 : 8;
}

// The calls depend on the seed alone, as all ranks issue the same ones.
std::vector<Call> calls_of(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<Call> calls;
  for (int i = 0; i < 12; ++i) {
    const auto kind = static_cast<Kind>(random() % 4);
    // Sizes on both sides of every threshold, zero among them.
    const std::int64_t limits[] = {1, 9, 700, 9000};
    const auto count =
        static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(limits[random() % 4]));
    calls.push_back({kind, kDTypes[random() % 4], count, random() % 2 == 0});
  }
  return calls;
}

template <class T>
void put(Bytes& bytes, T value) {
  const auto at = bytes.size();
  bytes.resize(at + sizeof(T));
  std::memcpy(bytes.data() + at, &value, sizeof(T));
}

template <class T>
T get(const Bytes& bytes, std::size_t index) {
  T value;
  std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof(T));
  return value;
}

// `count` elements of wildly different magnitudes: another order of summation shows in the bits.
Bytes input(std::uint64_t seed, std::size_t call, std::int32_t rank, std::int64_t count,
            DType dtype) {
  std::mt19937_64 random(seed * 1000003 + call * 1009 + static_cast<std::uint64_t>(rank));
  Bytes bytes;
  for (std::int64_t i = 0; i < count; ++i) {
    const double mantissa = static_cast<double>(random() % 20001) / 10000.0 - 1.0;
    const double value = std::ldexp(mantissa, static_cast<int>(random() % 16));
    if (dtype == DType::kFloat32) put(bytes, static_cast<float>(value));
    if (dtype == DType::kFloat64) put(bytes, value / 3.0);
    if (dtype == DType::kInt64) put(bytes, static_cast<std::int64_t>(random()));
    if (dtype == DType::kBFloat16) put(bytes, nearest_bf16(static_cast<float>(value)));
  }
  return bytes;
}

// Bytes from one rank to another in an all-to-all-v: a third of them zero, one rank sends nothing.
std::int64_t sent(std::uint64_t seed, std::size_t call, std::int32_t from, std::int32_t to) {
  std::mt19937_64 random(seed * 7919 + call * 131 + static_cast<std::uint64_t>(from * 64 + to));
  random.discard(3);
  if (seed % 3 == 0 && from == 1) return 0;
  return random() % 3 == 0 ? 0 : static_cast<std::int64_t>(random() % 3000);
}

// The sum over ranks, in rank order, of element `i`; appended to `out`.
void put_sum(Bytes& out, const std::vector<Bytes>& inputs, std::size_t i, DType dtype) {
  const auto fold = [&](auto first, auto load) {
    auto total = first;
    for (std::size_t rank = 1; rank < inputs.size(); ++rank) total += load(inputs[rank]);
    return total;
  };
  if (dtype == DType::kFloat32) {
    put(out, fold(get<float>(inputs[0], i), [&](const Bytes& b) { return get<float>(b, i); }));
  } else if (dtype == DType::kFloat64) {
    put(out, fold(get<double>(inputs[0], i), [&](const Bytes& b) { return get<double>(b, i); }));
  } else if (dtype == DType::kInt64) {
    using U = std::uint64_t;
    put(out, fold(get<U>(inputs[0], i), [&](const Bytes& b) { return get<U>(b, i); }));
  } else {
    const auto load = [&](const Bytes& b) {
      return std::bit_cast<float>(static_cast<std::uint32_t>(get<std::uint16_t>(b, i)) << 16);
    };
    put(out, nearest_bf16(fold(load(inputs[0]), load)));
  }
}

double real_at(const Bytes& bytes, std::size_t i, DType dtype) {
  if (dtype == DType::kFloat32) return static_cast<double>(get<float>(bytes, i));
  if (dtype == DType::kFloat64) return get<double>(bytes, i);
  if (dtype == DType::kInt64) return static_cast<double>(get<std::int64_t>(bytes, i));
  return static_cast<double>(
      std::bit_cast<float>(static_cast<std::uint32_t>(get<std::uint16_t>(bytes, i)) << 16));
}

// The sum of the absolute values of element `i`.
double magnitude(const std::vector<Bytes>& inputs, std::size_t i, DType dtype) {
  double sum = 0;
  for (const Bytes& input_of_rank : inputs) sum += std::abs(real_at(input_of_rank, i, dtype));
  return sum;
}

// Half a unit in the last place of one.
double rounding_of(DType dtype) {
  if (dtype == DType::kBFloat16) return std::ldexp(1.0, -8);
  return std::ldexp(1.0, dtype == DType::kFloat32 ? -24 : -53);
}

// The parts of one rank's all-to-all-v input, by receiver.
struct Outgoing {
  Bytes bytes;
  std::vector<std::int64_t> counts;
};
Outgoing outgoing(std::uint64_t seed, std::size_t call, std::int32_t size, std::int32_t first,
                  std::int32_t stride, std::int32_t from) {
  Outgoing out;
  for (std::int32_t to = 0; to < size; ++to) {
    out.counts.push_back(sent(seed, call, first + from * stride, first + to * stride));
  }
  std::mt19937_64 random(seed + call * 17 + static_cast<std::uint64_t>(first + from * stride));
  for (const std::int64_t count : out.counts) {
    for (std::int64_t i = 0; i < count; ++i)
      out.bytes.push_back(static_cast<std::uint8_t>(random()));
  }
  return out;
}

std::string name_of_call(std::size_t i, const Call& call) {
  const char* kinds[] = {"all_gather", "reduce_scatter", "all_reduce", "all_to_all_v"};
  return "call " + std::to_string(i) + " " + kinds[static_cast<int>(call.kind)] + " of " +
         std::to_string(call.count) + " x " + std::to_string(width(call.dtype)) + " B";
}

// Runs call `i`; the result goes to `out`.
Result<Traffic> run_call(Channel& channel, std::uint64_t seed, std::size_t i, const Call& call,
                         std::int32_t first, std::int32_t stride, Bytes& out) {
  const std::int32_t n = channel.size();
  const std::int32_t rank = first + channel.index() * stride;
  const auto bytes = static_cast<std::size_t>(call.count) * width(call.dtype);
  const auto members = static_cast<std::size_t>(n);
  const auto own = static_cast<std::size_t>(channel.index());
  if (call.kind == Kind::kAllToAllV) {
    const Outgoing send = outgoing(seed, i, n, first, stride, channel.index());
    std::vector<std::int64_t> expect;
    std::size_t total = 0;
    for (std::int32_t from = 0; from < n; ++from) {
      expect.push_back(sent(seed, i, first + from * stride, rank));
      total += static_cast<std::size_t>(expect.back());
    }
    out.resize(total);
    return channel.all_to_all_v(send.bytes.data(), send.counts, out.data(), expect);
  }
  if (call.kind == Kind::kAllGather) {
    const Bytes mine = input(seed, i, rank, call.count, call.dtype);
    out.assign(bytes * members, 0xee);
    if (bytes > 0) std::memcpy(out.data() + own * bytes, mine.data(), call.in_place ? bytes : 0);
    const void* send = call.in_place ? out.data() + own * bytes : mine.data();
    return channel.all_gather(send, out.data(), static_cast<std::int64_t>(bytes));
  }
  if (call.kind == Kind::kReduceScatter) {
    Bytes mine = input(seed, i, rank, call.count * n, call.dtype);
    out.assign(bytes, 0xee);
    void* recv = call.in_place ? mine.data() + own * bytes : out.data();
    auto traffic = channel.reduce_scatter(mine.data(), recv, call.count, call.dtype);
    if (call.in_place && bytes > 0) std::memcpy(out.data(), recv, bytes);
    return traffic;
  }
  out = input(seed, i, rank, call.count, call.dtype);
  return channel.all_reduce(out.data(), call.count, call.dtype);
}

}  // namespace

std::uint16_t nearest_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto below = static_cast<std::uint16_t>(bits >> 16);
  const auto above = static_cast<std::uint16_t>(below + 1);  // further from zero
  const auto real = [](std::uint16_t b) {
    return static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(b) << 16));
  };
  const double to_below = std::abs(static_cast<double>(value) - real(below));
  const double to_above = std::abs(real(above) - static_cast<double>(value));
  if (to_below == to_above) return below % 2 == 0 ? below : above;
  return to_below < to_above ? below : above;
}

std::vector<Group> groups_of(std::int32_t world) {
  std::vector<Group> groups = {{"world", world, 1}, {"alone", 1, 1}};
  if (world >= 4) {
    groups.push_back({"neighbours", world / 2, 1});
    groups.push_back({"distant", 2, world / 2});
  }
  return groups;
}

Result<Outcome> run_script(Channel& channel, std::uint64_t seed, std::int32_t first,
                           std::int32_t stride) {
  Outcome outcome;
  const std::vector<Call> calls = calls_of(seed);
  for (std::size_t i = 0; i < calls.size(); ++i) {
    // Half of the calls come without a rendezvous: they must be right on their own.
    if (i % 2 == 0) TRY_OK(channel.rendezvous(seed * 100 + i));
    Bytes out;
    TRY(const Traffic traffic, run_call(channel, seed, i, calls[i], first, stride, out));
    outcome.names.push_back(name_of_call(i, calls[i]));
    outcome.results.push_back(std::move(out));
    outcome.traffic.push_back(traffic);
  }
  return outcome;
}

Outcome expected_outcome(std::uint64_t seed, std::int32_t size, std::int32_t index,
                         std::int32_t first, std::int32_t stride) {
  Outcome outcome;
  const std::vector<Call> calls = calls_of(seed);
  for (std::size_t i = 0; i < calls.size(); ++i) {
    const Call& call = calls[i];
    const auto element = static_cast<std::int64_t>(width(call.dtype));
    const std::int64_t copies = call.kind == Kind::kReduceScatter ? size : 1;
    std::vector<Bytes> inputs;
    for (std::int32_t member = 0; member < size; ++member) {
      inputs.push_back(input(seed, i, first + member * stride, call.count * copies, call.dtype));
    }
    Bytes result;
    WireBytes wire;
    std::vector<double> magnitudes;
    if (call.kind == Kind::kAllGather) {
      for (const Bytes& part : inputs) result.insert(result.end(), part.begin(), part.end());
      wire = all_gather_wire(size, call.count * element);
    } else if (call.kind == Kind::kAllToAllV) {
      for (std::int32_t from = 0; from < size; ++from) {
        const Outgoing sender = outgoing(seed, i, size, first, stride, from);
        std::int64_t start = 0;
        for (std::int32_t to = 0; to < index; ++to) {
          start += sender.counts[static_cast<std::size_t>(to)];
        }
        const std::int64_t length = sender.counts[static_cast<std::size_t>(index)];
        result.insert(result.end(), sender.bytes.begin() + start,
                      sender.bytes.begin() + start + length);
        if (from != index) wire.received += length;
        for (std::int32_t to = 0; from == index && to < size; ++to) {
          if (to != index) wire.sent += sender.counts[static_cast<std::size_t>(to)];
        }
      }
    } else {
      const bool scatter = call.kind == Kind::kReduceScatter;
      const std::int64_t start = scatter ? index * call.count : 0;
      for (std::int64_t k = start; k < start + call.count; ++k) {
        put_sum(result, inputs, static_cast<std::size_t>(k), call.dtype);
        magnitudes.push_back(magnitude(inputs, static_cast<std::size_t>(k), call.dtype));
      }
      wire = scatter ? reduce_scatter_wire(size, call.count, element)
                     : all_reduce_wire(size, call.count, element);
    }
    outcome.names.push_back(name_of_call(i, call));
    outcome.results.push_back(std::move(result));
    outcome.traffic.push_back({wire.sent, wire.received});
    outcome.dtypes.push_back(call.dtype);
    outcome.magnitudes.push_back(std::move(magnitudes));
  }
  return outcome;
}

std::string difference(const Outcome& actual, const Outcome& expected) {
  if (actual.names != expected.names) return "other calls";
  for (std::size_t i = 0; i < expected.names.size(); ++i) {
    const std::string& name = expected.names[i];
    if (actual.results[i].size() != expected.results[i].size()) return name + ": other size";
    for (std::size_t k = 0; k < expected.results[i].size(); ++k) {
      if (actual.results[i][k] != expected.results[i][k]) {
        return name + ": byte " + std::to_string(k) + " differs";
      }
    }
    const Traffic& a = actual.traffic[i];
    const Traffic& e = expected.traffic[i];
    if (a.bytes_sent != e.bytes_sent || a.bytes_received != e.bytes_received) {
      return name + ": sent " + std::to_string(a.bytes_sent) + " received " +
             std::to_string(a.bytes_received) + " bytes, expected " + std::to_string(e.bytes_sent) +
             " and " + std::to_string(e.bytes_received);
    }
  }
  return "";
}

std::string difference_but_rounding(const Outcome& actual, const Outcome& expected,
                                    std::int32_t members) {
  if (actual.names != expected.names) return "other calls";
  Outcome settled = actual;
  for (std::size_t i = 0; i < expected.names.size(); ++i) {
    const DType dtype = expected.dtypes[i];
    const std::vector<double>& magnitudes = expected.magnitudes[i];
    if (magnitudes.empty() || dtype == DType::kInt64) continue;
    if (actual.results[i].size() != expected.results[i].size()) continue;
    for (std::size_t k = 0; k < magnitudes.size(); ++k) {
      const double bound = members * rounding_of(dtype) * magnitudes[k];
      const double off =
          real_at(actual.results[i], k, dtype) - real_at(expected.results[i], k, dtype);
      if (!(std::abs(off) <= bound)) {
        return expected.names[i] + ": element " + std::to_string(k) + " is off by " +
               std::to_string(off) + ", allowed " + std::to_string(bound);
      }
    }
    settled.results[i] = expected.results[i];
  }
  return difference(settled, expected);
}

}  // namespace orrery::engine::test
