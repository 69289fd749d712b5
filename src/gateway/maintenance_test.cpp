#include "gateway/maintenance.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <fstream>

#include "delivery/file_system.h"
#include "delivery/local_store.h"
#include "queue/sql_store.h"

namespace limner::gateway {
namespace {

using namespace std::chrono_literals;

class CountingLog final : public Log {
 public:
  void write(LogLevel level, std::string_view, std::span<const LogField>) override {
    ++(level == LogLevel::kWarning ? warnings : others);
  }
  int warnings = 0, others = 0;
};

TEST(Maintenance, EachChoreComesInItsOwnTime) {
  platform::ManualClock clock;
  CountingLog log;
  int often = 0, seldom = 0;
  const auto count = [](int& counter) {
    return [&counter](const std::stop_token&) {
      ++counter;
      return Result<void>{};
    };
  };
  Maintenance maintenance({{"often", 1s, count(often)}, {"seldom", 1h, count(seldom)}}, clock, log);
  for (int second = 0; second < 7200; ++second) {
    EXPECT_EQ(maintenance.run_due(), 1s);
    clock.advance(1s);
  }
  EXPECT_EQ(often, 7200);
  EXPECT_EQ(seldom, 2);
  EXPECT_EQ(log.warnings + log.others, 0);
}

TEST(Maintenance, AFailureIsLoggedOnceAMinuteAndStopsNoOther) {
  platform::ManualClock clock;
  CountingLog log;
  int others = 0;
  bool broken = true;
  Maintenance maintenance({{"broken", 1s,
                            [&](const std::stop_token&) -> Result<void> {
                              if (broken) throw std::runtime_error("bad");
                              return {};
                            }},
                           {"other", 1s,
                            [&](const std::stop_token&) -> Result<void> {
                              ++others;
                              return {};
                            }}},
                          clock, log);
  for (int second = 0; second < 180; ++second) {
    maintenance.run_due();
    clock.advance(1s);
  }
  EXPECT_EQ(log.warnings, 3);
  EXPECT_EQ(others, 180);
  broken = false;
  for (int second = 0; second < 10; ++second) {
    maintenance.run_due();
    clock.advance(1s);
  }
  EXPECT_EQ(log.others, 1) << "that it works again";
}

TEST(Maintenance, StopsWhileAChoreWaits) {
  platform::SystemClock clock;
  NoLog log;
  std::atomic<bool> begun = false;
  Maintenance maintenance({{"long", 1s,
                            [&](const std::stop_token& stop) -> Result<void> {
                              begun = true;
                              while (!stop.stop_requested()) std::this_thread::sleep_for(1ms);
                              return {};
                            }}},
                          clock, log);
  maintenance.start();
  while (!begun) std::this_thread::sleep_for(1ms);
  maintenance.stop();
}

TEST(DiskWatch, TellsWhenThereIsNoRoom) {
  DiskWatch enough(std::filesystem::temp_directory_path(), 1);
  EXPECT_TRUE(enough.look().ok());
  EXPECT_EQ(enough.problem(), "");
  DiskWatch never(std::filesystem::temp_directory_path(), std::uint64_t{1} << 60);
  EXPECT_EQ(never.problem(), "") << "before the first look";
  EXPECT_EQ(never.look().error().code, ErrorCode::kIo);
  EXPECT_NE(never.problem(), "");
}

// The whole list over real stores: what is old goes, what is young stays, leases end.
TEST(ServiceChores, SweepWhatIsOldAndEndLeases) {
  const auto folder =
      std::filesystem::temp_directory_path() / ("limner maintenance " + std::to_string(getpid()));
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  // The store's times are the file system's: begin at the present.
  platform::ManualClock clock(platform::SystemClock().wall());
  auto jobs = queue::open_sqlite_store(folder / "limner.db").value_or_throw();
  auto messages = delivery::WebhookStore::open(folder / "limner.db", clock).value_or_throw();
  auto queue = queue::Queue::open(*jobs, queue::make_policy("fair", 1).value_or_throw(), clock, {})
                   .value_or_throw();
  delivery::PosixFileSystem files;
  const auto signer =
      delivery::UrlSigner::make({"k1", std::vector<std::uint8_t>(32, 7)}).value_or_throw();
  const auto artifacts =
      delivery::LocalStore::open(folder / "artifacts", "", signer, files, clock).value_or_throw();
  DiskWatch disk(folder, 1);
  platform::Metrics metrics;
  CountingLog log;
  const ChoreServices services{*queue, *jobs, *artifacts, *messages, disk, clock, metrics};
  auto chores = service_chores(services, {});
  for (Chore& chore : sweeping_chores(services, {})) chores.push_back(std::move(chore));
  Maintenance maintenance(std::move(chores), clock, log);

  contract::Job job;
  job.account = "ann";
  job.tier = contract::Tier::kFast;
  const std::string ended = queue->submit(job).value_or_throw().id;
  queue->finish(*queue->lease("w").value_or_throw(), {}).value_or_throw();
  const std::string left = queue->submit(job).value_or_throw().id;
  ASSERT_TRUE(queue->lease("w").value_or_throw());
  const std::vector<std::uint8_t> bytes = {1, 2, 3};
  const auto stored = artifacts->put({.account = "ann"}, bytes).value_or_throw();

  maintenance.run_due();
  EXPECT_TRUE(queue->find(ended).value_or_throw());
  EXPECT_TRUE(artifacts->head(stored.key).ok());
  EXPECT_EQ(queue->running(), 1u);
  clock.advance(16s);
  maintenance.run_due();
  EXPECT_EQ(queue->running(), 0u) << "its lease ran out";
  clock.advance(1s);
  maintenance.run_due();
  EXPECT_NE(metrics.text().find("limner_queue_depth{tier=\"fast\"} 1"), std::string::npos);
  clock.advance(24h * 31);
  maintenance.run_due();
  EXPECT_FALSE(queue->find(ended).value_or_throw());
  EXPECT_TRUE(queue->find(left).value_or_throw()) << "it has not ended";
  EXPECT_EQ(artifacts->head(stored.key).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(log.warnings, 0);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace limner::gateway
