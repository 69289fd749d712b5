#include "platform/circuit_breaker.h"

#include <gtest/gtest.h>

namespace limner::platform {
namespace {

TEST(CircuitBreaker, HoldsBackAfterFailuresInARowAndTriesWithOneCall) {
  ManualClock clock;
  CircuitBreaker breaker("s3", {.failures = 3, .pause = std::chrono::seconds(20)}, clock);
  const auto fail = [&] {
    ASSERT_TRUE(breaker.enter().ok());
    breaker.failed();
  };
  fail();
  fail();
  ASSERT_TRUE(breaker.enter().ok());
  breaker.succeeded();  // begins the count again
  fail();
  fail();
  fail();
  const auto held = breaker.enter();
  ASSERT_FALSE(held.ok());
  EXPECT_EQ(held.error().code, ErrorCode::kUnavailable);
  EXPECT_TRUE(held.error().retryable);
  clock.advance(std::chrono::seconds(20));
  EXPECT_TRUE(breaker.enter().ok());
  EXPECT_FALSE(breaker.enter().ok());  // the first has not come back
  breaker.failed();
  clock.advance(std::chrono::seconds(19));
  EXPECT_FALSE(breaker.enter().ok());
  clock.advance(std::chrono::seconds(1));
  ASSERT_TRUE(breaker.enter().ok());
  breaker.succeeded();
  EXPECT_TRUE(breaker.enter().ok());
}

}  // namespace
}  // namespace limner::platform
