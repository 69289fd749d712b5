#include "gateway/http/service.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>

#include "gateway/http/problem.h"
#include "gateway/http/raw_client.h"
#include "gateway/http/server.h"
#include "platform/http/exchange.h"

namespace limner::gateway::http {
namespace {

using namespace std::chrono_literals;
using beast_http::verb;
using Answers = boost::asio::awaitable<Response>;

// Keeps the lines it is given.
class KeptLog final : public Log {
 public:
  void write(LogLevel level, std::string_view message, std::span<const LogField> fields) override {
    std::string line = fmt::format("{}: {}", name(level), message);
    for (const LogField& field : fields) {
      if (const auto* text = std::get_if<std::string_view>(&field.value))
        line += fmt::format(" {}={}", field.name, *text);
      if (const auto* number = std::get_if<std::int64_t>(&field.value))
        line += fmt::format(" {}={}", field.name, *number);
    }
    const std::scoped_lock lock(mutex_);
    lines_ += line + "\n";
  }
  std::string lines() const {
    const std::scoped_lock lock(mutex_);
    return lines_;
  }

 private:
  mutable std::mutex mutex_;
  std::string lines_;
};

class NoExchange final : public platform::http::Exchange {
 public:
  Result<platform::http::Reply> send(const platform::http::Request&) override {
    return Error{.code = ErrorCode::kUnavailable, .message = "no network"};
  }
};

Answers hello(Request& request) {
  Response response;
  const std::string account = request.caller ? request.caller->account : "nobody";
  response.body =
      fmt::format("{} {} [{}] {}", account, request.peer, request.body, request.traceparent);
  co_return response;
}

Answers failing(Request& request) {
  const std::string& how = request.path_parameters.at("how");
  if (how == "unexpected") throw std::runtime_error("the password is 1234");
  if (how == "internal") throw Failure(ErrorCode::kInternal, "a secret path");
  if (how == "fields")
    throw ProblemFailure({.status = beast_http::status::bad_request,
                          .code = "invalid_argument",
                          .detail = "Two fields are wrong.",
                          .fields = {{"width", "want 8"}, {"prompt", "bytes \xff here"}}});
  if (how == "busy") throw Failure(ErrorCode::kUnavailable, "The queue is full.");
  if (how == "slow") {
    boost::asio::steady_timer timer(co_await boost::asio::this_coro::executor, 1h);
    co_await timer.async_wait(boost::asio::use_awaitable);
  }
  throw Failure(ErrorCode::kNotFound, "There is no generation 'x'.");
}

class ServiceTest : public ::testing::Test {
 protected:
  ServiceTest() {
    tracer_ = platform::Tracer::make({}, exchange_, clock_, log_).value_or_throw();
    router_.add(verb::get, "/hello", hello);
    router_.add(verb::post, "/hello", hello, {.body_limit = 10});
    router_.add(verb::get, "/open", hello, {.open = true});
    router_.add(verb::get, "/fail/{how}", failing, {.open = true});
    options_.authenticate = [](std::string_view key, std::string_view) -> Result<Caller> {
      if (key != "good")
        return Error{.code = ErrorCode::kUnauthenticated, .message = "This API key is not known."};
      return Caller{.account = "ada"};
    };
  }

  ParsedAnswer ask(std::string_view line, std::string_view fields = "",
                   std::string_view body = "") {
    if (!server_) {
      service_ = make_service(router_, options_, {metrics_, *tracer_, log_});
      server_.emplace(ServerOptions{}, service_, log_);
      EXPECT_TRUE(server_->start().ok());
    }
    RawClient client(server_->port());
    client.send(
        fmt::format("{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{}\r\n{}", line, fields, body));
    const auto answers = parse_answers(client.read_all());
    return answers.size() == 1 ? answers[0] : ParsedAnswer{};
  }
  static nlohmann::json problem(const ParsedAnswer& answer) {
    EXPECT_EQ(answer.field("Content-Type"), "application/problem+json");
    const auto body = nlohmann::json::parse(answer.body, nullptr, false);
    for (const char* member : {"type", "title", "detail", "instance", "code"})
      EXPECT_TRUE(body.contains(member) && body[member].is_string()) << answer.body;
    EXPECT_EQ(body.value("status", 0), answer.status);
    EXPECT_EQ(body.value("instance", ""), "urn:limner:request:" + answer.field("X-Request-ID"));
    return body;
  }

