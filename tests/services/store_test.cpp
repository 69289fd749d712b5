// Stores against real servers; run.py starts them. store_faults_test.cpp has what goes wrong.
#include <gtest/gtest.h>

#include "store_support.h"

namespace limner::delivery {
namespace {

using std::chrono::seconds;

INSTANTIATE_TEST_SUITE_P(S3, StoreConformance,
                         testing::Values([] { return std::make_unique<S3UnderTest>(s3_options()); },
                                         [] {
                                           return std::make_unique<S3UnderTest>(s3_host_options());
                                         }),
                         [](const auto& made) { return made.index == 0 ? "Path" : "Host"; });
INSTANTIATE_TEST_SUITE_P(Supabase, StoreConformance, testing::Values([] {
                           return std::make_unique<SupabaseUnderTest>(supabase_options());
                         }),
                         [](const auto&) { return "Fake"; });

TEST(Supabase, WrongKeysAndMissingBucketsAreTold) {
  Web web;
  const platform::SystemClock clock;
  const auto check = [&](const SupabaseOptions& options) {
    return SupabaseClient::make(options, web.exchange, clock).value()->check_bucket();
  };
  EXPECT_TRUE(check(supabase_options()).ok());
  SupabaseOptions options = supabase_options();
  options.bucket = "none";
  EXPECT_EQ(check(options).error().code, ErrorCode::kNotFound);
  options = supabase_options();
  options.service_key = "another-key";
  const auto refused = check(options);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kPermissionDenied);
  EXPECT_EQ(refused.error().message.find("another-key"), std::string::npos);
  options.url = "not a url";
  EXPECT_FALSE(SupabaseClient::make(options, web.exchange, clock).ok());
}

TEST(Supabase, ANameThatItDoesNotTakeIsTold) {
  Web web;
  const platform::SystemClock clock;
  const auto client = SupabaseClient::make(supabase_options(), web.exchange, clock).value();
  EXPECT_TRUE(client->put("odd/a b+c&d=(1)'!*;,@$.png", "image/png", some_bytes(9)).ok());
  EXPECT_EQ(client->get("odd/a b+c&d=(1)'!*;,@$.png").value(), some_bytes(9));
  const auto refused = client->put("odd/caf\xc3\xa9.png", "image/png", some_bytes(9));
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.error().message.find("Invalid key"), std::string::npos);
}

class S3 : public testing::TestWithParam<bool> {
 protected:
  S3Client& client() {
    if (!client_) client_ = S3Client::make(options_, web_.exchange, clock_).value();
    return *client_;
  }
  Result<Time> put(const std::string& key, const std::vector<std::uint8_t>& bytes) {
    return client().put(key, "application/octet-stream", bytes);
  }
  // Signs as if it were `ago` earlier.
  std::unique_ptr<S3Client> client_of(seconds ago) {
    past_ = std::make_unique<platform::ManualClock>(clock_.wall() - ago);
    return S3Client::make(options_, web_.exchange, *past_).value();
  }

  Web web_;
  platform::SystemClock clock_;
  std::unique_ptr<platform::ManualClock> past_;
  S3Options options_ = GetParam() ? s3_host_options() : s3_options();
  std::unique_ptr<S3Client> client_;
};
INSTANTIATE_TEST_SUITE_P(Addressing, S3, testing::Bool(),
                         [](const auto& made) { return made.param ? "Host" : "Path"; });

TEST_P(S3, WrongKeysAndMissingBucketsAreTold) {
  EXPECT_TRUE(client().check_bucket().ok());
  options_.bucket = "no-such-bucket";
  client_.reset();
  EXPECT_EQ(client().check_bucket().error().code, ErrorCode::kNotFound);
  options_.bucket = "limner";
  options_.credentials.secret_access_key = "wrong";
  client_.reset();
  for (const Result<void>& refused : {client().check_bucket(), [&]() -> Result<void> {
                                        return put("a", some_bytes(1)).error();
                                      }()}) {
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().code, ErrorCode::kUnauthenticated) << refused.error().message;
    EXPECT_EQ(refused.error().message.find("wrong"), std::string::npos);
  }
  S3Store store(client(), "");
  EXPECT_EQ(store.put({.account = "acme"}, some_bytes(1)).error().code, ErrorCode::kIo);
  options_.credentials = {"nobody", "limnersecret", ""};
  client_.reset();
  EXPECT_FALSE(client().check_bucket().ok());
}

