#include "delivery/webhook_store.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <set>
#include <thread>

namespace limner::delivery {
namespace {

using namespace std::chrono_literals;

class WebhookStoreTest : public testing::Test {
 protected:
  WebhookStoreTest()
      : folder_(std::filesystem::temp_directory_path() /
                ("limner webhooks " + std::to_string(getpid()))) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    reopen();
  }
  ~WebhookStoreTest() override { std::filesystem::remove_all(folder_); }

  void reopen() {
    store_.reset();
    auto store = WebhookStore::open(folder_ / "limner.db", clock_);
    ASSERT_TRUE(store.ok()) << store.error().message;
    store_ = std::move(*store);
  }
  Time now() const { return Time(clock_.wall()); }

  static NewDelivery message(const std::string& id, const std::string& url = "https://a.example/") {
    return {.id = id,
            .account = "ann",
            .job_id = "job of " + id,
            .event = "generation.completed",
            .url = url,
            .body = "{\"of\":\"" + id + "\"}"};
  }
  std::size_t add(const NewDelivery& delivery) {
    const auto added = store_->add({&delivery, 1});
    EXPECT_TRUE(added.ok()) << added.error().message;
    return added.ok() ? *added : 0;
  }
  std::vector<DueWebhook> take(std::size_t limit = 64) {
    auto taken = store_->take(now(), limit);
    EXPECT_TRUE(taken.ok()) << taken.error().message;
    return taken.ok() ? std::move(*taken) : std::vector<DueWebhook>{};
  }
  std::set<std::string> taken_ids(std::size_t limit = 64) {
    std::set<std::string> ids;
    for (const DueWebhook& due : take(limit)) ids.insert(due.delivery.id);
    return ids;
  }
  void answer(const DueWebhook& due, int status) {
    const auto written = store_->write(after_attempt(due.delivery, {.status = status}, now(), 0.5));
    ASSERT_TRUE(written.ok()) << written.error().message;
  }
  DeliveryView only() {
    const auto views = store_->list({.account = "ann"});
    EXPECT_TRUE(views.ok() && views->size() == 1);
    return views->front();
  }

  platform::ManualClock clock_;
  std::filesystem::path folder_;
  std::unique_ptr<WebhookStore> store_;
};

TEST_F(WebhookStoreTest, AnIdIsOneMessageAlsoAfterARestart) {
  EXPECT_EQ(add(message("msg_1")), 1u);
  NewDelivery other = message("msg_1");
  other.body = "{\"made\":\"later\"}";
  EXPECT_EQ(add(other), 0u);
  reopen();
  EXPECT_EQ(add(other), 0u);
  const auto due = take();
  ASSERT_EQ(due.size(), 1u);
  EXPECT_EQ(due[0].delivery.body, message("msg_1").body);
  EXPECT_EQ(due[0].delivery.url, "https://a.example/");
  EXPECT_EQ(due[0].secrets.size(), 1u);
}

TEST_F(WebhookStoreTest, WhatIsUnderWayIsNotGivenAgainUntilItIsWritten) {
  add(message("msg_1"));
  const auto first = take();
  ASSERT_EQ(first.size(), 1u);
  EXPECT_TRUE(take().empty());
  answer(first[0], 503);
  EXPECT_TRUE(take().empty()) << "not due yet";
  clock_.advance(5s);
  const auto second = take();
  ASSERT_EQ(second.size(), 1u);
  EXPECT_EQ(second[0].delivery.attempts, 1);
  EXPECT_EQ(second[0].delivery.last_status, 503);
  answer(second[0], 204);
  clock_.advance(100h);
  EXPECT_TRUE(take().empty());
  EXPECT_EQ(only().delivery.state, DeliveryState::kDelivered);
}

TEST_F(WebhookStoreTest, AClaimOfASenderThatIsGoneEnds) {
  add(message("msg_1"));
  EXPECT_EQ(take().size(), 1u);
  clock_.jump_wall(-1h);
  clock_.advance(4min);
  EXPECT_TRUE(take().empty());
  clock_.advance(62min);
  EXPECT_EQ(take().size(), 1u);
  reopen();
  EXPECT_EQ(take().size(), 1u);
}

TEST_F(WebhookStoreTest, AWaitLastsAsLongWhenTheWallClockIsSet) {
  add(message("msg_1"));
  for (const auto jump : {-48h, 48h, -1h, 1h}) {
    auto due = take();
    ASSERT_EQ(due.size(), 1u);
    due[0].delivery = resend(due[0].delivery, now());
    answer(due[0], 503);  // 5 s
    clock_.advance(2s);
    clock_.jump_wall(jump);
    EXPECT_TRUE(take().empty());
    clock_.advance(2s);
    EXPECT_TRUE(take().empty());
    clock_.advance(2s);
  }
  EXPECT_EQ(take().size(), 1u);
}

TEST_F(WebhookStoreTest, AClockSetBackBeforeAStartDelaysAMessageByADayAtMost) {
  add(message("msg_1"));
  clock_.jump_wall(-48h);
  reopen();
  EXPECT_EQ(take().size(), 1u);
}

TEST_F(WebhookStoreTest, ABusyEndpointLeavesTheTurnToOthersAndNothingIsDropped) {
  for (int i = 0; i < 6; ++i) add(message("msg_a" + std::to_string(i), "https://busy.example/"));
  add(message("msg_b", "https://quiet.example/"));
  const auto first = take();
  std::set<std::string> ids;
  for (const DueWebhook& due : first) ids.insert(due.delivery.id);
  EXPECT_EQ(ids, (std::set<std::string>{"msg_a0", "msg_a1", "msg_b"}));
  for (const DueWebhook& due : first) answer(due, 200);
  EXPECT_EQ(taken_ids(), (std::set<std::string>{"msg_a2", "msg_a3"}));
}

TEST_F(WebhookStoreTest, TheOldestDueComesFirst) {
  add(message("msg_1", "https://one.example/"));
  clock_.advance(1s);
  add(message("msg_2", "https://two.example/"));
  EXPECT_EQ(taken_ids(1), std::set<std::string>{"msg_1"});
  EXPECT_EQ(taken_ids(1), std::set<std::string>{"msg_2"});
}

TEST_F(WebhookStoreTest, ManyThreadsTakeEachMessageOnce) {
  for (int i = 0; i < 60; ++i) {
    add(message("msg_" + std::to_string(i), "https://h" + std::to_string(i % 20) + ".example/"));
  }
  std::mutex mutex;
  std::multiset<std::string> sent;  // by mutex
  {
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < 6; ++thread) {
      threads.emplace_back([&] {
        for (int idle = 0; idle < 50;) {
          const auto due = store_->take(now(), 2);
          ASSERT_TRUE(due.ok());
          if (due->empty()) {
            ++idle;
            std::this_thread::sleep_for(1ms);
          }
          for (const DueWebhook& one : *due) {
            {
              const std::scoped_lock lock(mutex);
              sent.insert(one.delivery.id);
            }
            EXPECT_TRUE(
                store_->write(after_attempt(one.delivery, {.status = 200}, now(), 0.5)).ok());
          }
        }
      });
    }
  }
  EXPECT_EQ(sent.size(), 60u);
  EXPECT_EQ(std::set<std::string>(sent.begin(), sent.end()).size(), 60u);
}

