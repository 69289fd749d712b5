// Where a request begins and ends, against clients that say it in every wrong way.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>

#include "gateway/http/server_for_test.h"

namespace limner::gateway::http {
namespace {

using namespace std::chrono_literals;

TEST_F(ServerTest, AnswersSeveralRequestsOfOneConnection) {
  const auto serving = serve();
  RawClient client = connect();
  client.send(kGet);
  EXPECT_NE(client.read_to("GET /a []").find("HTTP/1.1 200 OK\r\n"), std::string::npos);
  client.send("POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nxyz");
  const auto answers = parse_answers(client.read_all());
  ASSERT_EQ(answers.size(), 1U);
  EXPECT_EQ(answers[0].body, "POST /b [xyz]");
  EXPECT_EQ(answers[0].field("Connection"), "close");
  EXPECT_EQ(answers[0].field("Content-Length"), "13");
  EXPECT_TRUE(answers[0].field("Date").ends_with(" GMT"));
}

TEST_F(ServerTest, PipelinedRequestsAreAnsweredInOrder) {
  const auto serving = serve();
  std::string bytes;
  for (int i = 0; i < 300; ++i)
    bytes +=
        fmt::format("POST /{} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{:02}", i, i % 100);
  const auto answers = ask(bytes);
  ASSERT_EQ(answers.size(), 300U);
  for (int i = 0; i < 300; ++i)
    EXPECT_EQ(answers[static_cast<std::size_t>(i)].body,
              fmt::format("POST /{} [{:02}]", i, i % 100));
}

TEST_F(ServerTest, RequestsMayComeOneByteAtATime) {
  const auto serving = serve();
  RawClient client = connect();
  const std::string bytes =
      "\r\nPOST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
      "3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: y\r\n\r\n" +
      std::string(kGet);
  for (const char c : bytes) {
    client.send({&c, 1});
    if (c == '\n') std::this_thread::sleep_for(1ms);
  }
  client.shutdown_sending();
  const auto answers = parse_answers(client.read_all());
  ASSERT_EQ(answers.size(), 2U);
  EXPECT_EQ(answers[0].body, "POST /b [abcde]");
  EXPECT_EQ(answers[1].body, "GET /a []");
}

TEST_F(ServerTest, WhatAProxyCouldReadDifferentlyIsRefused) {
  const auto serving = serve();
  const std::string tail = "\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
  for (const std::string fields : {
           "Content-Length: 5\r\nTransfer-Encoding: chunked",
           "Transfer-Encoding: chunked\r\nContent-Length: 5",
           "Transfer-Encoding: xchunked",
           "Transfer-Encoding: xchunked\r\nContent-Length: 5",
           "Transfer-Encoding: chunked, identity",
           "Transfer-Encoding: gzip, chunked",
           "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
           "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
           "Transfer-Encoding : chunked",
           "Transfer-Encoding:\x0b"
           "chunked",
           "Content-Length: 5\r\nContent-Length: 6",
           "Content-Length: 5\r\nContent-Length: 5",
           "Content-Length: 5, 5",
           "Content-Length: +5",
           "Content-Length: 0x5",
           "Content-Length: -1",
           "Content-Length: 5 5",
           "Content-Length: 99999999999999999999999",
           "Content-Length : 5",
           "Content-Length",
           "Host: y",
           "A: b\n\nGET /smuggled HTTP/1.1\nHost: x",
           "A: b\rContent-Length: 5",
       }) {
    const auto answers = ask("POST /a HTTP/1.1\r\nHost: x\r\n" + fields + tail);
    ASSERT_EQ(answers.size(), 1U) << fields;
    EXPECT_EQ(answers[0].status, 400) << fields;
    EXPECT_EQ(answers[0].field("Connection"), "close") << fields;
    EXPECT_EQ(answers[0].field("Content-Type"), "application/problem+json");
  }
}

TEST_F(ServerTest, MalformedRequestsAreRefused) {
  const auto serving = serve();
  EXPECT_EQ(status_of_only("GET /a HTTP/1.1\r\n\r\n"), 400);  // no Host
  EXPECT_EQ(status_of_only("GET /a HTTP/1.0\r\n\r\n"), 200);  // had none then
  EXPECT_EQ(status_of_only("GET /a HTTP/1.1\r\nHost: a b\r\n\r\n"), 400);
  EXPECT_EQ(status_of_only("GET /a HTTP/1.1\r\nHost: a@b\r\n\r\n"), 400);
  EXPECT_EQ(status_of_only("GET /a HTTP/3.0\r\nHost: x\r\n\r\n"), 400);
  EXPECT_EQ(status_of_only("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 400);
  EXPECT_EQ(status_of_only("GET  /a HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
  EXPECT_EQ(status_of_only("GET /a b HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
  EXPECT_EQ(status_of_only("G\x01T /a HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
  EXPECT_EQ(status_of_only("\x16\x03\x01\x02 TLS to a plain port\r\n\r\n"), 400);
  EXPECT_EQ(status_of_only("GET /a HTTP/1.1\nHost: x\n\n"), 400);
  EXPECT_EQ(status_of_only(std::string("GET /a HTTP/1.1\r\nHost: x\r\nA: ") + '\0' + "\r\n\r\n"),
            400);
  EXPECT_EQ(status_of_only("GET /a HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n"), 400);
}

TEST_F(ServerTest, BrokenChunksAreRefused) {
  const auto serving = serve();
  const std::string head = "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (const std::string body :
       {"zz\r\nabc\r\n0\r\n\r\n", "3\r\nabcd\r\n0\r\n\r\n", "-3\r\nabc\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nabc\r\n", "3\nabc\n0\n\n", " 3\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n", "\r\n"}) {
    EXPECT_EQ(status_of_only(head + body), 400) << body;
  }
  EXPECT_EQ(status_of_only(head + "ffffffffffffffff\r\nabc"), 413);
  EXPECT_EQ(status_of_only(head + "3;" + std::string(200'000, 'x')), 431);
  EXPECT_EQ(status_of_only(head + "0\r\nA: " + std::string(200'000, 'x')), 431);
  EXPECT_EQ(status_of_only(head + "3\r\nab"), 400);  // and then nothing
}

TEST_F(ServerTest, TrailersAreNoPartOfTheHeader) {
  Handler shows_key = [](Request& request) -> Answers {
    Response response;
    if (request.read_body) request.body = co_await request.read_body(100);
    response.body = fmt::format("key=[{}] body=[{}]", request.header("X-Key"), request.body);
    co_return response;
  };
  const auto serving = serve(shows_key);
  const auto answers =
      ask("POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
          "1\r\na\r\n0\r\nX-Key: forged\r\n\r\n");
  ASSERT_EQ(answers.size(), 1U);
  EXPECT_EQ(answers[0].body, "key=[] body=[a]");
}

TEST_F(ServerTest, LargeHeadersAndBodiesAreRefused) {
  const auto serving = serve();
  const std::string large(20'000, 'a');
  EXPECT_EQ(status_of_only("GET /" + large + " HTTP/1.1\r\nHost: x\r\n\r\n"), 431);
  EXPECT_EQ(status_of_only("GET / HTTP/1.1\r\nHost: x\r\nA: " + large + "\r\n\r\n"), 431);
  std::string many = "GET / HTTP/1.1\r\nHost: x\r\n";
  for (int i = 0; i < 3000; ++i) many += "A: b\r\n";
  EXPECT_EQ(status_of_only(many + "\r\n"), 431);
  const std::string head = "POST / HTTP/1.1\r\nHost: x\r\n";
  EXPECT_EQ(status_of_only(head + "Content-Length: 2000000\r\n\r\n"), 413);
  EXPECT_EQ(status_of_only(head + "Content-Length: 18446744073709551615\r\n\r\n"), 413);
  const std::string chunk = "8000\r\n" + std::string(0x8000, 'b') + "\r\n";
  std::string chunked = head + "Transfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 40; ++i) chunked += chunk;
  EXPECT_EQ(status_of_only(chunked + "0\r\n\r\n"), 413);
}

TEST_F(ServerTest, ALargeBodyComesWhole) {
  const auto serving = serve();
  std::string body(1 << 20, 'x');
  for (std::size_t i = 0; i < body.size(); i += 7) body[i] = static_cast<char>('a' + i % 26);
  const auto answers = ask(fmt::format(
      "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{}", body.size(), body));
  ASSERT_EQ(answers.size(), 1U);
  EXPECT_EQ(answers[0].body, "POST /a [" + body + "]");
}

TEST_F(ServerTest, ContinueIsSaidWhenTheBodyIsWanted) {
  const auto serving = serve();
  RawClient client = connect();
  client.send("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.read_to("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("abc");
  EXPECT_NE(client.read_to("[abc]").find("200 OK"), std::string::npos);

  RawClient refused = connect();
  refused.send(
      "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\nExpect: 100-continue\r\n\r\n");
  const auto answers = parse_answers(refused.read_all());
  ASSERT_EQ(answers.size(), 1U);
  EXPECT_EQ(answers[0].status, 413);
}

TEST_F(ServerTest, AnUnreadBodyIsNotTakenForARequest) {
  const auto serving = serve([](Request&) -> Answers { co_return Response{}; });
  RawClient client = connect();
  client.send("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 28\r\n\r\n");
  client.read_to("\r\n\r\n");  // answered before the body has come
  client.send(kGet);           // the body, 28 bytes
  client.send("GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(parse_answers(client.read_all()).size(), 1U);

  RawClient large = connect();
  large.send("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n");
  std::string body;
  while (body.size() < 300'000) body += kGet;
  large.send(body);
  const auto answers = parse_answers(large.read_all());
  ASSERT_EQ(answers.size(), 1U);
  EXPECT_EQ(answers[0].field("Connection"), "close");
}

TEST_F(ServerTest, HeadHasTheFieldsOfGetAndNoBody) {
  const auto serving = serve();
  RawClient client = connect();
  client.send("HEAD /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const std::string bytes = client.read_all();
  EXPECT_TRUE(bytes.ends_with("\r\n\r\n")) << bytes;
  EXPECT_EQ(parse_answers(bytes, 1).at(0).field("Content-Length"), "10");
}

TEST_F(ServerTest, HandlersThatThrowOrBreakTheHeaderGetA500) {
  const auto serving = serve([](Request& request) -> Answers {
    if (request.target == "/throw") throw std::runtime_error("secret");
    Response response;
    response.headers.insert("A", "b\r\nSet-Cookie: c");
    co_return response;
  });
  const auto thrown = ask("GET /throw HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_EQ(thrown.size(), 1U);
  EXPECT_EQ(thrown[0].status, 500);
  EXPECT_EQ(thrown[0].body, "");
  const auto broken = ask("GET /break HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_EQ(broken.size(), 1U);
  EXPECT_EQ(broken[0].status, 500);
  EXPECT_EQ(broken[0].field("Set-Cookie"), "");
}

}  // namespace
}  // namespace limner::gateway::http
