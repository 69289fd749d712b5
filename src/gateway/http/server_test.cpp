#include "gateway/http/server.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <fstream>
#include <stop_token>
#include <system_error>
#include <thread>

#include "gateway/http/blocking.h"
#include "gateway/http/server_for_test.h"

namespace limner::gateway::http {
namespace {

using namespace std::chrono_literals;

// --- waits

TEST_F(ServerTest, SlowClientsAreSentAway) {
  ServerOptions options;
  options.header_time = 150ms;
  options.idle_time = 150ms;
  options.body_stall = 150ms;
  const auto serving = serve(echo, std::move(options));
  RawClient idle = connect();
  RawClient slow_header = connect();
  slow_header.send("GET /a HTTP/1.1\r\nHost");
  RawClient slow_body = connect();
  slow_body.send("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab");
  EXPECT_EQ(idle.read_all(), "");
  EXPECT_EQ(parse_answers(slow_header.read_all()).at(0).status, 408);
  EXPECT_EQ(parse_answers(slow_body.read_all()).at(0).status, 408);
}

TEST_F(ServerTest, ADrippingHeaderHasOneTimeForAllOfIt) {
  ServerOptions options;
  options.header_time = 300ms;
  const auto serving = serve(echo, std::move(options));
  RawClient client = connect();
  const auto begin = std::chrono::steady_clock::now();
  client.send("GET /a HTTP/1.1\r\nHost: x\r\n");
  while (!client.closed(50ms) && std::chrono::steady_clock::now() - begin < 5s)
    client.send("A: b\r\n");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 4s);
}

TEST_F(ServerTest, AClientThatTakesNoAnswerIsSentAway) {
  ServerOptions options;
  options.write_stall = 200ms;
  const auto serving = serve(
      [](Request&) -> Answers {
        Response response;
        response.body.assign(32 << 20, 'x');
        co_return response;
      },
      std::move(options));
  RawClient client = connect();
  client.send(kGet);
  EXPECT_TRUE(soon([&] { return server_->connections() == 1; }));
  EXPECT_TRUE(soon([&] { return server_->connections() == 0; }));
}

TEST_F(ServerTest, ConnectionsOfOneAddressAreLimited) {
  ServerOptions options;
  options.connections_per_address = 3;
  const auto serving = serve(echo, std::move(options));
  std::vector<RawClient> clients;
  for (int i = 0; i < 3; ++i) clients.push_back(connect());
  EXPECT_TRUE(soon([&] { return server_->connections() == 3; }));
  EXPECT_TRUE(connect().closed(5s));
  clients.pop_back();
  EXPECT_TRUE(soon([&] { return server_->connections() == 2; }));
  EXPECT_EQ(status_of_only(kGet), 200);
}

TEST_F(ServerTest, FurtherConnectionsWaitWhileThereIsNoRoom) {
  ServerOptions options;
  options.connections = 2;
  const auto serving = serve(echo, std::move(options));
  std::vector<RawClient> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(connect());
    clients.back().send(kGet);
  }
  clients[0].read_to("[]");
  clients[1].read_to("[]");
  EXPECT_FALSE(clients[2].closed(100ms));
  clients[0].reset();
  clients[2].read_to("[]");
}

// --- a handler that waits

struct Waiter {
  std::atomic<int> begun{0}, left{0}, ended{0};
  std::chrono::milliseconds wait = 10s;

  // Waits as a handler does that looks at Request::gone.
  Answers operator()(Request& request) {
    ++begun;
    boost::asio::steady_timer timer(co_await boost::asio::this_coro::executor, wait);
    const std::stop_callback on_gone(request.gone, [&] {
      ++left;
      timer.cancel();
    });
    boost::system::error_code ignored;
    co_await timer.async_wait(boost::asio::redirect_error(boost::asio::use_awaitable, ignored));
    ++ended;
    co_return Response{};
  }
  Handler handler() {
    return [this](Request& request) { return (*this)(request); };
  }
};

TEST_F(ServerTest, AHandlerLearnsThatItsClientHasLeft) {
  Waiter waiter;
  const auto serving = serve(waiter.handler());
  {
    RawClient client = connect();
    client.send(kGet);
    ASSERT_TRUE(soon([&] { return waiter.begun == 1; }));
  }
  EXPECT_TRUE(soon([&] { return waiter.ended == 1; }));
  EXPECT_EQ(waiter.left, 1);
  RawClient client = connect();
  client.send(std::string(kGet) + std::string(kGet));  // and with the next request sent already
  ASSERT_TRUE(soon([&] { return waiter.begun == 2; }));
  client.reset();
  EXPECT_TRUE(soon([&] { return waiter.ended == 2; }));
  EXPECT_TRUE(soon([&] { return server_->connections() == 0; }));
}

