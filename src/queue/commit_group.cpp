#include "queue/commit_group.h"

#include <algorithm>

namespace limner::queue {

void CommitGroup::run(Operation& operation) {
  std::unique_lock lock(mutex_);
  waiting_.push_back(&operation);
  changed_.wait(lock, [&] { return operation.done || !led_; });
  if (operation.done) return;
  led_ = true;
  while (!operation.done) {
    const auto last =
        waiting_.begin() + static_cast<std::ptrdiff_t>(std::min(kMost, waiting_.size()));
    const std::vector<Operation*> group(waiting_.begin(), last);
    waiting_.erase(waiting_.begin(), last);
    lock.unlock();
    commit_(group);
    lock.lock();
    for (Operation* one : group) one->done = true;
    changed_.notify_all();
  }
  led_ = false;
  changed_.notify_all();
}

}  // namespace limner::queue
