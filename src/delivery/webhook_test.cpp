#include <gtest/gtest.h>

#include <deque>
#include <map>

#include "delivery/crypto.h"
#include "delivery/webhook_sender.h"

namespace limner::delivery {
namespace {

using namespace std::chrono_literals;
using platform::http::Reply;
using platform::http::Request;

constexpr std::string_view kSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

// The vector of the specification's own libraries.
TEST(WebhookSignature, OfTheStandardsVector) {
  const auto secret = WebhookSecret::parse(kSecret);
  ASSERT_TRUE(secret.ok());
  EXPECT_EQ(secret->sign("msg_p5jXN8AQM9LWM0D4loKWxJek", std::chrono::sys_seconds(1614265330s),
                         R"({"test": 2432232314})"),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
  EXPECT_EQ(secret->text(), kSecret);
}

// RFC 8032, section 7.1, test 1 has this key; the signature over our text was made with
// Python's cryptography package.
TEST(WebhookSignature, OfAnEd25519Key) {
  const auto secret = WebhookSecret::parse("whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=");
  ASSERT_TRUE(secret.ok()) << secret.error().message;
  EXPECT_EQ(secret->public_text(), "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
  EXPECT_EQ(secret->sign("msg_1", std::chrono::sys_seconds(1614265330s), "{}"),
            "v1a,hGvhpd3FOe3YsVEIIX1pYKgY77U2Cj/jLClZW2K4VpFr77TQ/"
            "Fy9LFlysuLiC06UQhE5GOgPzDr3hPQ7QhqpDw==");
  EXPECT_TRUE(WebhookSecret::parse("whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2DXWpgBgrEKt9VL/"
                                   "tPJZAc6DuFy89qmIyWvAhpo9wdRGg==")
                  .ok());
}

TEST(WebhookSignature, WeakOrBrokenSecretsAreRefusedWithoutRepeatingThem) {
  const std::string short_key = base64(std::vector<std::uint8_t>(23, 65));
  for (const std::string& bad :
       {std::string("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), "whsec_" + short_key,
        "whsec_" + base64(std::vector<std::uint8_t>(65, 65)), std::string("whsec_%%%"),
        "whsk_" + short_key, "whsk_" + base64(std::vector<std::uint8_t>(64, 65)), std::string()}) {
    const auto parsed = WebhookSecret::parse(bad);
    ASSERT_FALSE(parsed.ok()) << bad;
    EXPECT_EQ(parsed.error().message.find(short_key), std::string::npos);
  }
  const WebhookSecret made = WebhookSecret::make();
  EXPECT_EQ(WebhookSecret::parse(made.text())->text(), made.text());
  EXPECT_NE(WebhookSecret::make().text(), made.text());
}

TEST(WebhookSignature, TwoSecretsGiveTwoSignatures) {
  const std::vector<WebhookSecret> secrets = {WebhookSecret::parse(kSecret).value(),
                                              WebhookSecret::make()};
  const auto headers =
      webhook_headers("msg_p5jXN8AQM9LWM0D4loKWxJek", std::chrono::sys_seconds(1614265330s),
                      R"({"test": 2432232314})", secrets);
  ASSERT_TRUE(headers.ok());
  EXPECT_EQ((*headers)[0], "webhook-id: msg_p5jXN8AQM9LWM0D4loKWxJek");
  EXPECT_EQ((*headers)[1], "webhook-timestamp: 1614265330");
  EXPECT_TRUE((*headers)[2].starts_with(
      "webhook-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= v1,"));
  for (const char* id : {"", "msg.1", "msg 1", "msg\r\n1"}) {
    EXPECT_FALSE(webhook_headers(id, {}, "{}", secrets).ok()) << id;
  }
  EXPECT_FALSE(webhook_headers("msg_1", {}, "{}", {}).ok());
  const std::string id = make_webhook_id();
  EXPECT_EQ(id.size(), 31u);
  EXPECT_TRUE(webhook_headers(id, {}, "{}", secrets).ok());
  EXPECT_NE(make_webhook_id(), id);
}

TEST(WebhookSchedule, TenAttemptsOverSeventyFiveHours) {
  const std::chrono::milliseconds wanted[] = {5s, 5min, 30min, 2h, 5h, 10h, 14h, 20h, 24h};
  std::chrono::milliseconds total = 0ms;
  for (int attempt = 1; attempt <= 9; ++attempt) {
    EXPECT_EQ(webhook_wait(attempt, 0.5), wanted[attempt - 1]);
    EXPECT_EQ(webhook_wait(attempt, 0.0), wanted[attempt - 1] * 9 / 10);
    EXPECT_EQ(webhook_wait(attempt, 1.0), wanted[attempt - 1] * 11 / 10);
    total += *webhook_wait(attempt, 0.5);
  }
  EXPECT_EQ(total, 75h + 35min + 5s);
  EXPECT_EQ(webhook_wait(10, 0.5), std::nullopt);
}

constexpr Time kNow{std::chrono::hours(24 * 20000)};

WebhookDelivery message() {
  return {.id = "msg_1",
          .endpoint = "e1",
          .url = "https://hooks.example.com/limner",
          .body = "{}",
          .due = kNow};
}

TEST(WebhookDelivery, SuccessEndsIt) {
  for (const int status : {200, 201, 202, 204, 299}) {
    const auto step = after_attempt(message(), {.status = status}, kNow, 0.5);
    EXPECT_EQ(step.delivery.state, DeliveryState::kDelivered);
    EXPECT_EQ(step.delivery.attempts, 1);
    EXPECT_FALSE(step.disable_endpoint);
  }
}

TEST(WebhookDelivery, AnythingElseIsTriedAgainOnSchedule) {
  for (const int status : {0, 100, 199, 300, 301, 307, 400, 401, 404, 429, 500, 504}) {
    const auto step = after_attempt(message(), {.status = status, .error = "no answer"}, kNow, 0.5);
    EXPECT_EQ(step.delivery.state, DeliveryState::kPending) << status;
    EXPECT_EQ(step.delivery.due, kNow + 5s) << status;
    EXPECT_EQ(step.delivery.last_status, status);
    EXPECT_FALSE(step.delivery.last_error.empty());
    EXPECT_FALSE(step.disable_endpoint);
  }
}

TEST(WebhookDelivery, GoneDisablesTheEndpoint) {
  const auto step = after_attempt(message(), {.status = 410}, kNow, 0.5);
  EXPECT_EQ(step.delivery.state, DeliveryState::kFailed);
  EXPECT_TRUE(step.disable_endpoint);
}

TEST(WebhookDelivery, RetryAfterLengthensTheWaitUpToADay) {
  const auto due = [](std::chrono::seconds after) {
    return after_attempt(message(), {.status = 429, .retry_after = after}, kNow, 0.5).delivery.due;
  };
  EXPECT_EQ(due(0s), kNow + 5s);
  EXPECT_EQ(due(4s), kNow + 5s);
  EXPECT_EQ(due(60s), kNow + 60s);
  EXPECT_EQ(due(100h), kNow + 24h);
}

TEST(WebhookDelivery, TheLastFailureEndsItAndAResendBeginsAgain) {
  WebhookDelivery delivery = message();
  Time now = kNow;
  int attempts = 0;
  bool disabled = false;
  while (delivery.state == DeliveryState::kPending) {
    now = delivery.due;
    auto step = after_attempt(delivery, {.status = 503}, now, 0.5);
    delivery = step.delivery;
    disabled = step.disable_endpoint;
    ++attempts;
  }
  EXPECT_EQ(attempts, 10);
  EXPECT_TRUE(disabled);
  EXPECT_EQ(now, kNow + 75h + 35min + 5s);
  const WebhookDelivery again = resend(delivery, now);
  EXPECT_EQ(again.state, DeliveryState::kPending);
  EXPECT_EQ(again.id, "msg_1");
  EXPECT_EQ(again.attempts, 0);
  EXPECT_EQ(again.due, now);
}

TEST(WebhookBody, HasTypeTimeAndData) {
  EXPECT_EQ(
      webhook_body("generation.completed", Time(1667507186344ms), R"({"a":1})"),
      R"({"type":"generation.completed","timestamp":"2022-11-03T20:26:26.344Z","data":{"a":1}})");
}

TEST(WebhookUrl, OnlyHttpsToPublicAddressesUnlessAllowed) {
  const auto nothing = webhook_network({});
  EXPECT_TRUE(check_webhook_url("https://hooks.example.com/a", nothing).ok());
  EXPECT_TRUE(check_webhook_url("https://8.8.8.8/a", nothing).ok());
  for (const char* bad :
       {"http://hooks.example.com/a", "ftp://a/", "https://user@example.com/", "https://127.0.0.1/",
        "https://[::1]/", "https://169.254.169.254/", "https://10.0.0.1/", "https://2130706433/",
        "https://0x7f.1/", "https://[::ffff:127.0.0.1]/", "https://100.64.0.1/", "not a url"}) {
    EXPECT_FALSE(check_webhook_url(bad, nothing).ok()) << bad;
  }
  const auto here = webhook_network(platform::http::parse_address_ranges("127.0.0.0/8").value());
  EXPECT_TRUE(check_webhook_url("http://127.0.0.1:9000/", here).ok());
  EXPECT_FALSE(check_webhook_url("http://10.0.0.1:9000/", here).ok());
  EXPECT_FALSE(check_webhook_url("http://8.8.8.8/", here).ok());
}

// Answers what it is told to and keeps what it was sent.
class FakeExchange final : public platform::http::Exchange {
 public:
  Result<Reply> send(const Request& request) override {
    const std::scoped_lock lock(mutex_);
    headers.push_back(request.headers);
    urls.push_back(request.url.text());
    if (next.empty()) return Reply{.status = 204};
    auto reply = next.front();
    next.pop_front();
    return reply;
  }
  std::deque<Result<Reply>> next;
  std::vector<std::vector<std::string>> headers;
  std::vector<std::string> urls;

 private:
  std::mutex mutex_;
};

class MemoryOutbox final : public WebhookOutbox {
 public:
  Result<std::vector<DueWebhook>> take(Time now, std::size_t limit) override {
    std::vector<DueWebhook> due;
    for (const auto& [id, row] : rows) {
      if (row.state == DeliveryState::kPending && row.due <= now && due.size() < limit) {
        due.push_back({row, {WebhookSecret::parse(kSecret).value()}});
      }
    }
    return due;
  }
  Result<void> write(const DeliveryStep& step) override {
    const std::scoped_lock lock(mutex_);
    if (fail_writes) return Error{ErrorCode::kIo, "the disk is gone"};
    rows[step.delivery.id] = step.delivery;
    if (step.disable_endpoint) disabled.push_back(step.delivery.endpoint);
    return {};
  }
  std::map<std::string, WebhookDelivery> rows;
  std::vector<std::string> disabled;
  bool fail_writes = false;

 private:
  std::mutex mutex_;
};

class Sending : public testing::Test {
 protected:
  void add(const std::string& id, const std::string& endpoint) {
    WebhookDelivery row = message();
    row.id = id;
    row.endpoint = endpoint;
    row.due = Time(clock_.wall());
    outbox_.rows[id] = row;
  }
  std::string header(std::size_t request, std::string_view name) const {
    for (const std::string& line : exchange_.headers.at(request)) {
      if (line.starts_with(name)) return line.substr(name.size() + 2);
    }
    return "";
  }

  platform::ManualClock clock_;
  FakeExchange exchange_;
  MemoryOutbox outbox_;
  WebhookSender sender_{exchange_, clock_};
};

TEST_F(Sending, AllTenAttemptsOnAFakeClockWithOneIdAndTheirOwnTimes) {
  add("msg_1", "e1");
  std::vector<std::string> timestamps;
  for (int i = 0; i < 20; ++i) exchange_.next.push_back(Reply{.status = 500});
  const auto begin = clock_.wall();
  platform::Millis last = begin;
  for (int hour_minutes = 0; hour_minutes < 100 * 60; ++hour_minutes) {
    const auto sent = sender_.run_due(outbox_);
    ASSERT_TRUE(sent.ok());
    if (*sent > 0) last = clock_.wall();
    clock_.advance(1min);
  }
  ASSERT_EQ(exchange_.headers.size(), 10u);
  for (std::size_t i = 0; i < 10; ++i) {
    EXPECT_EQ(header(i, "webhook-id"), "msg_1");
    timestamps.push_back(header(i, "webhook-timestamp"));
    EXPECT_TRUE(i == 0 || timestamps[i] > timestamps[i - 1]);
  }
  EXPECT_GT(last - begin, 75h * 9 / 10);
  EXPECT_LT(last - begin, 76h * 11 / 10);
  EXPECT_EQ(outbox_.rows["msg_1"].state, DeliveryState::kFailed);
  EXPECT_EQ(outbox_.disabled, std::vector<std::string>{"e1"});
}

TEST_F(Sending, TheSignatureFitsWhatIsSent) {
  add("msg_1", "e1");
  ASSERT_EQ(sender_.run_due(outbox_).value(), 1u);
  const std::chrono::sys_seconds now{
      std::chrono::duration_cast<std::chrono::seconds>(clock_.wall())};
  EXPECT_EQ(header(0, "webhook-signature"),
            WebhookSecret::parse(kSecret)->sign("msg_1", now, "{}"));
  EXPECT_EQ(header(0, "Content-Type"), "application/json");
  EXPECT_EQ(outbox_.rows["msg_1"].state, DeliveryState::kDelivered);
}

TEST_F(Sending, RetryAfterOfTheAnswerIsObeyed) {
  add("msg_1", "e1");
  exchange_.next.push_back(Reply{.status = 503, .headers = {{"retry-after", "120"}}});
  ASSERT_TRUE(sender_.run_due(outbox_).ok());
  EXPECT_EQ(outbox_.rows["msg_1"].due, Time(clock_.wall()) + 120s);
}

TEST_F(Sending, OneEndpointDoesNotTakeTheWholeRound) {
  for (int i = 0; i < 6; ++i) add("msg_a" + std::to_string(i), "busy");
  add("msg_b", "quiet");
  EXPECT_EQ(sender_.run_due(outbox_).value(), 3u);
  EXPECT_EQ(outbox_.rows["msg_b"].state, DeliveryState::kDelivered);
}

TEST_F(Sending, AMessageThatCouldNotBeWrittenDownIsSentAgain) {
  add("msg_1", "e1");
  outbox_.fail_writes = true;
  EXPECT_EQ(sender_.run_due(outbox_).error().message, "the disk is gone");
  outbox_.fail_writes = false;
  EXPECT_EQ(sender_.run_due(outbox_).value(), 1u);
  EXPECT_EQ(exchange_.headers.size(), 2u);
  EXPECT_EQ(outbox_.rows["msg_1"].attempts, 1);
}

TEST_F(Sending, WhatCannotBeSentIsAFailedAttempt) {
  add("msg_1", "e1");
  outbox_.rows["msg_1"].body = std::string(20'001, 'x');
  add("msg_2", "e2");
  outbox_.rows["msg_2"].url = "https://user@example.com/";
  add("msg_3", "e3");
  exchange_.next.push_back(Error{ErrorCode::kUnavailable, "nobody there", true});
  ASSERT_EQ(sender_.run_due(outbox_).value(), 3u);
  EXPECT_EQ(exchange_.headers.size(), 1u);
  EXPECT_NE(outbox_.rows["msg_1"].last_error.find("20001"), std::string::npos);
  EXPECT_NE(outbox_.rows["msg_2"].last_error.find("URL"), std::string::npos);
  EXPECT_EQ(outbox_.rows["msg_3"].last_error, "nobody there");
  EXPECT_EQ(outbox_.rows["msg_3"].state, DeliveryState::kPending);
}

}  // namespace
}  // namespace limner::delivery
