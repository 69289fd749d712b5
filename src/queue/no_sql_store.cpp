#include "queue/sql_store.h"

namespace limner::queue {

Result<std::unique_ptr<Store>> open_sqlite_store(const std::filesystem::path&) {
  return Error{ErrorCode::kUnsupported,
               "[queue.store] this build has no database: install libsoci-dev and build again"};
}

}  // namespace limner::queue