TEST_F(WebhookStoreTest, GoneDisablesTheEndpointForAllItsMessagesUntilOneIsResent) {
  add(message("msg_1"));
  add(message("msg_2"));
  add(message("msg_3"));
  add(message("msg_other", "https://b.example/"));
  auto due = take();
  ASSERT_EQ(due.size(), 3u);
  answer(due[0], 410);
  answer(due[1], 500);  // was under way: nobody waits for it any longer
  answer(due[2], 200);
  add(message("msg_4"));
  clock_.advance(100h);
  EXPECT_TRUE(take().empty());
  const auto failed = store_->list({.account = "ann", .state = DeliveryState::kFailed});
  ASSERT_EQ(failed->size(), 4u);
  EXPECT_EQ(failed->front().delivery.id, "msg_4");
  EXPECT_EQ(failed->front().delivery.last_error, "the endpoint is disabled");
  const auto again = store_->resend("ann", "msg_2");
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(again->delivery.attempts, 0);
  due = take();
  ASSERT_EQ(due.size(), 1u);
  EXPECT_EQ(due[0].delivery.id, "msg_2");
  EXPECT_EQ(due[0].delivery.body, message("msg_2").body);
  add(message("msg_5"));
  EXPECT_EQ(taken_ids(), std::set<std::string>{"msg_5"});
}

