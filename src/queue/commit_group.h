// CommitGroup: many threads' changes in one transaction. Whoever finds no leader becomes it, writes
// what has gathered, and wakes the others; so there is no thread of its own, and with one caller
// everything happens in that caller.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <vector>

#include "queue/store.h"

namespace limner::queue {

// One caller's part of a transaction.
struct Operation {
  // Looks at the memory, changes it, and adds what is to be written. May throw Failure, before it
  // has changed anything.
  std::function<void(std::vector<Change>&)> decide{};
  // Told what came of its changes, once they are on the disk.
  std::function<void(std::span<const Written>)> settle{};

  std::optional<Error> error{};
  bool done = false;
  std::size_t begin = 0, end = 0;  // its changes among the transaction's
};

class CommitGroup {
 public:
  // Writes what the operations decide and settles them; sets their errors. Called by one thread at
  // a time, with up to kMost operations in order of arrival.
  using Commit = std::function<void(std::span<Operation* const>)>;

  explicit CommitGroup(Commit commit) : commit_(std::move(commit)) {}

  // Returns when the operation is on the disk, or has failed. Any thread.
  void run(Operation& operation);

 private:
  static constexpr std::size_t kMost = 512;

  const Commit commit_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Operation*> waiting_;  // by mutex_
  bool led_ = false;                // by mutex_
};

}  // namespace limner::queue