TEST_P(S3, OddNamesAreSignedAsTheServerReadsThem) {
  for (const std::string key : {"odd/a b", "odd/a+b&c=d", "odd/caf\xc3\xa9 \xe2\x98\x83",
                                "odd/a%20b", "odd/(x)'!*;,@$", "odd/a?b#c"}) {
    ASSERT_TRUE(put(key, some_bytes(10)).ok()) << key;
    EXPECT_TRUE(client().get(key).ok()) << key;
    EXPECT_EQ(web_.send("GET", client().presign_get(key, seconds(60))).status, 200) << key;
  }
  const auto page = client().list("odd/", "", 100);
  ASSERT_TRUE(page.ok());
  EXPECT_EQ(page->objects.size(), 6u);
}

TEST_P(S3, ADownloadNameComesWithTheAnswer) {
  ASSERT_TRUE(put("named/a", some_bytes(10)).ok());
  const auto reply = web_.send("GET", client().presign_get("named/a", seconds(60), "my cat.png"));
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.header("content-disposition"),
            "attachment; filename=\"my cat.png\"; filename*=UTF-8''my%20cat.png");
}

std::string replaced(std::string text, const std::string& what, const std::string& by) {
  const auto place = text.find(what);
  EXPECT_NE(place, std::string::npos) << what << " in " << text;
  return place == std::string::npos ? text : text.replace(place, what.size(), by);
}

// A URL of "presigned/NAME", changed in everything that its signature covers.
std::vector<std::string> tampered(const std::string& url, const std::string& name) {
  std::string other_signature = url;
  other_signature.back() = url.back() == '0' ? '1' : '0';
  return {replaced(url, "presigned/" + name, "presigned/other"),
          replaced(url, "X-Amz-Expires=60", "X-Amz-Expires=6000"),
          replaced(url, "X-Amz-Credential=limner", "X-Amz-Credential=lamner"),
          replaced(url, "us-east-1", "eu-west-1"),
          other_signature,
          url.substr(0, url.find("&X-Amz-Signature")),
          url.substr(0, url.find('?'))};
}

TEST_P(S3, APresignedGetOpensItsObjectForItsTimeOnly) {
  const auto bytes = some_bytes(5000);
  ASSERT_TRUE(put("presigned/get", bytes).ok());
  ASSERT_TRUE(put("presigned/other", bytes).ok());
  const std::string url = client().presign_get("presigned/get", seconds(60));
  EXPECT_EQ(web_.send("GET", url).body, bytes);
  EXPECT_EQ(web_.send("PUT", url, some_bytes(5)).status, 403);
  for (const std::string& changed : tampered(url, "get")) {
    const auto reply = web_.send("GET", changed);
    EXPECT_GE(reply.status, 400) << changed;
    EXPECT_NE(reply.body, bytes) << changed;
  }
  const auto late = client_of(seconds(90));
  EXPECT_EQ(web_.send("GET", late->presign_get("presigned/get", seconds(60))).status, 403);
  EXPECT_EQ(web_.send("GET", late->presign_get("presigned/get", seconds(600))).status, 200);
}

TEST_P(S3, APresignedPutStoresUnderItsNameForItsTimeOnly) {
  const auto bytes = some_bytes(5000), others = some_bytes(5000, 2);
  ASSERT_TRUE(client().remove("presigned/other").ok());
  const std::string url = client().presign_put("presigned/put", seconds(60));
  EXPECT_EQ(web_.send("PUT", url, bytes).status, 200);
  EXPECT_EQ(client().get("presigned/put").value(), bytes);
  for (const std::string& changed : tampered(url, "put")) {
    EXPECT_GE(web_.send("PUT", changed, others).status, 400) << changed;
  }
  const std::string late = client_of(seconds(90))->presign_put("presigned/put", seconds(60));
  EXPECT_EQ(web_.send("PUT", late, others).status, 403);
  EXPECT_EQ(client().get("presigned/put").value(), bytes);
  EXPECT_EQ(client().head("presigned/other").error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace limner::delivery
