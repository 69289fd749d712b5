// Fuzzing of all that strangers' bytes reach first: requests to a listening server, targets, forms.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "base/fuzzing.h"
#include "base/utf8.h"
#include "gateway/http/multipart.h"
#include "gateway/http/problem.h"
#include "gateway/http/raw_client.h"
#include "gateway/http/router.h"
#include "gateway/http/server.h"
#include "gateway/http/target.h"

namespace limner::gateway::http {
namespace {

constexpr const char* kPieces[] = {
    "\r\n", "\n",  ":",  "0\r\n\r\n", "%00",      "chunked", "9999999999", "\t",
    "%",    "--b", "\"", ";",         "\r\n\r\n", "Host: y", "\x7f",       "filename=\"../x\""};

// One of the corpus, or several behind each other, damaged or not.
std::string damaged(const std::vector<std::pair<std::filesystem::path, std::string>>& beginnings,
                    std::mt19937_64& random) {
  std::string text;
  for (std::uint64_t n = 1 + random() % 2; n > 0; --n)
    text += beginnings[random() % beginnings.size()].second;
  for (std::uint64_t n = random() % 5; n > 0; --n) fuzzing::damage(text, random, kPieces);
  return text;
}

bool is_safe(const std::string& text) {
  return decode_utf8(text).ok() && std::none_of(text.begin(), text.end(), [](char c) {
           return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
         });
}

void check_target(const std::string& text) {
  try {
    const Target target = parse_target(text);
    for (const std::string& segment : target.segments)
      ASSERT_TRUE(is_safe(segment) && segment != "." && segment != ".." &&
                  segment.find('/') == std::string::npos)
          << text;
    for (const auto& [name, value] : target.query)
      ASSERT_TRUE(is_safe(name) && is_safe(value)) << text;
  } catch (const ProblemFailure& failure) {
    ASSERT_EQ(failure.problem().status, beast_http::status::bad_request);
    ASSERT_TRUE(failure.problem().detail.ends_with('.'));
  }
}

TEST(TargetFuzz, WhatIsAcceptedIsSafe) {
  static constexpr const char* kBegins[] = {"/", "/v1/jobs", "/v1/jobs/", "http://x/v1/jobs",
                                            "*", "//",       ""};
  static constexpr const char* kTargetPieces[] = {
      "/a", "/%41", "/..", "/%2e%2e", "/%2f", "?a=1", "&a=2", "&b=%20",     "%",
      "+",  "#",    "\\",  "/.",      "%00",  "\t",   "=",    "/%e2%82%ac", "/%ff"};
  fuzzing::run(0.5, [&](std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::string text = kBegins[random() % std::size(kBegins)];
    for (std::uint64_t n = random() % 5; n > 0; --n)
      text += kTargetPieces[random() % std::size(kTargetPieces)];
    for (std::uint64_t n = random() % 4; n > 0; --n) fuzzing::damage(text, random, kTargetPieces);
    check_target(text);
  });
}

void check_form(const std::string& type, const std::string& body) {
  const auto parts = parse_multipart(type, body);
  if (!parts.ok()) {
    ASSERT_EQ(parts.error().code, ErrorCode::kInvalidArgument);
    return;
  }
  ASSERT_LE(parts->size(), kMostFormParts);
  for (const FormPart& part : *parts) {
    ASSERT_FALSE(part.name.empty());
    ASSERT_EQ(part.filename.find('/'), std::string::npos);
    ASSERT_TRUE(part.content.data() >= body.data() &&
                part.content.data() + part.content.size() <= body.data() + body.size());
  }
}

TEST(FormFuzz, TheKeptCorpusIsReadOrRefused) {
  for (const auto& [file, body] : fuzzing::corpus("form")) {
    const bool good = file.filename().string().starts_with("good");
    check_form("multipart/form-data; boundary=b", body);
    EXPECT_EQ(parse_multipart("multipart/form-data; boundary=b", body).ok(), good) << file;
  }
}

TEST(FormFuzz, PartsOfDamagedFormsLieInTheBody) {
  const auto beginnings = fuzzing::corpus("form");
  fuzzing::run(0.5, [&](std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::string type = "multipart/form-data; boundary=b";
    if (random() % 4 == 0) fuzzing::damage(type, random, kPieces);
    check_form(type, damaged(beginnings, random));
  });
}

boost::asio::awaitable<Response> answer(Request& request) {
  if (request.refusal) co_return problem_response(*request.refusal, "id");
  Response response;
  try {
    if (request.read_body) response.body = co_await request.read_body(1000);
  } catch (const ProblemFailure& failure) {
    response = problem_response(failure.problem(), "id");
  }
  co_return response;
}

// "HTTP/1.1 100 Continue" and whole answers, nothing else: parse_answers fails the test otherwise.
void check_answers(std::string bytes) {
  const std::string_view interim = "HTTP/1.1 100 Continue\r\n\r\n";
  for (std::size_t at = 0; (at = bytes.find(interim, at)) != std::string::npos;)
    bytes.erase(at, interim.size());
  std::string_view rest = bytes;
  while (!rest.empty()) {
    const std::size_t end = rest.find("\r\n\r\n");
    ASSERT_TRUE(rest.starts_with("HTTP/1.1 ") && end != std::string_view::npos) << bytes;
    const std::size_t next = rest.find("HTTP/1.1 ", end);
    const std::string_view one = rest.substr(0, next);
    const int status = std::atoi(std::string(one.substr(9, 3)).c_str());
    EXPECT_TRUE(status == 200 || (status >= 400 && status < 500)) << bytes;
    rest.remove_prefix(one.size());
  }
}

// Sends `bytes` in two pieces, as the network may cut them.
void check_server(std::uint16_t port, const std::string& bytes, std::size_t cut) {
  RawClient client(port);
  client.send(std::string_view(bytes).substr(0, cut));
  client.send(std::string_view(bytes).substr(cut));
  client.shutdown_sending();
  check_answers(client.read_all());
}

TEST(ServerFuzz, DamagedRequestsAreAnsweredOrRefused) {
  NoLog log;
  ServerOptions options;
  options.header_time = std::chrono::seconds(2);
  options.body_stall = std::chrono::seconds(2);
  Server server(options, answer, log);
  ASSERT_TRUE(server.start().ok());
  const auto beginnings = fuzzing::corpus("http");
  for (const auto& [file, bytes] : beginnings) {
    SCOPED_TRACE(file);
    check_server(server.port(), bytes, bytes.size() / 2);
  }
  fuzzing::run(1, [&](std::uint64_t seed) {
    std::mt19937_64 random(seed);
    const std::string bytes = damaged(beginnings, random);
    check_server(server.port(), bytes, random() % (bytes.size() + 1));
  });
  RawClient after(server.port());
  after.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(parse_answers(after.read_all()).size(), 1U);
}

}  // namespace
}  // namespace limner::gateway::http
