// Between packing.cpp and packing_balance.cpp. Not for other files.
#pragma once

#include "core/packing.h"

namespace orrery {

// Places the pieces of `rows` (without padding; naively packed of `documents`) again and deals the
// rows, as Balance::kLevels says. Leaves them as they are where that is no slower in lockstep.
void balance_rows(std::vector<PackedRow>& rows, const std::vector<std::int64_t>& documents,
                  std::int64_t row_tokens, const Deal& deal, Packing mode);

}  // namespace orrery
