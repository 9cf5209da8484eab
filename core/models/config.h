// How a config.json becomes a Model: the table of families and what their readers share.
// A family is a file config_<name>.cpp with a reader and a writer, and a row in config.cpp.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "core/model.h"

namespace orrery::config {

inline constexpr std::int64_t kMaxDim = std::int64_t{1} << 24;
inline constexpr std::int64_t kMaxLayers = 10000;
inline constexpr std::int64_t kMaxCount = 1 << 16;  // heads, experts
inline constexpr std::int64_t kMaxPositions = std::int64_t{1} << 40;

// A config.json while it is read. Problems are noted; a reader goes on after them.
struct Source {
  ObjectReader& reader;
  const Json& json;
  Model& model;
  std::vector<Problem>& problems;
};

struct Family {
  const char* model_type;
  const char* architecture;
  bool executed;  // by the engine; the others can be simulated only
  void (*read)(Source&);
  void (*write)(const Model&, Json&);  // all but name, architectures and model_type
};

const std::vector<const Family*>& families();
const Family* find_family(const std::string& model_type);  // nullptr: unknown

std::string shown(const Json& json);  // cut where it is long

// One value under several names, the first of which is asked for where none is there. Where two
// are there they must agree.
std::int64_t aliased(Source& s, std::initializer_list<const char*> keys, std::int64_t min,
                     std::int64_t max);
std::int64_t aliased_or(Source& s, std::initializer_list<const char*> keys, std::int64_t min,
                        std::int64_t max, std::int64_t fallback);
double aliased_number_or(Source& s, std::initializer_list<const char*> keys, double min, double max,
                         double fallback);

// Notes a problem unless the key is absent, null, false, zero or empty.
void refuse(Source& s, const char* key, const char* why);

// What decoders with rotary embeddings share, in the keys of Llama's files: sizes, layers and the
// norm; heads of attention; both; and both written.
void read_shape(Source& s);
void read_heads(Source& s);
void read_decoder(Source& s);
void write_decoder(const Model& m, Json& json);
// Of what is simulated: any kind of scaling is taken, since it costs nothing.
void read_rope(Source& s, double default_theta);

// Windows by layer from layer_types; without it every `stride`-th layer from `first` on has one.
// window_or: sliding_window, where null means none and an absent key the fallback.
std::int64_t window_or(Source& s, std::int64_t fallback);
void read_windows(Source& s, std::int64_t window, std::int64_t first, std::int64_t stride);
void write_windows(const Model& m, Json& json);

// Experts: how many are chosen and how wide they are; groups of them.
void read_picks(Source& s, bool default_norm_topk);
void read_groups(Source& s);
void write_sparse(const Model& m, Json& json);  // what read_picks and read_groups read
// Layers are dense up to first_k_dense_replace, or as mlp_layer_types says.
void read_dense_first(Source& s);
void write_dense_first(const Model& m, Json& json);
// No layer is sparse: the same network as a dense one, and said so.
void make_dense(Model& model);
bool any_sparse(const Model& model);

}  // namespace orrery::config
