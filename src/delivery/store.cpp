#include "delivery/store.h"

namespace limner::delivery {

Error for_callers(Error error) {
  const bool refused =
      error.code == ErrorCode::kUnauthenticated || error.code == ErrorCode::kPermissionDenied;
  if (refused) error.code = ErrorCode::kIo;
  return error;
}

}  // namespace limner::delivery
