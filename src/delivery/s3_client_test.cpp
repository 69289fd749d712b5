// What can be said of S3 without a server; tests/services has the rest.
#include "delivery/s3_client.h"

#include <gtest/gtest.h>

#include "delivery/store_settings.h"
#include "delivery/xml.h"

namespace limner::delivery {
namespace {

using platform::http::Reply;
using platform::http::Request;

// Answers everything alike and keeps what it was asked.
class FakeExchange final : public platform::http::Exchange {
 public:
  Result<Reply> send(const Request& request) override {
    requests.push_back(request);
    return reply;
  }
  std::string header(std::string_view name) const {
    for (const std::string& line : requests.at(0).headers) {
      if (line.starts_with(name)) return line.substr(name.size() + 2);
    }
    return "";
  }
  std::vector<Request> requests;
  Reply reply{.status = 200};
};

class S3Requests : public testing::Test {
 protected:
  S3Requests() {
    options_.endpoint = "https://s3.example.com";
    options_.bucket = "pictures";
    options_.credentials = {"id", "secret", ""};
    options_.retries.first_delay = std::chrono::milliseconds(1);
  }
  std::unique_ptr<S3Client> client() { return S3Client::make(options_, exchange_, clock_).value(); }
  std::string url_of_get() {
    EXPECT_TRUE(client()->get("a b/c.png").ok());
    return exchange_.requests.at(0).url.text();
  }

  S3Options options_;
  FakeExchange exchange_;
  platform::ManualClock clock_;
};

TEST_F(S3Requests, TheBucketIsInThePathOrInTheHost) {
  EXPECT_EQ(url_of_get(), "https://s3.example.com/pictures/a%20b/c.png");
  exchange_.requests.clear();
  options_.addressing = Addressing::kHost;
  EXPECT_EQ(url_of_get(), "https://pictures.s3.example.com/a%20b/c.png");
  exchange_.requests.clear();
  options_.bucket.clear();
  options_.endpoint = "https://id.r2.example.com:8443/pictures/";
  EXPECT_EQ(url_of_get(), "https://id.r2.example.com:8443/pictures/a%20b/c.png");
}

TEST_F(S3Requests, EveryRequestSaysItsPayloadsHash) {
  ASSERT_TRUE(client()->get("a").ok());
  EXPECT_EQ(exchange_.header("x-amz-content-sha256"), sigv4::kEmptyPayload);
  exchange_.requests.clear();
  const std::vector<std::uint8_t> bytes = {'a', 'b', 'c'};
  ASSERT_TRUE(client()->put("a", "image/png", bytes).ok());
  EXPECT_EQ(exchange_.header("x-amz-content-sha256"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_NE(exchange_.header("authorization").find("SignedHeaders=content-type;host;"),
            std::string::npos);
}

TEST_F(S3Requests, ARangeThatIsAnsweredWithTheWholeObjectIsAnError) {
  EXPECT_EQ(client()->get("a", {.first = 1, .length = 2}).error().code, ErrorCode::kIo);
  EXPECT_EQ(exchange_.header("range"), "bytes=1-2");
}

TEST_F(S3Requests, AFailureBehindA200IsSeen) {
  const std::string body = "<Error><Code>InternalError</Code></Error>";
  exchange_.reply.body.assign(body.begin(), body.end());
  const auto completed =
      client()->send({.method = "POST", .key = "a", .query = {{"uploadId", "u"}}});
  ASSERT_FALSE(completed.ok());
  EXPECT_TRUE(completed.error().retryable);
  EXPECT_EQ(exchange_.requests.size(), 4u);
}

TEST_F(S3Requests, OptionsThatCannotWorkAreRefused) {
  options_.endpoint = "s3.example.com";
  EXPECT_EQ(S3Client::make(options_, exchange_, clock_).error().code, ErrorCode::kInvalidArgument);
  options_.endpoint = "https://s3.example.com";
  options_.credentials = {};
  EXPECT_EQ(S3Client::make(options_, exchange_, clock_).error().code, ErrorCode::kInvalidArgument);
}

platform::DeliveryConfig bucket(const std::string& endpoint) {
  platform::DeliveryConfig config;
  config.endpoint = endpoint;
  config.access_key_id.value = "id";
  config.secret_access_key.value = "secret";
  return config;
}

TEST(StoreSettings, TheThreeOfABucketBelongTogether) {
  platform::DeliveryConfig config;
  EXPECT_FALSE(names_s3(config));
  config.endpoint = "https://a.example.com";
  EXPECT_TRUE(names_s3(config));
  const auto missing = s3_options(config);
  ASSERT_FALSE(missing.ok());
  EXPECT_NE(missing.error().message.find("missing: delivery.access_key_id (BUCKET_ACCESS_KEY_ID) "
                                         "and delivery.secret_access_key"),
            std::string::npos)
      << missing.error().message;
  EXPECT_FALSE(s3_options(bucket("a.example.com")).ok());
}

TEST(StoreSettings, TheRegionIsReadOffKnownHosts) {
  const std::pair<const char*, const char*> cases[] = {
      {"https://pictures.s3.eu-central-1.amazonaws.com", "eu-central-1"},
      {"https://s3.us-west-2.amazonaws.com/pictures", "us-west-2"},
      {"https://s3.dualstack.eu-west-1.amazonaws.com/pictures", "eu-west-1"},
      {"https://pictures.s3-ap-southeast-2.amazonaws.com", "ap-southeast-2"},
      {"https://s3.cn-north-1.amazonaws.com.cn/pictures", "cn-north-1"},
      {"https://pictures.s3.amazonaws.com", "us-east-1"},
      {"https://pictures.s3.us-west-004.backblazeb2.com", "us-west-004"},
      {"https://s3.eu-central-2.wasabisys.com/pictures", "eu-central-2"},
      {"https://pictures.nyc3.digitaloceanspaces.com", "nyc3"},
      {"https://id.r2.cloudflarestorage.com/pictures", "us-east-1"}};
  for (const auto& [endpoint, region] : cases) {
    const auto options = s3_options(bucket(endpoint));
    ASSERT_TRUE(options.ok()) << endpoint;
    EXPECT_EQ(options->region, region) << endpoint;
    EXPECT_EQ(options->endpoint, endpoint);
    EXPECT_EQ(options->bucket, "");
  }
  platform::DeliveryConfig given = bucket("https://s3.us-west-2.amazonaws.com");
  given.region = "elsewhere";
  EXPECT_EQ(s3_options(given)->region, "elsewhere");
}

TEST(Xml, ElementsAndTheirTextWithEntities) {
  const std::string_view xml =
      "<R a=\"b\"><KeyCount>2</KeyCount><Key>a&amp;b &lt;&#34;&#x27;</Key><Key x=\"1\">c</Key></R>";
  EXPECT_EQ(xml_text(xml, "Key"), "a&b <\"'");
  EXPECT_EQ(xml_elements(xml, "Key").size(), 2u);
  EXPECT_EQ(xml_elements(xml, "Key")[1], "c");
  EXPECT_EQ(xml_text(xml, "None"), "");
  for (const char* broken : {"<Key>", "<Key", "</Key><Key>", "<Key></Ke", "<Key>a&amp"}) {
    EXPECT_TRUE(xml_elements(broken, "Key").empty()) << broken;
  }
}

}  // namespace
}  // namespace limner::delivery
