// Webhooks against a real receiver; run.py starts it.
#include <gtest/gtest.h>

#include <cstdlib>

#include "delivery/webhook_sender.h"

namespace limner::delivery {
namespace {

using platform::http::parse_address_ranges;
using platform::http::WebExchange;

class Webhooks : public testing::Test {
 protected:
  AttemptOutcome send(const std::string& path, const std::string& secret = kSecret) {
    DueWebhook due{.delivery = {.id = make_webhook_id(),
                                .endpoint = "e1",
                                .url = base_ + path,
                                .body = webhook_body("generation.completed",
                                                     std::chrono::system_clock::now(), "{}")},
                   .secrets = {WebhookSecret::parse(secret).value()}};
    return WebhookSender(exchange_, clock_, {.timeout = std::chrono::milliseconds(500)})
        .attempt(due);
  }
  std::string count() {
    const auto reply = exchange_.send({.url = platform::http::parse_url(base_ + "/count").value()});
    return reply ? std::string(reply->text()) : reply.error().message;
  }

  static constexpr const char* kSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
  const std::string base_ =
      std::getenv("LIMNER_TEST_WEBHOOKS") ? std::getenv("LIMNER_TEST_WEBHOOKS") : "";
  platform::SystemClock clock_;
  WebExchange exchange_{webhook_network(parse_address_ranges("127.0.0.0/8").value())};
};

TEST_F(Webhooks, AReceiverVerifiesTheSignature) {
  EXPECT_EQ(send("/ok").status, 204);
  EXPECT_EQ(send("/ok", WebhookSecret::make().text()).status, 401);
}

TEST_F(Webhooks, ARedirectIsAFailureAndNotFollowed) {
  const std::string before = count();
  EXPECT_EQ(send("/redirect").status, 302);
  EXPECT_EQ(count(), before);
}

TEST_F(Webhooks, WhatTheReceiverAsksForArrives) {
  EXPECT_EQ(send("/gone").status, 410);
  const AttemptOutcome busy = send("/busy");
  EXPECT_EQ(busy.status, 429);
  EXPECT_EQ(busy.retry_after, std::chrono::seconds(7));
}

TEST_F(Webhooks, ASlowAnswerIsNoneAndAnEndlessOneIsCut) {
  const auto begin = clock_.now();
  const AttemptOutcome slow = send("/slow");
  EXPECT_EQ(slow.status, 0);
  EXPECT_NE(slow.error.find("500 ms"), std::string::npos) << slow.error;
  EXPECT_EQ(send("/endless").status, 200);
  EXPECT_LT(clock_.now() - begin, std::chrono::milliseconds(1500));
}

TEST_F(Webhooks, WithoutAnExceptionNoSocketIsMadeToThisMachine) {
  const std::string before = count();
  WebExchange strict{webhook_network({})};
  for (const std::string host : {"127.0.0.1", "localhost"}) {
    const std::string port = base_.substr(base_.rfind(':'));
    DueWebhook due{.delivery = {.id = "msg_1", .url = "https://" + host + port + "/ok"},
                   .secrets = {WebhookSecret::make()}};
    const AttemptOutcome outcome = WebhookSender(strict, clock_).attempt(due);
    EXPECT_EQ(outcome.status, 0);
    EXPECT_NE(outcome.error.find("loopback"), std::string::npos) << outcome.error;
  }
  EXPECT_EQ(count(), before);
}

}  // namespace
}  // namespace limner::delivery
