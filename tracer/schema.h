// The trace's tables and views (design section 8) and the steps that lead from each version of them
// to the next. Times are integer nanoseconds, sizes bytes; names carry the unit.
#pragma once

#include <cstdint>

#include "tracer/sqlite.h"

namespace orrery {

inline constexpr std::int64_t kTraceApplicationId = 0x4f525259;  // "ORRY"
inline constexpr std::int64_t kTraceVersion = 2;                 // PRAGMA user_version

// Brings a database to the newest version, in one transaction: an empty one gets everything. A
// version that is newer than this program is kInvalid.
Status migrate(sql::Database& db);

// kInvalid unless the file is a trace of this version or an older one. What an older one lacks
// reads as NULL on this connection; the file stays as it is.
Status open_as_newest(sql::Database& db);

// What is derived once all rows are there: span.exposed_ns, then the indexes. May be run again.
Status seal(sql::Database& db);

}  // namespace orrery