  platform::SystemClock clock_;
  KeptLog log_;
  NoExchange exchange_;
  platform::Metrics metrics_;
  std::unique_ptr<platform::Tracer> tracer_;
  Router router_;
  ServiceOptions options_;
  Handler service_;
  std::optional<Server> server_;
};

constexpr std::string_view kKey = "Authorization: Bearer good\r\n";

TEST_F(ServiceTest, KeysAreLookedAt) {
  EXPECT_TRUE(ask("GET /hello", kKey).body.starts_with("ada 127.0.0.1 [] "));
  EXPECT_TRUE(ask("GET /hello", "Authorization: bearer  good\r\n").body.starts_with("ada "));
  EXPECT_TRUE(ask("GET /open").body.starts_with("nobody "));
  EXPECT_TRUE(ask("GET /open", kKey).body.starts_with("ada "));
  for (const std::string_view fields :
       {"", "Authorization: Bearer\r\n", "Authorization: Bearer \r\n", "Authorization: good\r\n",
        "Authorization: Basic good\r\n", "Authorization: Bearer bad\r\n"}) {
    const ParsedAnswer answer = ask("GET /hello", fields);
    EXPECT_EQ(answer.status, 401) << fields;
    EXPECT_EQ(problem(answer)["code"], "unauthenticated");
    EXPECT_TRUE(answer.field("WWW-Authenticate").starts_with("Bearer"));
  }
  EXPECT_EQ(ask("GET /open", "Authorization: Bearer bad\r\n").status, 401);
}

TEST_F(ServiceTest, ABodyIsReadOnlyForWhoMayAsk) {
  const std::string_view length = "Content-Length: 100000\r\nExpect: 100-continue\r\n";
  const ParsedAnswer unknown = ask("POST /hello", length);
  EXPECT_EQ(unknown.status, 401);  // without a "100 Continue" before it
  EXPECT_EQ(ask("POST /hello", std::string(kKey) + "Content-Length: 11\r\n", "01234567890").status,
            413);
  EXPECT_TRUE(ask("POST /hello", std::string(kKey) + "Content-Length: 10\r\n", "0123456789")
                  .body.find("[0123456789]") != std::string::npos);
}

TEST_F(ServiceTest, EveryAnswerHasARequestId) {
  EXPECT_EQ(ask("GET /open", "X-Request-ID: abc-1:2/3\r\n").field("X-Request-ID"), "abc-1:2/3");
  const std::string made = ask("GET /open").field("X-Request-ID");
  EXPECT_TRUE(made.starts_with("req_"));
  EXPECT_NE(ask("GET /open").field("X-Request-ID"), made);
  for (const std::string& id : {std::string(129, 'a'), std::string("a b"), std::string("a\"b")}) {
    const ParsedAnswer answer = ask("GET /fail/x", "X-Request-ID: " + id + "\r\n");
    EXPECT_TRUE(answer.field("X-Request-ID").starts_with("req_"));
    EXPECT_NE(log_.lines().find(answer.field("X-Request-ID")), std::string::npos);
  }
}

TEST_F(ServiceTest, ErrorsHaveOneShape) {
  EXPECT_EQ(problem(ask("GET /nowhere"))["code"], "not_found");
  const ParsedAnswer wrong_method = ask("DELETE /hello", kKey);
  EXPECT_EQ(problem(wrong_method)["code"], "method_not_allowed");
  EXPECT_EQ(wrong_method.field("Allow"), "GET, POST, HEAD, OPTIONS");
  EXPECT_EQ(problem(ask("GET /a%2fb"))["code"], "bad_target");
  EXPECT_EQ(problem(ask("GET /open", "Host: y\r\n"))["code"], "bad_request");
  EXPECT_EQ(problem(ask("BREW /open"))["status"], 501);
  EXPECT_EQ(problem(ask("GET /fail/missing"))["detail"], "There is no generation 'x'.");
  const auto fields = problem(ask("GET /fail/fields"));
  EXPECT_EQ(fields["errors"][0], (nlohmann::json{{"field", "width"}, {"message", "want 8"}}));
  EXPECT_EQ(fields["errors"].size(), 2U);
  const ParsedAnswer busy = ask("GET /fail/busy");
  EXPECT_EQ(busy.status, 503);
  EXPECT_GE(std::stoi(busy.field("Retry-After")), 1);
  EXPECT_LE(std::stoi(busy.field("Retry-After")), 120);
  EXPECT_EQ(ask("OPTIONS /hello").status, 204);
}

TEST_F(ServiceTest, TheUnexpectedIsToldToTheLogAlone) {
  for (const std::string how : {"unexpected", "internal"}) {
    const ParsedAnswer answer = ask("GET /fail/" + how);
    EXPECT_EQ(answer.status, 500);
    EXPECT_EQ(problem(answer)["code"], "internal");
    EXPECT_EQ(answer.body.find("password"), std::string::npos);
    EXPECT_EQ(answer.body.find("secret"), std::string::npos);
    EXPECT_NE(log_.lines().find(answer.field("X-Request-ID")), std::string::npos);
  }
  EXPECT_NE(log_.lines().find("error=the password is 1234"), std::string::npos);
}

TEST_F(ServiceTest, RatesAreTakenByAddressThenByKey) {
  std::atomic<int> by_address{0}, by_key{0};
  options_.address_limit = [&](const Request& request) -> platform::RateAnswer {
    EXPECT_EQ(request.peer, "127.0.0.1");
    EXPECT_FALSE(request.caller.has_value());
    const int left = 5 - ++by_address;
    return {.allowed = left >= 0,
            .limit = 5,
            .window = 60s,
            .remaining = std::max(left, 0),
            .reset = 12s,
            .retry_after = 300s};
  };
  options_.key_limit = [&](const Request& request) -> platform::RateAnswer {
    EXPECT_EQ(request.caller->account, "ada");
    return {.limit = 9, .window = 3s, .remaining = 9 - ++by_key, .reset = 1s};
  };
  const ParsedAnswer with_key = ask("GET /hello", kKey);
  EXPECT_EQ(with_key.field("RateLimit-Policy"), "\"default\";q=9;w=3");
  EXPECT_EQ(with_key.field("RateLimit"), "\"default\";r=8;t=1");
  const ParsedAnswer without = ask("GET /hello");
  EXPECT_EQ(without.status, 401);
  EXPECT_EQ(without.field("RateLimit-Policy"), "\"address\";q=5;w=60");
  EXPECT_EQ(without.field("RateLimit"), "\"address\";r=3;t=12");
  EXPECT_EQ(ask("GET /nowhere").field("RateLimit"), "\"address\";r=2;t=12");
  EXPECT_EQ(ask("NOT A REQUEST").field("RateLimit"), "\"address\";r=1;t=12");
  EXPECT_EQ(ask("GET /open").status, 200);
  const ParsedAnswer refused = ask("GET /hello", kKey);
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(problem(refused)["code"], "rate_limited");
  EXPECT_EQ(refused.field("Retry-After"), "120");
  EXPECT_EQ(refused.field("RateLimit"), "\"address\";r=0;t=12");
  EXPECT_EQ(by_key, 1);
}

TEST_F(ServiceTest, ACallersPlaceIsHeldUntilItsAnswerIsThere) {
  const auto place = std::make_shared<int>(0);
  std::atomic<long> held{0};
  options_.enter = [&](const Request& request) -> std::shared_ptr<void> {
    if (request.route != "/hello") return nullptr;
    return place;
  };
  router_.add(verb::get, "/full", hello);
  router_.add(verb::put, "/hello", [&](Request&) -> Answers {
    held = place.use_count();
    co_return Response{};
  });
  EXPECT_EQ(ask("PUT /hello", kKey).status, 200);
  EXPECT_EQ(held, 2);
  EXPECT_EQ(place.use_count(), 1);
  const ParsedAnswer full = ask("GET /full", kKey);
  EXPECT_EQ(full.status, 429);
  EXPECT_EQ(problem(full)["code"], "too_many_at_once");
  EXPECT_EQ(full.field("Retry-After"), "1");
  EXPECT_EQ(ask("GET /open").status, 200);  // no caller, no place
}

TEST_F(ServiceTest, ForwardedAddressesAreBelievedFromTrustedProxiesOnly) {
  const std::string_view fields =
      "X-Forwarded-For: 6.6.6.6, 203.0.113.9\r\nX-Forwarded-For: 10.0.0.7\r\n";
  EXPECT_TRUE(ask("GET /open", fields).body.starts_with("nobody 127.0.0.1 "));
  server_.reset();
  options_.trusted_proxies =
      platform::http::parse_address_ranges("127.0.0.0/8, 10.0.0.0/8").value_or_throw();
  EXPECT_TRUE(ask("GET /open", fields).body.starts_with("nobody 203.0.113.9 "));
  EXPECT_TRUE(
      ask("GET /open", "X-Forwarded-For: 6.6.6.6, junk\r\n").body.starts_with("nobody 127.0.0.1 "));
  EXPECT_TRUE(ask("GET /open").body.starts_with("nobody 127.0.0.1 "));
}

TEST_F(ServiceTest, TracesAndMetricsSeeTheRoute) {
  const std::string parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const ParsedAnswer traced = ask("GET /open", "traceparent: " + parent + "\r\n");
  EXPECT_NE(traced.body.find("0af7651916cd43dd8448eb211c80319c"), std::string::npos);
  ask("GET /hello");
  ask("GET /nowhere/12345");
  ask("NOT A REQUEST");
  const std::string text = metrics_.text();
  for (const std::string_view line :
       {"limner_requests_total{code=\"200\",route=\"/open\"} 1",
        "limner_requests_total{code=\"401\",route=\"/hello\"} 1",
        "limner_requests_total{code=\"404\",route=\"unmatched\"} 1",
        "limner_requests_total{code=\"400\",route=\"malformed\"} 1"}) {
    EXPECT_NE(text.find(line), std::string::npos) << line << " is not in\n" << text;
  }
}

TEST_F(ServiceTest, BrowsersAreToldWhatTheyMayDo) {
  const ParsedAnswer plain = ask("GET /fail/x", "Origin: https://studio.example\r\n");
  EXPECT_EQ(plain.field("X-Content-Type-Options"), "nosniff");
  EXPECT_EQ(plain.field("Cache-Control"), "no-store");
  EXPECT_EQ(plain.field("Access-Control-Allow-Origin"), "");
  EXPECT_EQ(plain.field("Strict-Transport-Security"), "");
  server_.reset();
  options_.cors_origins = {"https://studio.example"};
  const ParsedAnswer known = ask("GET /fail/x", "Origin: https://studio.example\r\n");
  EXPECT_EQ(known.field("Access-Control-Allow-Origin"), "https://studio.example");
  EXPECT_EQ(known.field("Vary"), "Origin");
  const ParsedAnswer other = ask("GET /open", "Origin: https://evil.example\r\n");
  EXPECT_EQ(other.field("Access-Control-Allow-Origin"), "");
  EXPECT_EQ(other.field("Vary"), "Origin");
  const ParsedAnswer preflight =
      ask("OPTIONS /hello",
          "Origin: https://studio.example\r\nAccess-Control-Request-Method: POST\r\n"
          "Access-Control-Request-Headers: authorization, idempotency-key\r\n");
  EXPECT_EQ(preflight.status, 204);
  EXPECT_EQ(preflight.field("Access-Control-Allow-Origin"), "https://studio.example");
  EXPECT_NE(preflight.field("Access-Control-Allow-Headers").find("Idempotency-Key"),
            std::string::npos);
}

TEST_F(ServiceTest, AHandlerHasADeadline) {
  options_.deadline = 100ms;
  const ParsedAnswer late = ask("GET /fail/slow");
  EXPECT_EQ(late.status, 504);
  EXPECT_EQ(problem(late)["code"], "deadline_exceeded");
  EXPECT_EQ(ask("GET /open").status, 200);
}

TEST(Problem, EveryErrorCodeHasItsStatus) {
  EXPECT_EQ(status_of(ErrorCode::kInvalidArgument), beast_http::status::bad_request);
  EXPECT_EQ(status_of(ErrorCode::kUnavailable), beast_http::status::service_unavailable);
  EXPECT_EQ(status_of(ErrorCode::kInternal), beast_http::status::internal_server_error);
  const Problem full_disk =
      problem_of(Error{.code = ErrorCode::kIo, .message = "/data is full", .retryable = true});
  EXPECT_EQ(full_disk.status, beast_http::status::service_unavailable);
  EXPECT_EQ(full_disk.detail.find("/data"), std::string::npos);
}

TEST(Problem, DetailsAreSentencesForStrangers) {
  const auto detail = [](const char* message) {
    const Problem problem = problem_of(Error{ErrorCode::kUnavailable, message, true});
    return nlohmann::json::parse(problem_response(problem, "id").body).value("detail", "");
  };
  EXPECT_EQ(detail("[queue] the job has just changed: ask again"),
            "The job has just changed: ask again.");
  EXPECT_EQ(detail("A whole one."), "A whole one.");
  EXPECT_EQ(detail("'eulr' is not known (did you mean euler?)"),
            "'eulr' is not known (did you mean euler?).");
}

}  // namespace
}  // namespace limner::gateway::http
