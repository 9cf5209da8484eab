// Mutations of a text: bytes flipped, cut, repeated, spliced, digits and values changed.
#pragma once

#include <random>
#include <string>

namespace orrery {

std::string mutate(std::string text, std::mt19937_64& rng);

}  // namespace orrery