TEST_F(WebhookStoreTest, ResendWantsAMessageOfTheAccountThatIsNotBeingSent) {
  add(message("msg_1"));
  EXPECT_EQ(store_->resend("bob", "msg_1").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(store_->resend("ann", "msg_2").error().code, ErrorCode::kNotFound);
  const auto due = take();
  EXPECT_EQ(store_->resend("ann", "msg_1").error().code, ErrorCode::kUnavailable);
  answer(due.at(0), 200);
  EXPECT_TRUE(store_->resend("ann", "msg_1").ok());
  EXPECT_EQ(taken_ids(), std::set<std::string>{"msg_1"});
}

TEST_F(WebhookStoreTest, ANewSecretSignsBesideTheOldOneForADay) {
  const std::string old_text = store_->new_secret("ann")->secret.text();
  ASSERT_TRUE(store_->new_secret("bob").ok());
  clock_.advance(1h);
  add(message("msg_1"));
  auto due = take();
  ASSERT_EQ(due.at(0).secrets.size(), 1u);
  EXPECT_EQ(due[0].secrets[0].text(), old_text);
  answer(due[0], 500);
  const std::string new_text = store_->new_secret("ann")->secret.text();
  EXPECT_NE(new_text, old_text);
  clock_.advance(23h);
  due = take();
  ASSERT_EQ(due.at(0).secrets.size(), 2u);
  EXPECT_EQ(due[0].secrets[0].text(), new_text);
  EXPECT_EQ(due[0].secrets[1].text(), old_text);
  answer(due[0], 500);
  clock_.advance(1h + 1s);
  due = take();
  ASSERT_EQ(due.at(0).secrets.size(), 1u);
  EXPECT_EQ(due[0].secrets[0].text(), new_text);
}

TEST_F(WebhookStoreTest, ARequestsOwnSecretAloneSignsIt) {
  const WebhookSecret own = WebhookSecret::make();
  NewDelivery delivery = message("msg_1");
  delivery.secret = own.text();
  add(delivery);
  const auto due = take();
  ASSERT_EQ(due.at(0).secrets.size(), 1u);
  EXPECT_EQ(due[0].secrets[0].text(), own.text());
  delivery = message("msg_2");
  delivery.secret = "whsec_short";
  const auto refused = store_->add({&delivery, 1});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(refused.error().message.find("short"), std::string::npos);
}

TEST_F(WebhookStoreTest, ListGoesByAccountNewestFirstInPages) {
  for (int i = 0; i < 5; ++i) add(message("msg_" + std::to_string(i)));
  NewDelivery foreign = message("msg_foreign");
  foreign.account = "bob";
  add(foreign);
  const auto first = store_->list({.account = "ann", .limit = 3});
  ASSERT_EQ(first->size(), 3u);
  EXPECT_EQ(first->front().delivery.id, "msg_4");
  EXPECT_EQ(first->front().job_id, "job of msg_4");
  EXPECT_EQ(first->front().event, "generation.completed");
  EXPECT_EQ(first->front().created_at, now());
  const auto second =
      store_->list({.account = "ann", .before = first->back().sequence, .limit = 3});
  ASSERT_EQ(second->size(), 2u);
  EXPECT_EQ(second->back().delivery.id, "msg_0");
  EXPECT_TRUE(store_->list({.account = "ann", .state = DeliveryState::kDelivered})->empty());
}

TEST_F(WebhookStoreTest, TheAccountsOwnEndpointIsSetReadAndRemoved) {
  EXPECT_FALSE(store_->endpoint("ann")->has_value());
  ASSERT_TRUE(
      store_->set_endpoint("ann", {.url = "https://a.example/", .events = {"queued", "failed"}})
          .ok());
  reopen();
  auto endpoint = *store_->endpoint("ann");
  ASSERT_TRUE(endpoint.has_value());
  EXPECT_EQ(endpoint->url, "https://a.example/");
  EXPECT_EQ(endpoint->events, (std::vector<std::string>{"queued", "failed"}));
  EXPECT_FALSE(endpoint->disabled);
  add(message("msg_1"));
  answer(take().at(0), 410);
  EXPECT_TRUE((*store_->endpoint("ann"))->disabled);
  ASSERT_TRUE(store_->set_endpoint("ann", {.url = "https://a.example/"}).ok());
  EXPECT_FALSE((*store_->endpoint("ann"))->disabled);
  EXPECT_TRUE((*store_->endpoint("ann"))->events.empty());
  ASSERT_TRUE(store_->remove_endpoint("ann").ok());
  EXPECT_FALSE(store_->endpoint("ann")->has_value());
}

TEST_F(WebhookStoreTest, SweepDropsWhatHasEndedLongAgo) {
  add(message("msg_done"));
  answer(take().at(0), 200);
  add(message("msg_waiting"));
  clock_.advance(1h);
  add(message("msg_young"));
  answer(take(1).at(0), 500);
  EXPECT_EQ(store_->sweep(now() - 2h).value(), 0u);
  EXPECT_EQ(store_->sweep(now() - 30min).value(), 1u);
  EXPECT_EQ(store_->list({.account = "ann"})->size(), 2u);
}

TEST_F(WebhookStoreTest, AFolderThatIsNotThereIsAnErrorNamingIt) {
  const auto store = WebhookStore::open("/no/such/folder/limner.db", clock_);
  ASSERT_FALSE(store.ok());
  EXPECT_NE(store.error().message.find("/no/such/folder"), std::string::npos);
}

}  // namespace
}  // namespace limner::delivery
