// Stores against real servers; run.py starts them.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "delivery/crypto.h"
#include "delivery/s3_store.h"
#include "delivery/store_conformance.h"
#include "delivery/supabase_store.h"
#include "delivery/sweeper.h"

namespace limner::delivery {
namespace {

using platform::http::parse_url;
using platform::http::Reply;
using platform::http::trusted_network;
using platform::http::WebExchange;

std::string from_environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

S3Options s3_options() {
  S3Options options;
  options.endpoint = from_environment("LIMNER_TEST_S3");
  options.bucket = "limner";
  options.credentials = {"limner", "limnersecret", ""};
  options.retries.first_delay = std::chrono::milliseconds(10);
  return options;
}

std::vector<std::uint8_t> some_bytes(std::size_t count, std::uint32_t state = 1) {
  std::vector<std::uint8_t> bytes(count);
  for (auto& byte : bytes) byte = static_cast<std::uint8_t>((state = state * 1664525u + 99u) >> 24);
  return bytes;
}

class Web {
 public:
  Reply send(const std::string& method, const std::string& url,
             const std::vector<std::uint8_t>& body = {}) {
    auto reply = exchange.send({.method = method,
                                .url = parse_url(url).value_or_throw(),
                                .body = body,
                                .max_reply = 64 << 20});
    EXPECT_TRUE(reply.ok()) << (reply ? "" : reply.error().message);
    return reply ? *reply : Reply{};
  }
  WebExchange exchange{trusted_network()};
};

class S3UnderTest final : public StoreUnderTest {
 public:
  ArtifactStore& store() override { return store_; }
  std::optional<std::vector<std::uint8_t>> fetch(const std::string& url) override {
    Reply reply = web_.send("GET", url);
    if (reply.status != 200) return std::nullopt;
    return std::move(reply.body);
  }

 private:
  static std::string next_prefix() {
    static int count = 0;
    return "suite/" + std::to_string(count++) + "/";
  }
  Web web_;
  platform::SystemClock clock_;
  std::unique_ptr<S3Client> client_ = S3Client::make(s3_options(), web_.exchange, clock_).value();
  S3Store store_{*client_, next_prefix()};
};

INSTANTIATE_TEST_SUITE_P(S3, StoreConformance,
                         testing::Values([] { return std::make_unique<S3UnderTest>(); }),
                         [](const auto&) { return "Path"; });

SupabaseOptions supabase_options() {
  SupabaseOptions options;
  options.url = from_environment("LIMNER_TEST_SUPABASE");
  options.service_key = "service-key";
  options.bucket = "limner";
  return options;
}

class SupabaseUnderTest final : public StoreUnderTest {
 public:
  ArtifactStore& store() override { return *store_; }
  std::optional<std::vector<std::uint8_t>> fetch(const std::string& url) override {
    Reply reply = web_.send("GET", url);
    if (reply.status != 200) return std::nullopt;
    return std::move(reply.body);
  }

 private:
  static SupabaseOptions next_options() {
    static int count = 0;
    SupabaseOptions options = supabase_options();
    options.prefix = "suite/" + std::to_string(count++) + "/";
    return options;
  }
  Web web_;
  platform::SystemClock clock_;
  std::unique_ptr<SupabaseStore> store_ =
      SupabaseStore::make(next_options(), web_.exchange, clock_).value();
};

INSTANTIATE_TEST_SUITE_P(Supabase, StoreConformance,
                         testing::Values([] { return std::make_unique<SupabaseUnderTest>(); }),
                         [](const auto&) { return "Fake"; });

TEST(Supabase, WrongKeysAndMissingBucketsAreTold) {
  Web web;
  const platform::SystemClock clock;
  EXPECT_TRUE(
      SupabaseStore::make(supabase_options(), web.exchange, clock).value()->check_bucket().ok());
  SupabaseOptions options = supabase_options();
  options.bucket = "none";
  EXPECT_EQ(SupabaseStore::make(options, web.exchange, clock).value()->check_bucket().error().code,
            ErrorCode::kNotFound);
  options = supabase_options();
  options.service_key = "another-key";
  const auto refused = SupabaseStore::make(options, web.exchange, clock).value()->check_bucket();
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kPermissionDenied);
  EXPECT_EQ(refused.error().message.find("another-key"), std::string::npos);
  options.url = "not a url";
  EXPECT_FALSE(SupabaseStore::make(options, web.exchange, clock).ok());
}

class S3 : public testing::Test {
 protected:
  void faults(const std::string& kinds) {
    web_.send("POST", options_.endpoint + "/__faults?" + kinds);
  }
  int requests() {
    return std::stoi(std::string(web_.send("GET", options_.endpoint + "/__count").text()));
  }
  S3Client& client() {
    if (!client_) client_ = S3Client::make(options_, web_.exchange, clock_).value();
    return *client_;
  }
  Result<Time> put(const std::string& key, const std::vector<std::uint8_t>& bytes) {
    return client().put(key, "application/octet-stream", bytes);
  }

