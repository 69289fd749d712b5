#include "gateway/api_v1/event_hub.h"

#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_future.hpp>
#include <thread>

namespace limner::gateway::api_v1 {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using Steady = std::chrono::steady_clock;

contract::JobEvent event(const std::string& job, std::int64_t id, const std::string& type) {
  return {job, id, type, "{}", 0};
}

asio::awaitable<std::vector<std::int64_t>> next_ids(Subscription& subscription,
                                                    Steady::duration patience) {
  co_await subscription.wait(Steady::now() + patience);
  std::vector<std::int64_t> ids;
  const auto events = subscription.take();
  for (const auto& one : events) ids.push_back(one->id);
  co_return ids;
}

// Two threads, as a server has.
class EventHubTest : public ::testing::Test {
 protected:
  std::vector<std::int64_t> next(Subscription& subscription, Steady::duration patience = 5s) {
    return asio::co_spawn(context_, next_ids(subscription, patience), asio::use_future).get();
  }
  EventHub hub_;
  asio::io_context context_;
  asio::executor_work_guard<asio::io_context::executor_type> work_{context_.get_executor()};
  std::jthread one_{[this] { context_.run(); }}, other_{[this] { context_.run(); }};
  void TearDown() override { work_.reset(); }
};

TEST_F(EventHubTest, BringsAJobsEventsToItsReadersOnly) {
  const auto mine = hub_.subscribe("a", context_.get_executor());
  const auto theirs = hub_.subscribe("b", context_.get_executor());
  hub_.publish(event("a", 2, "image"));
  hub_.publish(event("a", 1, "status"));
  EXPECT_EQ(next(*mine), (std::vector<std::int64_t>{1, 2}));
  EXPECT_TRUE(next(*theirs, 10ms).empty());
}

TEST_F(EventHubTest, ASlowReaderLosesOldProgressAndNeverAStatus) {
  const auto reader = hub_.subscribe("a", context_.get_executor());
  for (std::int64_t id = 1; id <= 3000; ++id) {
    hub_.publish(event("a", id, id % 1000 == 0 ? "status" : id % 2 == 0 ? "progress" : "preview"));
  }
  EXPECT_EQ(next(*reader), (std::vector<std::int64_t>{1000, 2000, 2998, 2999, 3000}));
}

TEST_F(EventHubTest, WakesAReaderThatWaits) {
  const auto reader = hub_.subscribe("a", context_.get_executor());
  for (std::int64_t id = 1; id <= 200; ++id) {
    auto waiting = asio::co_spawn(context_, next_ids(*reader, 20s), asio::use_future);
    hub_.publish(event("a", id, "status"));
    ASSERT_EQ(waiting.wait_for(10s), std::future_status::ready) << "a publication was lost";
    ASSERT_EQ(waiting.get(), (std::vector<std::int64_t>{id}));
  }
}

TEST_F(EventHubTest, ClosingAndWakingEndAWait) {
  const auto reader = hub_.subscribe("a", context_.get_executor());
  auto waiting = asio::co_spawn(context_, next_ids(*reader, 20s), asio::use_future);
  reader->wake();
  ASSERT_EQ(waiting.wait_for(10s), std::future_status::ready);
  EXPECT_FALSE(reader->closed());
  waiting = asio::co_spawn(context_, next_ids(*reader, 20s), asio::use_future);
  hub_.close();
  ASSERT_EQ(waiting.wait_for(10s), std::future_status::ready);
  EXPECT_TRUE(reader->closed());
  EXPECT_TRUE(hub_.subscribe("b", context_.get_executor())->closed());
}

TEST_F(EventHubTest, ForgetsReadersThatAreGone) {
  {
    std::vector<std::unique_ptr<Subscription>> readers;
    for (int i = 0; i < 1000; ++i) readers.push_back(hub_.subscribe("a", context_.get_executor()));
    EXPECT_EQ(hub_.subscriptions(), 1000u);
    hub_.publish(event("a", 1, "status"));
    EXPECT_EQ(next(*readers.back()).size(), 1u);
  }
  EXPECT_EQ(hub_.subscriptions(), 0u);
  hub_.publish(event("a", 2, "status"));
}

}  // namespace
}  // namespace limner::gateway::api_v1