TEST_F(ServerTest, AnswersToHalfClosedClientsAreSent) {
  Waiter waiter;
  const auto serving = serve(waiter.handler());
  EXPECT_EQ(status_of_only(kGet), 200);
}

TEST_F(ServerTest, BlockingWorkLeavesAndComesBackToTheConnectionsThread) {
  Blocking pool(2);
  std::atomic<bool> apart{false};
  const auto serving = serve([&](Request& request) -> Answers {
    const auto here = std::this_thread::get_id();
    auto work = [here, &apart, fails = request.target == "/fail"] {
      apart = std::this_thread::get_id() != here;
      if (fails) throw ProblemFailure({.status = beast_http::status::conflict});
      return std::string("worked");
    };
    Response response;
    try {
      response.body = co_await blocking(pool, work);
    } catch (const ProblemFailure& failure) {
      response.status = failure.problem().status;
    }
    co_return response;
  });
  EXPECT_EQ(ask(kGet).at(0).body, "worked");
  EXPECT_TRUE(apart);
  EXPECT_EQ(status_of_only("GET /fail HTTP/1.1\r\nHost: x\r\n\r\n"), 409);
}

// --- streams

// Counts up, one number each `pause`.
class Counter final : public BodyStream {
 public:
  Counter(int until, std::chrono::milliseconds pause, std::atomic<int>& alive, std::string padding)
      : until_(until), pause_(pause), alive_(alive), padding_(std::move(padding)) {
    ++alive_;
  }
  ~Counter() override { --alive_; }
  boost::asio::awaitable<std::string> next() override {
    if (next_ == until_) co_return "";
    boost::asio::steady_timer timer(co_await boost::asio::this_coro::executor,
                                    next_ == 0 ? 0ms : pause_);
    co_await timer.async_wait(boost::asio::use_awaitable);
    co_return fmt::format("data: {}{}\n\n", next_++, padding_);
  }

 private:
  int next_ = 0;
  const int until_;
  const std::chrono::milliseconds pause_;
  std::atomic<int>& alive_;
  const std::string padding_;
};

struct Counters {
  int until = 3;
  std::chrono::milliseconds pause = 1ms;
  std::string padding{};
  std::atomic<int> alive{0};

  Answers operator()(Request&) {
    Response response;
    response.set("Content-Type", "text/event-stream");
    response.stream = std::make_unique<Counter>(until, pause, alive, padding);
    co_return response;
  }
  Handler handler() {
    return [this](Request& request) { return (*this)(request); };
  }
};

TEST_F(ServerTest, StreamsAreChunkedAndTheConnectionGoesOn) {
  Counters counters;
  const auto serving = serve(counters.handler());
  RawClient client = connect();
  client.send(kGet);
  client.send("GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const auto answers = parse_answers(client.read_all());
  ASSERT_EQ(answers.size(), 2U);
  EXPECT_EQ(answers[0].body, "data: 0\n\ndata: 1\n\ndata: 2\n\n");
  EXPECT_EQ(answers[1].body, answers[0].body);
  EXPECT_EQ(counters.alive, 0);
}

TEST_F(ServerTest, StreamsToHttp10EndWithTheConnection) {
  Counters counters;
  const auto serving = serve(counters.handler());
  RawClient client = connect();
  client.send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  const std::string bytes = client.read_all();
  EXPECT_TRUE(bytes.ends_with("\r\n\r\ndata: 0\n\ndata: 1\n\ndata: 2\n\n")) << bytes;
  EXPECT_EQ(bytes.find("chunked"), std::string::npos);
}

TEST_F(ServerTest, AWaitingStreamEndsWhenItsClientLeaves) {
  Counters counters{.until = 1000, .pause = 1h};
  const auto serving = serve(counters.handler());
  {
    RawClient client = connect();
    client.send(kGet);
    client.read_to("data: 0\n\n");
    EXPECT_EQ(counters.alive, 1);
  }
  EXPECT_TRUE(soon([&] { return counters.alive == 0 && server_->connections() == 0; }));
}

TEST_F(ServerTest, AStreamGoesNoFasterThanItsClient) {
  Counters counters{.until = 4000, .pause = 0ms, .padding = std::string(64 << 10, 'x')};
  const auto serving = serve(counters.handler());
  RawClient client = connect();
  client.send(kGet);
  rusage before{}, after{};
  getrusage(RUSAGE_SELF, &before);
  std::this_thread::sleep_for(300ms);
  getrusage(RUSAGE_SELF, &after);
  // 256 MB would have been made.
  EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 32 << 10);
  EXPECT_EQ(counters.alive, 1);
}

