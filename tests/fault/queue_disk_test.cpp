// Power cuts, I/O errors and a full disk, at the queue's writes: at every third one, or, with
// LIMNER_FAULT_RUNS set, at all of them.
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "fault/fault_disk.h"
#include "fault/queue_ledger.h"

namespace limner::queue {
namespace {

namespace fs = std::filesystem;
using contract::JobStatus;

std::uint64_t stride() {
  return std::getenv("LIMNER_FAULT_RUNS") == nullptr ? 3 : 1;
}

class QueueDisk : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / fmt::format("limner-disk-{}", getpid());
  }
  void TearDown() override {
    disk_.reset();
    fs::remove_all(folder_);
  }
  void begin(FaultDisk::Fault fault = FaultDisk::Fault::kNone, std::uint64_t at = 0) {
    fs::remove_all(folder_);
    fs::create_directories(folder_ / "live");
    fs::create_directories(folder_ / "after");
    ledger_ = {};
    disk_.reset(fault, at);
  }
  fs::path live() const { return folder_ / "live" / "limner.db"; }
  fs::path after() const { return folder_ / "after" / "limner.db"; }

  void submit(Queue& queue, int number) {
    const std::string key = fmt::format("k{}", number);
    const auto submitted = queue.submit(ledger_job(number), ledger_key(key));
    if (submitted.ok()) {
      const auto [known, is_new] = ledger_.accepted.emplace(key, submitted->id);
      EXPECT_TRUE(is_new || known->second == submitted->id) << "one key made two jobs";
    }
  }

  // One of everything; goes on after errors, as a service does.
  void work(Queue& queue) {
    for (int number = 0; number < 4; ++number) submit(queue, number);
    if (ledger_.accepted.contains("k3")) {
      const auto status = queue.cancel(ledger_.accepted["k3"]);
      if (status.ok() && *status == JobStatus::kCanceled) {
        ledger_.canceled.insert(ledger_.accepted["k3"]);
      }
    }
    for (int turn = 0; turn < 3; ++turn) {
      auto lease = queue.lease("w");
      if (!lease.ok() || !*lease) continue;
      if (turn == 0) {
        if (!queue.fail(**lease, {ErrorCode::kUnavailable, "later", true}).ok()) continue;
        continue;
      }
      Completion completion;
      completion.usage.seconds = 1.0;
      if (queue.finish(**lease, completion).ok()) ledger_.finished.insert((*lease)->job.id);
    }
  }

  // The workload on a fresh store. False where even opening met the fault.
  bool run() {
    auto store = open_sqlite_store(live());
    if (!store.ok()) return false;
    platform::ManualClock clock;
    auto queue = Queue::open(**store, make_policy("fair", 1).value(), clock, ledger_options());
    if (!queue.ok()) return false;
    work(**queue);
    return true;
  }

  FaultDisk& disk_ = FaultDisk::install();
  fs::path folder_;
  Ledger ledger_;
};

TEST_F(QueueDisk, APowerCutAtAnyWriteLosesNothingThatWasAnswered) {
  begin();
  ASSERT_TRUE(run());
  ASSERT_EQ(ledger_.accepted.size(), 4u);
  ASSERT_EQ(ledger_.finished.size(), 2u);
  const std::uint64_t operations = disk_.operations();
  ASSERT_GT(operations, 50u);
  for (std::uint64_t at = 1; at <= operations; at += stride()) {
    for (const auto unsynced : {FaultDisk::Unsynced::kLost, FaultDisk::Unsynced::kTorn}) {
      if (unsynced == FaultDisk::Unsynced::kTorn && at % 4 != 0) continue;
      SCOPED_TRACE(fmt::format("cut at operation {} of {}", at, operations));
      begin(FaultDisk::Fault::kPowerCut, at);
      run();
      // What closing the dead process' files would have done is lost with it.
      disk_.materialise(folder_ / "after", unsynced, static_cast<std::uint32_t>(at));
      disk_.reset();
      expect_kept(after(), ledger_);
      if (HasFailure()) return;
    }
  }
}

TEST_F(QueueDisk, AnErrorAtAnyWriteIsAnErrorAndTheQueueGoesOn) {
  begin();
  ASSERT_TRUE(run());
  const std::uint64_t operations = disk_.operations();
  for (std::uint64_t at = 1; at <= operations; at += stride()) {
    SCOPED_TRACE(fmt::format("error at operation {} of {}", at, operations));
    begin(FaultDisk::Fault::kErrorOnce, at);
    if (run()) {
      EXPECT_GE(ledger_.accepted.size(), 3u);
    }
    expect_kept(live(), ledger_);
    if (HasFailure()) return;
  }
}

TEST_F(QueueDisk, ADiskThatFailsForAWhileStopsNothingForGood) {
  for (const std::uint64_t at : {60u, 75u, 90u}) {
    begin();
    auto store = open_sqlite_store(live());
    ASSERT_TRUE(store.ok());
    platform::ManualClock clock;
    const auto queue = open_queue(**store, clock, ledger_options());
    submit(*queue, 10);
    disk_.reset(FaultDisk::Fault::kErrorUntilHealed, 1 + at % 7);
    work(*queue);
    EXPECT_TRUE(disk_.failed());
    disk_.heal();
    work(*queue);
    EXPECT_EQ(ledger_.accepted.size(), 5u);
  }
  expect_kept(live(), ledger_);
}

TEST_F(QueueDisk, AFullDiskRefusesWritesServesReadsAndRecovers) {
  begin();
  auto store = open_sqlite_store(live());
  ASSERT_TRUE(store.ok());
  platform::ManualClock clock;
  const auto queue = open_queue(**store, clock, ledger_options());
  submit(*queue, 0);
  auto lease = queue->lease("w");
  ASSERT_TRUE(lease.ok() && *lease);
  disk_.set_full(true);
  for (int attempt = 0; attempt < 3; ++attempt) {
    const auto refused = queue->submit(ledger_job(1), ledger_key("k1"));
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().code, ErrorCode::kIo);
    EXPECT_NE(refused.error().message.find("full"), std::string::npos) << refused.error().message;
    EXPECT_FALSE(queue->finish(**lease, {}).ok());
    EXPECT_EQ((**queue->find(ledger_.accepted["k0"])).status, JobStatus::kRunning);
    EXPECT_TRUE(queue->heartbeat(**lease).ok());
  }
  disk_.set_full(false);
  Completion completion;
  completion.usage.seconds = 1.0;
  ASSERT_TRUE(queue->finish(**lease, completion).ok());
  ledger_.finished.insert((*lease)->job.id);
  submit(*queue, 1);
  EXPECT_EQ(ledger_.accepted.size(), 2u);
  expect_kept(live(), ledger_);
}

}  // namespace
}  // namespace limner::queue
