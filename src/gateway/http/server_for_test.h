// A listening server with a handler of the test's own, and clients that send raw bytes: for tests.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "gateway/http/problem.h"
#include "gateway/http/raw_client.h"
#include "gateway/http/server.h"

namespace limner::gateway::http {

using Answers = boost::asio::awaitable<Response>;

// Says what it was asked, so that a test sees where the server saw the request end.
inline Answers echo(Request& request) {
  if (request.refusal) co_return problem_response(*request.refusal, "id");
  Response response;
  try {
    if (request.read_body) request.body = co_await request.read_body(1 << 20);
  } catch (const ProblemFailure& failure) {
    response = problem_response(failure.problem(), "id");
  }
  if (response.status == beast_http::status::ok)
    response.body = fmt::format("{} {} [{}]", std::string(to_string(request.method)),
                                request.target, request.body);
  co_return response;
}

class ServerTest : public ::testing::Test {
 protected:
  // To be kept by the test, whose handler it uses.
  [[nodiscard]] std::unique_ptr<Server> serve(Handler handler = echo, ServerOptions options = {}) {
    options.threads = 2;
    auto server = std::make_unique<Server>(std::move(options), std::move(handler), log_);
    const auto started = server->start();
    EXPECT_TRUE(started.ok());
    server_ = server.get();
    return server;
  }
  RawClient connect() { return RawClient(server_->port()); }

  // The answers to these bytes from a client that then stops sending.
  std::vector<ParsedAnswer> ask(std::string_view bytes) {
    RawClient client = connect();
    client.send(bytes);
    client.shutdown_sending();
    return parse_answers(client.read_all());
  }
  int status_of_only(std::string_view bytes) {
    const auto answers = ask(bytes);
    return answers.size() == 1 ? answers[0].status : -static_cast<int>(answers.size());
  }
  // Waits for what another thread will do soon.
  template <typename Condition>
  static bool soon(Condition condition) {
    for (int i = 0; i < 500 && !condition(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return condition();
  }

  NoLog log_;
  Server* server_ = nullptr;
};

inline constexpr std::string_view kGet = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";

}  // namespace limner::gateway::http