// The bar of issue 5: 1,000 streams at 64 KiB each.
TEST_F(ServerTest, AThousandStreamsAreCheap) {
  const auto resident = [] {
    std::ifstream status("/proc/self/statm");
    long total = 0, pages = 0;
    status >> total >> pages;
    return pages * 4096;
  };
  Counters counters{.until = 1000, .pause = 1h};
  const auto serving = serve(counters.handler());
  std::vector<RawClient> clients;
  clients.reserve(1000);
  const long before = resident();
  for (int i = 0; i < 1000; ++i) {
    clients.push_back(connect());
    clients.back().send(kGet);
    clients.back().read_to("data: 0\n\n");
  }
  const long each = (resident() - before) / 1000;
  fmt::print("{} bytes for each stream\n", each);
  EXPECT_EQ(counters.alive, 1000);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LT(each, 64 << 10);
#endif
  clients.clear();
  EXPECT_TRUE(soon([&] { return counters.alive == 0; }));
}

// --- the end

TEST_F(ServerTest, DrainingFinishesWhatIsUnderWay) {
  Waiter waiter;
  waiter.wait = 300ms;
  const auto serving = serve(waiter.handler());
  RawClient idle = connect();
  RawClient busy = connect();
  busy.send(kGet);
  ASSERT_TRUE(soon([&] { return waiter.begun == 1 && server_->connections() == 2; }));
  EXPECT_TRUE(server_->drain(10s));
  EXPECT_EQ(idle.read_all(), "");
  const auto answers = parse_answers(busy.read_all());
  ASSERT_EQ(answers.size(), 1U);
  EXPECT_EQ(answers[0].status, 200);
  EXPECT_EQ(answers[0].field("Connection"), "close");
  EXPECT_THROW(connect(), std::system_error);
}

TEST_F(ServerTest, DrainingEndsAtItsDeadline) {
  Waiter waiter;
  const auto serving = serve(waiter.handler());
  RawClient busy = connect();
  busy.send(kGet);
  ASSERT_TRUE(soon([&] { return waiter.begun == 1; }));
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_FALSE(server_->drain(100ms));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s);
  EXPECT_EQ(waiter.left, 1);
  EXPECT_EQ(waiter.ended, 1);
}

TEST_F(ServerTest, StoppingBreaksOffADrainAndWhatNeverLooksAtGone) {
  Counters counters{.until = 1000, .pause = 1h};
  std::atomic<bool> waits = false;
  const auto serving = serve([&](Request& request) -> Answers {
    if (request.target == "/stream") co_return co_await counters(request);
    boost::asio::steady_timer timer(co_await boost::asio::this_coro::executor, 1h);
    waits = true;
    co_await timer.async_wait(boost::asio::use_awaitable);
    co_return Response{};
  });
  RawClient deaf = connect();
  deaf.send(kGet);
  RawClient stream = connect();
  stream.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  stream.read_to("data: 0\n\n");
  ASSERT_TRUE(soon([&] { return waits.load(); }));
  std::thread draining([&] { EXPECT_FALSE(server_->drain(1h)); });
  std::this_thread::sleep_for(50ms);
  server_->stop();
  draining.join();
  EXPECT_EQ(counters.alive, 0);
  EXPECT_EQ(server_->connections(), 0U);
}

TEST(Server, SaysWhyItCannotStart) {
  NoLog log;
  const auto error_of = [&](ServerOptions options) {
    Server server(std::move(options), echo, log);
    const auto started = server.start();
    EXPECT_FALSE(started.ok());
    return started.ok() ? Error{} : started.error();
  };
  EXPECT_EQ(error_of({.address = "nowhere"}).code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(error_of({.certificate = "/c.pem"}).code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(error_of({.certificate = "/c.pem", .private_key = "/k.pem"}).code,
            ErrorCode::kInvalidArgument);
  Server first({}, echo, log);
  ASSERT_TRUE(first.start().ok());
  const Error taken = error_of({.port = first.port()});
  EXPECT_EQ(taken.code, ErrorCode::kIo);
  EXPECT_NE(taken.message.find(std::to_string(first.port())), std::string::npos);
}

}  // namespace
}  // namespace limner::gateway::http