  Web web_;
  platform::SystemClock clock_;
  S3Options options_ = s3_options();
  std::unique_ptr<S3Client> client_;
};

TEST_F(S3, FailuresThatPassAreNotSeen) {
  const auto bytes = some_bytes(50000);
  for (const char* kinds : {"500", "503,503", "reset", "lost", "reset,500,lost", "half"}) {
    faults(kinds);
    const auto stored = put("faults/a", bytes);
    EXPECT_TRUE(stored.ok()) << kinds << ": " << stored.error().message;
    faults(kinds);
    const auto got = client().get("faults/a");
    ASSERT_TRUE(got.ok()) << kinds << ": " << got.error().message;
    EXPECT_EQ(*got, bytes) << kinds;
  }
}

TEST_F(S3, FailuresThatStayAreToldAfterAllAttempts) {
  ASSERT_TRUE(put("faults/b", some_bytes(100)).ok());
  faults("500,500,500,500,500,500,500,500");
  const auto got = client().get("faults/b");
  ASSERT_FALSE(got.ok());
  EXPECT_EQ(got.error().code, ErrorCode::kUnavailable);
  EXPECT_TRUE(got.error().retryable);
  EXPECT_NE(got.error().message.find("InternalError"), std::string::npos) << got.error().message;
  EXPECT_EQ(requests(), 4);
  faults("");
}

TEST_F(S3, ASlowServerMeetsTheDeadline) {
  options_.retries.timeout = std::chrono::milliseconds(200);
  options_.retries.attempts = 2;
  faults("slow:1,slow:1");
  const auto begin = clock_.now();
  const auto got = client().get("faults/none");
  ASSERT_FALSE(got.ok());
  EXPECT_EQ(got.error().code, ErrorCode::kDeadlineExceeded);
  EXPECT_LT(clock_.now() - begin, std::chrono::milliseconds(900));
  faults("");
}

TEST_F(S3, AServerThatKeepsFailingIsLeftAlone) {
  options_.retries.attempts = 1;
  options_.retries.breaker = {.failures = 3, .pause = std::chrono::milliseconds(300)};
  faults("500,500,500,500,500");
  for (int i = 0; i < 6; ++i) EXPECT_FALSE(client().get("faults/none").ok());
  EXPECT_EQ(requests(), 3);
  std::this_thread::sleep_for(std::chrono::milliseconds(350));
  EXPECT_FALSE(client().get("faults/none").ok());
  EXPECT_EQ(requests(), 4);
  faults("");
  EXPECT_EQ(client().get("faults/none").error().code, ErrorCode::kUnavailable);
  std::this_thread::sleep_for(std::chrono::milliseconds(350));
  EXPECT_EQ(client().get("faults/none").error().code, ErrorCode::kNotFound);
}

TEST_F(S3, ChangedBytesAreReadAgainAndNeverReturned) {
  S3Store store(client(), "corrupt/");
  const auto stored = store.put({.account = "acme"}, some_bytes(1000));
  ASSERT_TRUE(stored.ok()) << stored.error().message;
  faults("corrupt,corrupt");
  EXPECT_EQ(store.get(stored->key, {}).value(), some_bytes(1000));
  faults("corrupt,corrupt,corrupt,corrupt");
  EXPECT_EQ(store.get(stored->key, {}).error().code, ErrorCode::kIo);
  faults("");
}

TEST_F(S3, WrongKeysAndMissingBucketsAreTold) {
  EXPECT_TRUE(client().check_bucket().ok());
  options_.bucket = "no-such-bucket";
  client_.reset();
  EXPECT_EQ(client().check_bucket().error().code, ErrorCode::kNotFound);
  options_ = s3_options();
  options_.credentials.secret_access_key = "wrong";
  client_.reset();
  const auto refused = put("a", some_bytes(1));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kPermissionDenied);
  EXPECT_EQ(refused.error().message.find("wrong"), std::string::npos);
}

