#include "delivery/sigv4.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "delivery/crypto.h"
#include "delivery/percent.h"

namespace limner::delivery::sigv4 {
namespace {

using nlohmann::json;
using std::chrono::sys_days;
using std::chrono::year;

// An HTTP request as the suite writes it: lines, a continued header, perhaps a body.
Request parse_request(const std::string& text) {
  Request request{.payload_header = false};
  std::istringstream lines(text);
  std::string line;
  std::getline(lines, line);
  const auto first = line.find(' '), last = line.rfind(' ');
  request.method = line.substr(0, first);
  const std::string target = line.substr(first + 1, last - first - 1);
  const auto question = target.find('?');
  request.path = percent_decode(target.substr(0, question)).value();
  std::istringstream query(question == std::string::npos ? "" : target.substr(question + 1));
  for (std::string pair; std::getline(query, pair, '&');) {
    const auto equals = std::min(pair.find('='), pair.size());
    request.query.emplace_back(
        percent_decode(pair.substr(0, equals)).value(),
        percent_decode(pair.substr(std::min(equals + 1, pair.size()))).value());
  }
  while (std::getline(lines, line) && !line.empty()) {
    if (line.front() == ' ') {
      request.headers.back().second += line;
      continue;
    }
    const auto colon = line.find(':');
    request.headers.emplace_back(line.substr(0, colon), line.substr(colon + 1));
  }
  std::string body{std::istreambuf_iterator<char>(lines), {}};
  request.payload_sha256 = sha256_hex(bytes_of(body));
  return request;
}

std::string signature_in(std::string_view text, std::string_view before) {
  const auto place = text.find(before);
  return place == std::string_view::npos ? "" : std::string(text.substr(place + before.size(), 64));
}

TEST(SigV4, AllCasesOfTheSuiteInBothForms) {
  std::ifstream file(LIMNER_SOURCE_DIR "/src/delivery/testdata/sigv4_cases.json");
  const json cases = json::parse(file);
  ASSERT_EQ(cases.size(), 38u);
  const Scope scope{"us-east-1", "service",
                    sys_days(year(2015) / 8 / 30) + std::chrono::seconds(12 * 3600 + 36 * 60)};
  for (const json& c : cases) {
    const std::string name = c["name"];
    const Credentials credentials{"AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
                                  c.value("token", "")};
    Request request = parse_request(c["request"]);
    request.normalize_path = c.value("normalize", true);
    request.payload_header = c.value("sign_body", false);
    EXPECT_EQ(signature_in(sign(request, credentials, scope).back().second, "Signature="),
              c["header_signature"])
        << name;
    EXPECT_EQ(signature_in(presign(request, credentials, scope, std::chrono::seconds(3600)),
                           "X-Amz-Signature="),
              c["query_signature"])
        << name;
  }
}

// The examples of "Authenticating Requests: Using the Authorization Header / Query Parameters" in
// the S3 API reference.
class S3Examples : public testing::Test {
 protected:
  Request request(std::string method, std::string path) const {
    return {.method = std::move(method),
            .path = std::move(path),
            .headers = {{"Host", "examplebucket.s3.amazonaws.com"}},
            .payload_sha256 = std::string(kEmptyPayload)};
  }
  std::string signed_as(const Request& r) const {
    return signature_in(sign(r, credentials_, scope_).back().second, "Signature=");
  }

  const Credentials credentials_{"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                                 ""};
  const Scope scope_{"us-east-1", "s3", sys_days(year(2013) / 5 / 24)};
};

TEST_F(S3Examples, GetWithRange) {
  Request get = request("GET", "/test.txt");
  get.headers.emplace_back("Range", "bytes=0-9");
  EXPECT_EQ(signed_as(get), "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

TEST_F(S3Examples, PutWithAnOddName) {
  Request put = request("PUT", "/test$file.text");
  put.headers.emplace_back("Date", "Fri, 24 May 2013 00:00:00 GMT");
  put.headers.emplace_back("x-amz-storage-class", "REDUCED_REDUNDANCY");
  put.payload_sha256 = sha256_hex(bytes_of("Welcome to Amazon S3."));
  EXPECT_EQ(signed_as(put), "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

TEST_F(S3Examples, AQueryWithoutAValue) {
  Request get = request("GET", "/");
  get.query = {{"lifecycle", ""}};
  EXPECT_EQ(signed_as(get), "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
}

TEST_F(S3Examples, PresignedGet) {
  Request get = request("GET", "/test.txt");
  get.payload_sha256 = kUnsignedPayload;
  const std::string query = presign(get, credentials_, scope_, std::chrono::seconds(86400));
  EXPECT_EQ(signature_in(query, "X-Amz-Signature="),
            "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404");
  EXPECT_TRUE(
      query.starts_with("X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential="
                        "AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&"));
}

}  // namespace
}  // namespace limner::delivery::sigv4
