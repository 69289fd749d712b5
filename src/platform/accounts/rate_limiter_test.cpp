#include "platform/accounts/rate_limiter.h"

#include <gtest/gtest.h>

#include <array>
#include <random>
#include <vector>

#include "platform/accounts/gcra.h"

namespace limner::platform {
namespace {

// The limiter that needs no cleverness: it keeps all that was allowed, and allows a request if in
// no stretch of time that ends now more would have been allowed than the burst and what came back
// in that stretch.
class LogLimiter {
 public:
  explicit LogLimiter(GcraRate rate) : rate_(rate) {}

  bool take(std::int64_t now, std::int64_t cost) {
    std::int64_t sum = cost;
    bool fits = sum <= rate_.burst;
    for (std::size_t i = size_; i-- > 0 && fits;) {
      sum += log_[i].cost;
      fits = (sum - rate_.burst) * rate_.interval <= now - log_[i].at;
    }
    if (fits) log_[size_++] = {now, cost};
    return fits;
  }

 private:
  struct Taken {
    std::int64_t at, cost;
  };
  GcraRate rate_;
  std::array<Taken, 16> log_{};
  std::size_t size_ = 0;
};

TEST(Gcra, AgreesWithALogOfAllRequestsOnAMillionTraces) {
  std::mt19937_64 random(20'260'101);
  std::int64_t allowed = 0, refused = 0;
  for (int trace = 0; trace < 1'000'000; ++trace) {
    const std::uint64_t bits = random();
    const GcraRate rate{1 + static_cast<std::int64_t>(bits % 7),
                        1 + static_cast<std::int64_t>(bits / 8 % 5)};
    LogLimiter log(rate);
    std::int64_t arrival = 0, now = 1000;
    std::uint64_t steps = random();
    for (int i = 0; i < 12; ++i, steps >>= 5) {
      now += static_cast<std::int64_t>(steps & 7u);
      const std::int64_t cost = (steps & 24u) == 24u && rate.burst > 1 ? 2 : 1;
      const GcraAnswer answer = gcra(arrival, now, rate, cost);
      ASSERT_EQ(answer.allowed, log.take(now, cost)) << "trace " << trace << ", request " << i;
      (answer.allowed ? allowed : refused) += 1;
      arrival = answer.arrival;
    }
  }
  EXPECT_GT(allowed, 1'000'000);
  EXPECT_GT(refused, 1'000'000);
}

TEST(Gcra, TellsTheTruthAboutWhatComes) {
  std::mt19937_64 random(7);
  for (int trace = 0; trace < 20'000; ++trace) {
    const GcraRate rate{1 + static_cast<std::int64_t>(random() % 9),
                        1 + static_cast<std::int64_t>(random() % 6)};
    std::int64_t arrival = 0, now = 50;
    for (int i = 0; i < 10; ++i) {
      now += static_cast<std::int64_t>(random() % 12);
      const GcraAnswer answer = gcra(arrival, now, rate);
      arrival = answer.arrival;
      if (!answer.allowed) {
        EXPECT_TRUE(gcra(arrival, now + answer.retry, rate).allowed);
        EXPECT_FALSE(gcra(arrival, now + answer.retry - 1, rate).allowed);
        EXPECT_EQ(answer.remaining, 0);
      }
      if (answer.remaining > 0) {
        EXPECT_TRUE(gcra(arrival, now, rate, answer.remaining).allowed);
      }
      if (answer.remaining < rate.burst) {
        EXPECT_FALSE(gcra(arrival, now, rate, answer.remaining + 1).allowed);
      }
      EXPECT_TRUE(gcra(arrival, now + answer.reset, rate, rate.burst).allowed);
    }
  }
}

TEST(RateLimiter, GivesTheBurstThenTheRate) {
  ManualClock clock;
  RateLimiter limiter(clock);
  const Rate rate{60, 3};
  for (std::int64_t left : {2, 1, 0}) {
    const RateAnswer answer = limiter.take("ada", rate);
    EXPECT_TRUE(answer.allowed);
    EXPECT_EQ(answer.limit, 3);
    EXPECT_EQ(answer.window.count(), 3);
    EXPECT_EQ(answer.remaining, left);
    EXPECT_EQ(answer.reset.count(), 3 - left);
  }
  const RateAnswer refused = limiter.take("ada", rate);
  EXPECT_FALSE(refused.allowed);
  EXPECT_EQ(refused.retry_after.count(), 1);
  EXPECT_TRUE(limiter.take("bob", rate).allowed);
  clock.advance(Millis{999});
  EXPECT_FALSE(limiter.take("ada", rate).allowed);
  clock.advance(Millis{1});
  EXPECT_TRUE(limiter.take("ada", rate).allowed);
  EXPECT_FALSE(limiter.take("ada", rate).allowed);
}

TEST(RateLimiter, ZeroIsNoLimitAndIsNotRemembered) {
  ManualClock clock;
  RateLimiter limiter(clock);
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(limiter.take("ada", {0, 1}).allowed);
  EXPECT_EQ(limiter.take("ada", {0, 1}).limit, 0);
  EXPECT_EQ(limiter.remembered(), 0u);
}

TEST(RateLimiter, SettingTheWallClockChangesNothing) {
  ManualClock clock;
  RateLimiter limiter(clock);
  EXPECT_TRUE(limiter.take("ada", {1, 1}).allowed);
  clock.jump_wall(std::chrono::hours(48));
  EXPECT_FALSE(limiter.take("ada", {1, 1}).allowed);
}

TEST(RateLimiter, FloodOfNamesStaysBoundedAndTheBusiestAreRemembered) {
  ManualClock clock;
  RateLimiter limiter(clock, 1000);
  const Rate rate{60, 10};
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(limiter.take("attacker", rate).allowed);
  for (int i = 0; i < 20'000; ++i) {
    EXPECT_TRUE(limiter.take("once " + std::to_string(i), rate).allowed);
    EXPECT_LE(limiter.remembered(), 1000u);
  }
  EXPECT_FALSE(limiter.take("attacker", rate).allowed);
}

TEST(RateLimiter, ForgetsFirstWhoseTimeHasPassed) {
  ManualClock clock;
  RateLimiter limiter(clock, 100);
  for (int i = 0; i < 99; ++i) limiter.take("old " + std::to_string(i), {60, 10});
  clock.advance(Millis{1000});
  limiter.take("new", {60, 10});
  limiter.take("newer", {60, 10});
  EXPECT_EQ(limiter.remembered(), 2u);
}

TEST(RateLimitName, IsTheNetworkOfAnIpv6Address) {
  EXPECT_EQ(rate_limit_name("192.0.2.7"), "192.0.2.7");
  EXPECT_EQ(rate_limit_name("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
  EXPECT_EQ(rate_limit_name("2001:0DB8:1:2::9"), rate_limit_name("2001:db8:1:2:ffff::1"));
  EXPECT_NE(rate_limit_name("2001:db8:1:2::9"), rate_limit_name("2001:db8:1:3::9"));
  EXPECT_EQ(rate_limit_name("unix"), "unix");
}

}  // namespace
}  // namespace limner::platform
