#include "platform/accounts/quotas.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace limner::platform {
namespace {

TEST(ConcurrentRequests, HoldsAnAccountToItsNumberUntilAPlaceIsGivenBack) {
  ConcurrentRequests requests;
  auto first = requests.enter("ada", 2);
  {
    const auto second = requests.enter("ada", 2);
    EXPECT_TRUE(second);
    EXPECT_FALSE(requests.enter("ada", 2));
    EXPECT_TRUE(requests.enter("bob", 2));
    EXPECT_EQ(requests.inside("ada"), 2);
  }
  EXPECT_EQ(requests.inside("ada"), 1);
  const auto moved = std::move(*first);
  first.reset();
  EXPECT_EQ(requests.inside("ada"), 1);
}

TEST(ConcurrentRequests, ZeroIsNoLimitButCounts) {
  ConcurrentRequests requests;
  const auto one = requests.enter("ada", 0), two = requests.enter("ada", 0);
  EXPECT_TRUE(one && two);
  EXPECT_FALSE(requests.enter("ada", 2));
}

TEST(ConcurrentRequests, NeverLetsMoreInFromManyThreads) {
  ConcurrentRequests requests;
  std::atomic<int> inside = 0, most = 0;
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 5000; ++i) {
        const auto place = requests.enter("ada", 2);
        if (!place) continue;
        const int now = ++inside;
        for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {
        }
        --inside;
      }
    });
  }
  threads.clear();
  EXPECT_LE(most, 2);
  EXPECT_EQ(requests.inside("ada"), 0);
}

class DailyImagesTest : public testing::Test {
 protected:
  static constexpr Millis kMidnight{1'700'006'400'000};  // 2023-11-15T00:00:00Z

  ManualClock clock_{kMidnight + std::chrono::hours(9)};
  std::int64_t drawn_ = 0, since_ = -1;
  int asked_ = 0;
  DailyImages images_{[this](const std::string&, std::int64_t since) -> Result<std::int64_t> {
                        ++asked_;
                        since_ = since;
                        return drawn_;
                      },
                      clock_};
};

TEST_F(DailyImagesTest, CountsWhatWasDrawnAndWhatIsAccepted) {
  drawn_ = 6;
  EXPECT_TRUE(images_.accept("ada", 3, 10).ok());
  EXPECT_EQ(since_, kMidnight.count());
  const auto refused = images_.accept("ada", 2, 10);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
  EXPECT_NE(refused.error().message.find("10 images a day (UTC), and 1 of today's"),
            std::string::npos)
      << refused.error().message;
  EXPECT_TRUE(images_.accept("ada", 1, 10).ok());
  EXPECT_FALSE(images_.accept("ada", 1, 10).ok());
  EXPECT_EQ(asked_, 1);
}

TEST_F(DailyImagesTest, GivesBackWhatWasNotDrawnAfterAll) {
  const std::int64_t now = clock_.wall().count();
  EXPECT_TRUE(images_.accept("ada", 4, 4).ok());
  images_.give_back("ada", 3, now);
  EXPECT_TRUE(images_.accept("ada", 3, 4).ok());
  images_.give_back("ada", 3, now - 86'400'000);  // yesterday's
  EXPECT_FALSE(images_.accept("ada", 1, 4).ok());
}

TEST_F(DailyImagesTest, StartsAnewAtMidnight) {
  EXPECT_TRUE(images_.accept("ada", 4, 4).ok());
  EXPECT_EQ(images_.seconds_left(), 15 * 3600);
  clock_.advance(std::chrono::hours(15) - Millis{1});
  EXPECT_FALSE(images_.accept("ada", 1, 4).ok());
  EXPECT_EQ(images_.seconds_left(), 1);
  clock_.advance(Millis{1});
  EXPECT_TRUE(images_.accept("ada", 4, 4).ok());
  EXPECT_EQ(since_, kMidnight.count() + 86'400'000);
}

TEST_F(DailyImagesTest, ZeroIsNoLimitAndAsksNobody) {
  EXPECT_TRUE(images_.accept("ada", 1'000'000, 0).ok());
  EXPECT_EQ(asked_, 0);
}

TEST(DailyImages, RefusesWhenItCannotKnow) {
  ManualClock clock;
  DailyImages images(
      [](const std::string&, std::int64_t) {
        return Result<std::int64_t>(Error{ErrorCode::kIo, "disk"});
      },
      clock);
  EXPECT_EQ(images.accept("ada", 1, 10).error().code, ErrorCode::kIo);
}

}  // namespace
}  // namespace limner::platform
