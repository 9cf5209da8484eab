// Meaning and unit of each; ranges and priors are those of core/stack.h.
#include "simulator/stages/parameters.h"

#include <array>

#include "core/check.h"

namespace orrery::simulator {
namespace {

struct Words {
  const char *name, *meaning, *unit;
};

constexpr Words kStackWords[] = {
    {"host_per_kernel_s", "the host launches one kernel", "s"},
    {"pass_factor", "bytes of element-wise passes over what they cannot avoid", ""},
    {"product_factor", "time of products over that of the device's curve", ""},
    {"exposed_share", "of what is overlapped, the part that is not hidden", ""},
    {"step_s", "of each step, beyond its ops: data, logging, host", "s"},
    {"straggle", "relative wait, a doubling of the ranks that wait for each other", ""},
    {"reserve_bytes", "allocator and communicators, beyond the device's own", "bytes"}};

std::vector<FreeParameter> registry() {
  std::vector<FreeParameter> rows;
  const Stack prior;
  for (const StackParameter& p : stack_parameters()) {
    const Words* words = nullptr;
    for (const Words& w : kStackWords) {
      if (std::string(w.name) == p.name) words = &w;
    }
    CHECK(words != nullptr, std::string("no meaning of ") + p.name);
    rows.push_back(
        {Owner::kStack, p.name, words->meaning, words->unit, p.min, p.max, prior.*p.member});
  }
  return rows;
}

}  // namespace

const char* name_of(Owner owner) {
  constexpr std::array<const char*, 3> names = {"device", "link", "stack"};
  return names[static_cast<std::size_t>(owner)];
}

const std::vector<FreeParameter>& free_parameters() {
  static const std::vector<FreeParameter> rows = registry();
  return rows;
}

}  // namespace orrery::simulator
