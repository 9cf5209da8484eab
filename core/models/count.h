// Parameters in floating point: whether int64 can be trusted with the exact count (model.h).
#pragma once

#include "core/model.h"

namespace orrery {

double rough_parameter_count(const Model& model);

}  // namespace orrery