TEST_F(S3, OddNamesAreSignedAsTheServerReadsThem) {
  for (const std::string key : {"odd/a b", "odd/a+b&c=d", "odd/caf\xc3\xa9 \xe2\x98\x83",
                                "odd/a%20b", "odd/(x)'!*;,@$", "odd/a?b#c"}) {
    ASSERT_TRUE(put(key, some_bytes(10)).ok()) << key;
    EXPECT_TRUE(client().get(key).ok()) << key;
    EXPECT_EQ(web_.send("GET", client().presign_get(key, std::chrono::seconds(60))).status, 200)
        << key;
  }
  const auto page = client().list("odd/", "", 100);
  ASSERT_TRUE(page.ok());
  EXPECT_EQ(page->objects.size(), 6u);
}

TEST_F(S3, APresignedPutStores) {
  const auto bytes = some_bytes(5000);
  const std::string url = client().presign_put("presigned/put", std::chrono::seconds(60));
  EXPECT_EQ(web_.send("PUT", url, bytes).status, 200);
  EXPECT_EQ(client().get("presigned/put").value(), bytes);
  std::string other = url;
  other.replace(other.find("presigned/put"), 13, "presigned/got");
  EXPECT_EQ(web_.send("PUT", other, bytes).status, 403);
}

TEST_F(S3, ADownloadNameComesWithTheAnswer) {
  ASSERT_TRUE(put("named/a", some_bytes(10)).ok());
  const auto reply =
      web_.send("GET", client().presign_get("named/a", std::chrono::seconds(60), "my cat.png"));
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.header("content-disposition"),
            "attachment; filename=\"my cat.png\"; filename*=UTF-8''my%20cat.png");
}

TEST_F(S3, PartsBecomeOneObjectAlsoThroughFaults) {
  const auto bytes = some_bytes((11 << 20) + 12345);
  const ReadPart read = [&](std::uint64_t offset, std::uint64_t length) {
    const auto begin = bytes.begin() + static_cast<std::ptrdiff_t>(offset);
    return Result<std::vector<std::uint8_t>>({begin, begin + static_cast<std::ptrdiff_t>(length)});
  };
  const MultipartOptions parts{.part_bytes = 5 << 20, .parallel = 3};
  faults("ok,500,lost,reset");
  const auto stored =
      client().put_in_parts("parts/a", "application/octet-stream", bytes.size(), read, parts);
  ASSERT_TRUE(stored.ok()) << stored.error().message;
  EXPECT_EQ(client().head("parts/a")->bytes, bytes.size());
  EXPECT_EQ(client().get("parts/a").value(), bytes);
  const auto middle = client().get("parts/a", {.first = (5 << 20) - 3, .length = 6});
  EXPECT_EQ(middle.value(), std::vector<std::uint8_t>(bytes.begin() + (5 << 20) - 3,
                                                      bytes.begin() + (5 << 20) + 3));
}

TEST_F(S3, AFailedUploadInPartsLeavesNothing) {
  const ReadPart read = [&](std::uint64_t offset,
                            std::uint64_t length) -> Result<std::vector<std::uint8_t>> {
    if (offset > 0) return Error{ErrorCode::kIo, "the file went away"};
    return some_bytes(length);
  };
  const auto stored = client().put_in_parts("parts/b", "application/octet-stream", 11 << 20, read,
                                            {.part_bytes = 5 << 20, .parallel = 2});
  ASSERT_FALSE(stored.ok());
  EXPECT_EQ(stored.error().message, "the file went away");
  EXPECT_EQ(client().head("parts/b").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(client().unfinished_uploads("parts/")->size(), 0u);
}

}  // namespace
}  // namespace limner::delivery
