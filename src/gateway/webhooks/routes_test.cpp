#include "gateway/webhooks/routes.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <nlohmann/json.hpp>

#include "gateway/http/problem.h"
#include "queue/sql_store.h"

namespace limner::gateway::webhooks {
namespace {

using namespace std::chrono_literals;
using http::beast_http::verb;
using nlohmann::json;

class NoReceiver final : public platform::http::Exchange {
 public:
  Result<platform::http::Reply> send(const platform::http::Request&) override {
    return Error{ErrorCode::kUnavailable, "nobody there", true};
  }
};

struct Answer {
  int status = 0;
  json body{};
  std::string cache_control{};
};

class WebhookRoutes : public testing::Test {
 protected:
  WebhookRoutes()
      : folder_(std::filesystem::temp_directory_path() /
                ("limner webhook routes " + std::to_string(getpid()))) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    jobs_ = queue::open_sqlite_store(folder_ / "limner.db").value_or_throw();
    messages_ = delivery::WebhookStore::open(folder_ / "limner.db", clock_).value_or_throw();
    notifier_ = std::make_unique<Notifier>(
        NotifierServices{*jobs_, *messages_, exchange_, clock_, metrics_, log_},
        [](const contract::Job&, const std::optional<contract::JobEvent>&) { return json(); });
    add_routes(router_, {*messages_, *notifier_, blocking_, delivery::webhook_network({})});
  }
  ~WebhookRoutes() override { std::filesystem::remove_all(folder_); }

  // What the audit log has, oldest first.
  std::vector<std::string> acts() {
    std::vector<std::string> found;
    for (const auto& entry :
         platform::list_audit(folder_ / "limner.db", INT64_MAX, 100).value_or_throw()) {
      found.insert(found.begin(), entry.act.subject + " " + entry.act.action);
    }
    return found;
  }

  Answer ask(verb method, const std::string& target, const std::string& body = "",
             const http::Caller& caller = {
                 .account = "ann", .may_generate = true, .may_read = true}) {
    http::Request request;
    request.method = method;
    request.target = target;
    request.body = body;
    request.caller = caller;
    Answer answer;
    try {
      const auto found = router_.find(request);
      boost::asio::io_context context;
      std::exception_ptr thrown;
      boost::asio::co_spawn(context, found.handler(request),
                            [&](std::exception_ptr error, http::Response response) {
                              thrown = error;
                              answer.status = static_cast<int>(response.status);
                              answer.cache_control = std::string(response.headers["Cache-Control"]);
                              if (!response.body.empty()) answer.body = json::parse(response.body);
                            });
      context.run();
      if (thrown) std::rethrow_exception(thrown);
    } catch (...) {
      const auto problem = http::problem_of(std::current_exception());
      answer.status = static_cast<int>(problem.status);
      answer.body = {{"code", problem.code}, {"detail", problem.detail}};
      for (const auto& field : problem.fields) answer.body["errors"][field.field] = field.message;
    }
    return answer;
  }
  void add(const std::string& id, const std::string& account = "ann") {
    const delivery::NewDelivery message{.id = id,
                                        .account = account,
                                        .job_id = "job",
                                        .event = "generation.completed",
                                        .url = "https://a.example/",
                                        .body = "{}"};
    messages_->add({&message, 1}).value_or_throw();
  }

