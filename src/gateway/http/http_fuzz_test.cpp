// Fuzzing of all that strangers' bytes reach first: requests to a listening server, targets, forms.
// Deterministic; LIMNER_FUZZ_SECONDS makes it run longer and LIMNER_FUZZ_SEED start elsewhere.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <iterator>
#include <random>
#include <string>

#include "base/utf8.h"
#include "gateway/http/multipart.h"
#include "gateway/http/problem.h"
#include "gateway/http/raw_client.h"
#include "gateway/http/router.h"
#include "gateway/http/server.h"
#include "gateway/http/target.h"

namespace limner::gateway::http {
namespace {

double setting(const char* name, double fallback) {
  const char* text = std::getenv(name);
  return text ? std::atof(text) : fallback;
}

class Generator {
 public:
  explicit Generator(std::uint64_t seed) : random_(seed) {}

  std::uint64_t below(std::uint64_t bound) { return random_() % bound; }

  template <std::size_t N>
  std::string one_of(const char* const (&choices)[N]) {
    return choices[below(N)];
  }

  void damage(std::string& text) {
    if (text.empty()) return;
    const std::size_t at = below(text.size());
    switch (below(6)) {
      case 0:
        text.erase(at, 1 + below(9));
        return;
      case 1:
        text[at] = static_cast<char>(below(256));
        return;
      case 2:
        text.resize(at);
        return;
      case 3:
        text.insert(at, text.substr(below(text.size()), below(40)));
        return;
      case 4:
        text.insert(at, std::string(below(60), "\r\n%:"[below(4)]));
        return;
      default:
        text.insert(at,
                    one_of({"\r\n", "\n", ":", "0\r\n\r\n", "%00", "chunked", "9999999999", "\t"}));
        return;
    }
  }

  std::string target() {
    std::string text = one_of({"/", "/v1/jobs", "/v1/jobs/", "http://x/v1/jobs", "*", "//", ""});
    for (std::uint64_t n = below(4); n > 0; --n)
      text += one_of({"/a", "/%41", "/..", "/%2e%2e", "/%2f", "?a=1", "&a=2", "&b=%20", "%", "+",
                      "/%e2%82%ac", "/%ff", "#"});
    return text;
  }

  std::string request() {
    std::string text = fmt::format("{} {} HTTP/{}\r\nHost: x\r\n",
                                   one_of({"GET", "POST", "HEAD", "PUT", "BREW", "get"}), target(),
                                   one_of({"1.1", "1.1", "1.1", "1.0", "2.0"}));
    for (std::uint64_t n = below(4); n > 0; --n)
      text += one_of({"Content-Length: 5\r\n", "Content-Length: 0\r\n", "A: b\r\n", "Host: y\r\n",
                      "Transfer-Encoding: chunked\r\n", "Connection: close\r\n",
                      "Connection: keep-alive\r\n", "Expect: 100-continue\r\n", "A:\r\n b\r\n",
                      "Transfer-Encoding: gzip, chunked\r\n", "Upgrade: h2c\r\n"});
    text += "\r\n";
    text += one_of({"", "", "hello", "5\r\nhello\r\n0\r\n\r\n", "1;x=y\r\na\r\n0\r\nB: c\r\n\r\n",
                    "ffffffffffffffffff\r\n", "-1\r\n"});
    return text;
  }

  std::string form() {
    std::string text;
    for (std::uint64_t n = below(4); n > 0; --n)
      text += fmt::format("--b\r\nContent-Disposition: form-data; name={}{}\r\n\r\n{}\r\n",
                          one_of({"a", "\"a\"", "\"a\\\"\"", "\"", ""}),
                          one_of({"", "; filename=\"../x\"", ";filename=y", "\r\nContent-Type: z"}),
                          one_of({"", "text", "\r\n--", "--b"}));
    return text + "--b--\r\n";
  }

 private:
  std::mt19937_64 random_;
};

// Calls `check` with one generator after another.
template <typename Check>
void fuzz(int least, Check check) {
  const auto begin = std::chrono::steady_clock::now();
  const std::chrono::duration<double> time(setting("LIMNER_FUZZ_SECONDS", 0));
  auto seed = static_cast<std::uint64_t>(setting("LIMNER_FUZZ_SEED", 1));
  for (int i = 0; i < least || std::chrono::steady_clock::now() - begin < time; ++i, ++seed) {
    Generator generator(seed);
    check(generator);
    if (::testing::Test::HasFailure()) FAIL() << "seed " << seed;
  }
}

bool is_safe(const std::string& text) {
  return decode_utf8(text).ok() && std::none_of(text.begin(), text.end(), [](char c) {
           return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
         });
}

void check_target(std::string text, Generator& generator) {
  for (std::uint64_t n = generator.below(4); n > 0; --n) generator.damage(text);
  try {
    const Target target = parse_target(text);
    for (const std::string& segment : target.segments)
      EXPECT_TRUE(is_safe(segment) && segment != "." && segment != ".." &&
                  segment.find('/') == std::string::npos)
          << text;
    for (const auto& [name, value] : target.query)
      EXPECT_TRUE(is_safe(name) && is_safe(value)) << text;
  } catch (const ProblemFailure& failure) {
    EXPECT_EQ(failure.problem().status, beast_http::status::bad_request);
    EXPECT_TRUE(failure.problem().detail.ends_with('.'));
  }
}

TEST(TargetFuzz, WhatIsAcceptedIsSafe) {
  fuzz(20'000, [](Generator& generator) { check_target(generator.target(), generator); });
}

TEST(MultipartFuzz, PartsLieInTheBody) {
  fuzz(10'000, [](Generator& generator) {
    std::string body = generator.form();
    std::string type = "multipart/form-data; boundary=b";
    for (std::uint64_t n = generator.below(4); n > 0; --n)
      generator.damage(generator.below(4) == 0 ? type : body);
    const auto parts = parse_multipart(type, body);
    if (!parts.ok()) return;
    for (const FormPart& part : *parts) {
      EXPECT_FALSE(part.name.empty());
      EXPECT_EQ(part.filename.find('/'), std::string::npos);
      EXPECT_TRUE(part.content.data() >= body.data() &&
                  part.content.data() + part.content.size() <= body.data() + body.size());
    }
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

TEST(ServerFuzz, DamagedRequestsAreAnsweredOrRefused) {
  NoLog log;
  ServerOptions options;
  options.header_time = std::chrono::seconds(2);
  options.body_stall = std::chrono::seconds(2);
  Server server(options, answer, log);
  ASSERT_TRUE(server.start().ok());
  fuzz(1'500, [&](Generator& generator) {
    std::string bytes = generator.request() + generator.request();
    for (std::uint64_t n = generator.below(5); n > 0; --n) generator.damage(bytes);
    RawClient client(server.port());
    const std::size_t cut = generator.below(bytes.size() + 1);
    client.send(std::string_view(bytes).substr(0, cut));
    client.send(std::string_view(bytes).substr(cut));
    client.shutdown_sending();
    check_answers(client.read_all());
  });
  RawClient after(server.port());
  after.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(parse_answers(after.read_all()).size(), 1U);
}

}  // namespace
}  // namespace limner::gateway::http
