#include "platform/http/retry.h"

#include <gtest/gtest.h>

namespace limner::platform::http {
namespace {

using namespace std::chrono_literals;

TEST(Backoff, DoublesUpToItsMostAndIsShortenedByHalfAtMost) {
  NetworkRules rules;
  rules.first_delay = 500ms;
  rules.max_delay = 3s;
  EXPECT_EQ(backoff(rules, 1, 0), 500ms);
  EXPECT_EQ(backoff(rules, 2, 0), 1000ms);
  EXPECT_EQ(backoff(rules, 3, 0), 2000ms);
  EXPECT_EQ(backoff(rules, 4, 0), 3000ms);
  EXPECT_EQ(backoff(rules, 1'000'000, 0), 3000ms);
  EXPECT_EQ(backoff(rules, 2, 1), 500ms);
  EXPECT_EQ(backoff(rules, 2, 0.5), 750ms);
}

// The date is RFC 9110's own example (section 10.2.3); 941846399 is `date -d` of it.
TEST(RetryAfter, IsSecondsOrADate) {
  const auto now = std::chrono::system_clock::from_time_t(941846399 - 90);
  EXPECT_EQ(parse_retry_after("120", now), 120s);
  EXPECT_EQ(parse_retry_after("0", now), 0s);
  EXPECT_EQ(parse_retry_after("Fri, 05 Nov 1999 23:59:59 GMT", now), 90s);
  EXPECT_EQ(parse_retry_after("Fri, 05 Nov 1999 23:50:00 GMT", now), 0s) << "it is over";
  for (const char* text : {"", "-1", "1.5", "soon", "99999999999999999999", "1 s",
                           "Fri, 05 Nov 1999 23:59:59 GMT+1", "Friday"}) {
    EXPECT_FALSE(parse_retry_after(text, now)) << text;
  }
}

}  // namespace
}  // namespace limner::platform::http