  platform::ManualClock clock_;
  NoReceiver exchange_;
  platform::Metrics metrics_;
  NoLog log_;
  std::filesystem::path folder_;
  std::unique_ptr<queue::Store> jobs_;
  std::unique_ptr<delivery::WebhookStore> messages_;
  std::unique_ptr<Notifier> notifier_;
  http::Blocking blocking_{1};
  http::Router router_;
};

TEST_F(WebhookRoutes, DeliveriesAreListedInPages) {
  for (int i = 0; i < 5; ++i) add("msg_" + std::to_string(i));
  add("msg_foreign", "bob");
  const Answer first = ask(verb::get, "/v1/webhooks/deliveries?limit=3");
  ASSERT_EQ(first.status, 200);
  ASSERT_EQ(first.body["data"].size(), 3u);
  EXPECT_EQ(first.body["data"][0], (json{{"id", "msg_4"},
                                         {"request_id", "job"},
                                         {"type", "generation.completed"},
                                         {"url", "https://a.example/"},
                                         {"status", "pending"},
                                         {"attempts", 0},
                                         {"created_at", "2023-11-14T22:13:20.000Z"},
                                         {"next_attempt_at", "2023-11-14T22:13:20.000Z"},
                                         {"last_status", nullptr},
                                         {"last_error", nullptr}}));
  const std::string cursor = first.body["next_cursor"];
  const Answer second = ask(verb::get, "/v1/webhooks/deliveries?limit=3&cursor=" + cursor);
  ASSERT_EQ(second.body["data"].size(), 2u);
  EXPECT_EQ(second.body["data"][1]["id"], "msg_0");
  EXPECT_TRUE(second.body["next_cursor"].is_null());
  EXPECT_TRUE(ask(verb::get, "/v1/webhooks/deliveries?status=delivered").body["data"].empty());
}

TEST_F(WebhookRoutes, WrongQueriesAreNamed) {
  for (const std::string query : {"status=lost", "limit=0", "limit=x", "cursor=%21", "state=x"}) {
    const Answer answer = ask(verb::get, "/v1/webhooks/deliveries?" + query);
    EXPECT_EQ(answer.status, 400) << query;
    EXPECT_TRUE(answer.body.contains("errors") || !answer.body["detail"].empty()) << query;
  }
}

TEST_F(WebhookRoutes, AResentMessageBeginsAgain) {
  add("msg_1");
  ASSERT_EQ(notifier_->send_one().value_or_throw(), 1u);
  Answer listed = ask(verb::get, "/v1/webhooks/deliveries");
  EXPECT_EQ(listed.body["data"][0]["attempts"], 1);
  EXPECT_EQ(listed.body["data"][0]["last_error"], "nobody there");
  EXPECT_EQ(notifier_->send_one().value_or_throw(), 0u);
  const Answer resent = ask(verb::post, "/v1/webhooks/deliveries/msg_1/resend");
  EXPECT_EQ(resent.status, 202);
  EXPECT_EQ(resent.body["id"], "msg_1");
  EXPECT_EQ(resent.body["status"], "pending");
  EXPECT_EQ(notifier_->send_one().value_or_throw(), 1u);
  EXPECT_EQ(ask(verb::post, "/v1/webhooks/deliveries/msg_2/resend").status, 404);
  EXPECT_EQ(ask(verb::post, "/v1/webhooks/deliveries/msg_1/resend", "",
                {.account = "bob", .may_generate = true})
                .status,
            404);
}

TEST_F(WebhookRoutes, ASecretIsShownOnceAndSigns) {
  const Answer made = ask(verb::post, "/v1/webhooks/secret");
  ASSERT_EQ(made.status, 201);
  EXPECT_EQ(made.cache_control, "no-store");
  EXPECT_EQ(made.body["previous_valid_until"], "2023-11-15T22:13:20.000Z");
  add("msg_1");
  const auto due = messages_->take(delivery::Time(clock_.wall()), 1).value_or_throw();
  EXPECT_EQ(due.at(0).secrets.at(0).text(), made.body["secret"]);
  EXPECT_EQ(acts(), std::vector<std::string>{"account ann webhooks.secret"});
}

TEST_F(WebhookRoutes, TheAccountsEndpointIsPutReadAndDeleted) {
  EXPECT_EQ(ask(verb::get, "/v1/webhooks/endpoint").status, 404);
  const json endpoint = {
      {"url", "https://a.example/x"}, {"events", {"completed", "failed"}}, {"disabled", false}};
  EXPECT_EQ(ask(verb::put, "/v1/webhooks/endpoint",
                R"({"url": "https://a.example/x", "events": ["completed", "failed"]})")
                .body,
            endpoint);
  EXPECT_EQ(ask(verb::get, "/v1/webhooks/endpoint").body, endpoint);
  EXPECT_EQ(ask(verb::delete_, "/v1/webhooks/endpoint").status, 204);
  EXPECT_EQ(ask(verb::get, "/v1/webhooks/endpoint").status, 404);
  EXPECT_EQ(acts(), (std::vector<std::string>{"account ann webhooks.endpoint",
                                              "account ann webhooks.endpoint.delete"}));
}

TEST_F(WebhookRoutes, AnEndpointWithWrongFieldsNamesThemAll) {
  const Answer answer = ask(verb::put, "/v1/webhooks/endpoint",
                            R"({"url": "http://127.0.0.1/", "events": ["finished"], "uri": 1})");
  EXPECT_EQ(answer.status, 422);
  EXPECT_EQ(answer.body["errors"].size(), 3u) << answer.body;
  EXPECT_EQ(ask(verb::put, "/v1/webhooks/endpoint", "[]").status, 400);
  EXPECT_EQ(ask(verb::get, "/v1/webhooks/endpoint").status, 404);
}

TEST_F(WebhookRoutes, AKeyWithoutTheScopeIsRefused) {
  const http::Caller reader{.account = "ann", .may_read = true};
  EXPECT_EQ(ask(verb::get, "/v1/webhooks/deliveries", "", reader).status, 200);
  EXPECT_EQ(ask(verb::post, "/v1/webhooks/secret", "", reader).status, 403);
  EXPECT_EQ(ask(verb::put, "/v1/webhooks/endpoint", "{}", reader).status, 403);
  EXPECT_EQ(ask(verb::get, "/v1/webhooks/deliveries", "", {.account = "ann"}).status, 403);
}

}  // namespace
}  // namespace limner::gateway::webhooks
