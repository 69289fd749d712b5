// The store in an SQL database; SQLite today.
#pragma once

#include <filesystem>

#include "queue/store.h"

namespace limner::queue {

// Opens or makes the file. kUnsupported in a build without SOCI.
Result<std::unique_ptr<Store>> open_sqlite_store(const std::filesystem::path& file);

}  // namespace limner::queue
