#include "gateway/deleted_pictures.h"

#include <chrono>

namespace limner::gateway {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kMostAtOnce = 1'000;
// A bucket tells times in whole seconds.
constexpr milliseconds kCoarseClock{1'000};

// False: it has to wait.
bool see_to(queue::Store& jobs, delivery::ArtifactStore& artifacts, const queue::Removal& removal) {
  const auto key = delivery::parse_object_key(removal.object).value_or_throw();
  const auto there = artifacts.head(key);
  if (!there.ok() && there.error().code == ErrorCode::kNotFound) return true;
  if (!there.ok()) throw Failure(there.error());
  const delivery::Time stored_at = there->stored_at;
  const auto since = std::chrono::floor<milliseconds>(stored_at.time_since_epoch());
  const auto use = jobs.object_use(removal.account, removal.object, (since + kCoarseClock).count())
                       .value_or_throw();
  if (use.shown) return true;
  if (use.may_come) return false;
  // Who stores it again from now on finds it gone, or makes this a refusal.
  return artifacts.remove(key, stored_at + milliseconds(1)).value_or_throw();
}

}  // namespace

Result<std::size_t> remove_deleted_pictures(queue::Store& jobs, delivery::ArtifactStore& artifacts,
                                            const std::string& job_id,
                                            const std::stop_token& stop) {
  std::size_t waiting = 0;
  try {
    for (const queue::Removal& removal : jobs.removals(job_id, kMostAtOnce).value_or_throw()) {
      if (stop.stop_requested()) break;
      if (see_to(jobs, artifacts, removal)) {
        jobs.removed(removal).value_or_throw();
      } else {
        ++waiting;
      }
    }
  } catch (const Failure& failure) {
    return failure.error();
  }
  return waiting;
}

}  // namespace limner::gateway
