#include "delivery/retries.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace limner::delivery {
namespace {

using namespace std::chrono_literals;
using platform::http::Reply;
using platform::http::Request;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

// Answers one after the other, the last one for ever; remembers when it was asked.
class Server final : public platform::http::Exchange {
 public:
  Result<Reply> send(const Request& request) override {
    const std::scoped_lock lock(mutex_);
    times.push_back(steady_clock::now());
    timeouts.push_back(request.timeout);
    if (request.stop.stop_requested()) return Error{ErrorCode::kCancelled, "stopped"};
    const std::size_t turn = std::min(times.size(), answers.size()) - 1;
    return answers[turn];
  }
  milliseconds gap(std::size_t i) const {
    return std::chrono::duration_cast<milliseconds>(times.at(i + 1) - times.at(i));
  }
  std::vector<Reply> answers{Reply{.status = 503}};
  std::vector<steady_clock::time_point> times;  // by mutex_, like timeouts
  std::vector<milliseconds> timeouts;

 private:
  std::mutex mutex_;
};

void check(const Reply& reply) {
  if (reply.status == 200) return;
  throw Failure(Error{code_of_status(reply.status),
                      "the answer was " + std::to_string(reply.status),
                      status_may_pass(reply.status)});
}

class RetriesTest : public testing::Test {
 protected:
  Result<Reply> call(Retries& retries, const CallLimits& limits = {}) {
    try {
      return retries.call([] { return Request{}; }, check, limits);
    } catch (const Failure& failure) {
      return failure.error();
    }
  }
  Result<Reply> call(const CallLimits& limits = {}) {
    Retries retries("test", options_, server_, clock_);
    return call(retries, limits);
  }

  RetryOptions options_{.first_delay = 40ms};
  Server server_;
  platform::SystemClock clock_;
};

TEST_F(RetriesTest, WaitsDoubleAndAreShortenedByAtMostHalf) {
  EXPECT_EQ(call().error().code, ErrorCode::kUnavailable);
  ASSERT_EQ(server_.times.size(), 4u);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_GE(server_.gap(i), 20ms * (1 << i) - 1ms) << i;
    EXPECT_LT(server_.gap(i), 40ms * (1 << i) + 500ms) << i;
  }
}

TEST_F(RetriesTest, WhatWillNotPassIsNotTriedAgain) {
  for (const int status : {400, 403, 404, 501, 505}) {
    server_.answers = {Reply{.status = status}};
    server_.times.clear();
    EXPECT_FALSE(call().ok()) << status;
    EXPECT_EQ(server_.times.size(), 1u) << status;
  }
  // 5xx of proxies and of Supabase's database beside the usual ones.
  for (const int status : {408, 423, 425, 429, 500, 502, 503, 504, 522, 544}) {
    EXPECT_TRUE(status_may_pass(status)) << status;
  }
}

TEST_F(RetriesTest, ALongerRetryAfterIsObeyed) {
  server_.answers = {Reply{.status = 503, .headers = {{"retry-after", "1"}}}, Reply{.status = 200}};
  EXPECT_TRUE(call().ok());
  EXPECT_GE(server_.gap(0), 990ms);
}

TEST_F(RetriesTest, ARetryAfterBeyondTheTimeEndsAtOnceAndNamesTheFailure) {
  server_.answers = {Reply{.status = 503, .headers = {{"retry-after", "600"}}}};
  const auto ended = call();
  EXPECT_EQ(ended.error().code, ErrorCode::kDeadlineExceeded);
  EXPECT_TRUE(ended.error().retryable);
  EXPECT_NE(ended.error().message.find("the answer was 503"), std::string::npos);
  EXPECT_EQ(server_.times.size(), 1u);
}

TEST_F(RetriesTest, TheCallersTimeShortensTheTriesToo) {
  options_.attempts = 100;
  const auto began = steady_clock::now();
  EXPECT_EQ(call({.within = 150ms}).error().code, ErrorCode::kDeadlineExceeded);
  EXPECT_LT(steady_clock::now() - began, 400ms);
  for (const milliseconds timeout : server_.timeouts) EXPECT_LE(timeout, 150ms);
}

TEST_F(RetriesTest, AStopEndsTheWaitAndSaysNothingAboutTheServer) {
  options_ = {.first_delay = 30s, .breaker = {.failures = 2, .pause = 1h}};
  Retries retries("test", options_, server_, clock_);
  std::stop_source stop;
  const auto began = steady_clock::now();
  std::jthread stopper([&] {
    std::this_thread::sleep_for(50ms);
    stop.request_stop();
  });
  EXPECT_EQ(call(retries, {.stop = stop.get_token()}).error().code, ErrorCode::kCancelled);
  EXPECT_LT(steady_clock::now() - began, 5s);
  EXPECT_EQ(call(retries, {.stop = stop.get_token()}).error().code, ErrorCode::kCancelled);
  // One failure so far: the breaker is still closed.
  server_.answers = {Reply{.status = 200}};
  EXPECT_TRUE(call(retries).ok());
}

TEST_F(RetriesTest, OneCallOfManyProbesAServerThatIsLeftAlone) {
  platform::ManualClock clock;
  options_ = {.attempts = 1, .breaker = {.failures = 3, .pause = 10s}};
  Retries retries("test", options_, server_, clock);
  const auto ask_all = [&] {
    std::atomic<int> well = 0;
    std::vector<std::jthread> threads;
    for (int i = 0; i < 8; ++i) threads.emplace_back([&] { well += call(retries).ok() ? 1 : 0; });
    threads.clear();
    return well.load();
  };
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(call(retries).ok());
  EXPECT_EQ(server_.times.size(), 3u);  // open after three
  EXPECT_EQ(ask_all(), 0);
  EXPECT_EQ(server_.times.size(), 3u);
  clock.advance(11s);
  EXPECT_EQ(ask_all(), 0);  // half open: one asks, and it is still ill
  EXPECT_EQ(server_.times.size(), 4u);
  clock.advance(11s);
  server_.answers = {Reply{.status = 200}};
  EXPECT_GE(ask_all(), 1);  // the probe closes it for those behind
  EXPECT_EQ(ask_all(), 8);
}

}  // namespace
}  // namespace limner::delivery
