// Stores at servers that are slow, ill or far away: run.py puts a fault proxy before each.
#include <atomic>
#include <thread>

#include "delivery/crypto.h"
#include "delivery/s3_large_put.h"
#include "store_support.h"

namespace limner::delivery {
namespace {

using std::chrono::milliseconds;

const char* const kPassingFaults[] = {"503",  "reset",     "lost",
                                      "half", "late:0.05", "reset,500,lost"};

struct FaultyKind {
  const char* name;
  const char* variable;
  MakeStore make;
};

class FaultyStore : public testing::TestWithParam<FaultyKind> {
 protected:
  ArtifactStore& store() { return under_test_->store(); }
  std::vector<std::string> listed() {
    std::vector<std::string> keys;
    const auto page = store().list({});
    for (const StoredObject& object : page->objects) keys.push_back(object.key.text());
    return keys;
  }

  FaultyServer server_{GetParam().variable};
  std::unique_ptr<StoreUnderTest> under_test_ = GetParam().make();
};
INSTANTIATE_TEST_SUITE_P(
    Of, FaultyStore,
    testing::Values(FaultyKind{"S3", "LIMNER_TEST_S3",
                               [] { return std::make_unique<S3UnderTest>(s3_options()); }},
                    FaultyKind{
                        "Supabase", "LIMNER_TEST_SUPABASE",
                        [] { return std::make_unique<SupabaseUnderTest>(supabase_options()); }}),
    [](const auto& made) { return made.param.name; });

TEST_P(FaultyStore, NoCallSeesAFaultThatPasses) {
  const auto bytes = some_bytes(50000);
  for (const std::string kind : kPassingFaults) {
    server_.faults(kind);
    const auto stored = store().put({.account = "acme"}, bytes);
    ASSERT_TRUE(stored.ok()) << kind << ": " << stored.error().message;
    server_.faults(kind);
    EXPECT_EQ(store().get(stored->key).value(), bytes) << kind;
    server_.faults(kind);
    EXPECT_EQ(store().get(stored->key, {.first = 10, .length = 3}).value(),
              std::vector(bytes.begin() + 10, bytes.begin() + 13))
        << kind;
    server_.faults(kind);
    EXPECT_EQ(store().head(stored->key).value().bytes, bytes.size()) << kind;
    server_.faults(kind);
    EXPECT_EQ(listed(), std::vector{stored->key.text()}) << kind;
    server_.faults(kind);
    const auto url = store().sign({.key = stored->key});
    server_.faults("");
    EXPECT_EQ(under_test_->fetch(url.value()), bytes) << kind;
    server_.faults("ok," + kind);  // after the look at its age
    EXPECT_TRUE(store().remove(stored->key).value()) << kind;
    EXPECT_TRUE(listed().empty()) << kind;
  }
}

TEST_P(FaultyStore, AFaultThatStaysIsToldAfterAllTries) {
  const auto key = store().put({.account = "acme"}, some_bytes(100)).value().key;
  server_.faults("500,503,500,500,500,500,500,500");
  const auto got = store().get(key);
  EXPECT_EQ(server_.requests(), 4);
  server_.faults("");
  ASSERT_FALSE(got.ok());
  EXPECT_EQ(got.error().code, ErrorCode::kUnavailable);
  EXPECT_TRUE(got.error().retryable);
  EXPECT_NE(got.error().message.find("500"), std::string::npos) << got.error().message;
}

TEST_P(FaultyStore, ChangedBytesAreReadAgainAndNeverReturned) {
  const auto key = store().put({.account = "acme"}, some_bytes(1000)).value().key;
  server_.faults("corrupt,corrupt");
  EXPECT_EQ(store().get(key).value(), some_bytes(1000));
  server_.faults("corrupt,corrupt,corrupt,corrupt,corrupt");
  EXPECT_EQ(store().get(key).error().code, ErrorCode::kIo);
  server_.faults("");
}

TEST_P(FaultyStore, CallsInARowUseOneConnectionAndSideBySideOneEach) {
  server_.faults("");
  for (int i = 0; i < 10; ++i) {
    const auto key = store().put({.account = "acme"}, some_bytes(1000, 7)).value().key;
    EXPECT_TRUE(store().get(key).ok());
  }
  EXPECT_EQ(server_.requests(), 20);
  EXPECT_EQ(server_.connections(), 1);
  std::vector<std::jthread> threads;
  for (std::uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 5; ++i) {
        EXPECT_TRUE(store().put({.account = "acme"}, some_bytes(1000, t)).ok());
      }
    });
  }
  threads.clear();
  EXPECT_LE(server_.connections(), 4);
}

class FaultyS3 : public testing::Test {
 protected:
  ~FaultyS3() override { server_.faults(""); }
  S3Client& client() {
    if (!client_) client_ = S3Client::make(options_, web_.exchange, clock_).value();
    return *client_;
  }
  Result<Time> put(const std::string& key, const std::vector<std::uint8_t>& bytes,
                   const CallLimits& limits = {}) {
    return client().put(key, "application/octet-stream", bytes, limits);
  }
  Result<S3Object> put_in_two(const std::string& key, const std::vector<std::uint8_t>& bytes,
                              int parallel = 2) {
    return put_in_parts(client(), key, "application/octet-stream", bytes,
                        {.part_bytes = 5 << 20, .parallel = parallel});
  }

  FaultyServer server_{"LIMNER_TEST_S3"};
  Web web_;
  platform::SystemClock clock_;
  S3Options options_ = s3_options();
  std::unique_ptr<S3Client> client_;
};

TEST_F(FaultyS3, ADamagedUploadIsRefusedByTheServerAndSentAgain) {
  server_.faults("damaged,damaged");
  const auto stored = put("damaged/a", some_bytes(1000));
  ASSERT_TRUE(stored.ok()) << stored.error().message;
  EXPECT_EQ(server_.requests(), 3);
  EXPECT_EQ(client().get("damaged/a").value(), some_bytes(1000));
  server_.faults("damaged,damaged,damaged,damaged");
  EXPECT_FALSE(put("damaged/b", some_bytes(1000)).ok());
  server_.faults("");
  EXPECT_EQ(client().head("damaged/b").error().code, ErrorCode::kNotFound);
}

TEST_F(FaultyS3, TheSumBesideAnObjectGuardsItsDownload) {
  ASSERT_TRUE(put("sum/a", some_bytes(1000)).ok());
  EXPECT_EQ(client().head("sum/a")->sha256, sha256_hex(some_bytes(1000)));
  server_.faults("corrupt,corrupt,corrupt,corrupt");
  const auto got = client().get("sum/a");
  ASSERT_FALSE(got.ok());
  EXPECT_EQ(got.error().code, ErrorCode::kIo);
  EXPECT_NE(got.error().message.find(sha256_hex(some_bytes(1000))), std::string::npos);
}

TEST_F(FaultyS3, ASlowServerMeetsTheDeadlines) {
  options_.retries.timeout = milliseconds(200);
  options_.retries.attempts = 2;
  server_.faults("slow:1,slow:1");
  auto begin = clock_.now();
  EXPECT_EQ(client().get("slow/none").error().code, ErrorCode::kDeadlineExceeded);
  EXPECT_LT(clock_.now() - begin, milliseconds(900));
  // The caller's own time, of a client that would wait longer.
  options_ = s3_options();
  client_.reset();
  server_.faults("late:1,late:1");
  begin = clock_.now();
  EXPECT_EQ(put("slow/a", some_bytes(9), {.within = milliseconds(250)}).error().code,
            ErrorCode::kDeadlineExceeded);
  EXPECT_LT(clock_.now() - begin, milliseconds(700));
  std::stop_source stop;
  std::jthread stopper([&] {
    std::this_thread::sleep_for(milliseconds(100));
    stop.request_stop();
  });
  begin = clock_.now();
  EXPECT_EQ(put("slow/a", some_bytes(9), {.stop = stop.get_token()}).error().code,
            ErrorCode::kCancelled);
  EXPECT_LT(clock_.now() - begin, milliseconds(700));
}

TEST_F(FaultyS3, AServerThatKeepsFailingIsLeftAloneAndThenProbed) {
  options_.retries.attempts = 1;
  options_.retries.breaker = {.failures = 3, .pause = milliseconds(300)};
  server_.faults("500,500,500,500,500");
  for (int i = 0; i < 6; ++i) EXPECT_FALSE(client().get("faults/none").ok());
  EXPECT_EQ(server_.requests(), 3);
  std::this_thread::sleep_for(milliseconds(350));
  EXPECT_FALSE(client().get("faults/none").ok());
  EXPECT_EQ(server_.requests(), 4);
  server_.faults("");
  EXPECT_EQ(client().get("faults/none").error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(server_.requests(), 0);
  std::this_thread::sleep_for(milliseconds(350));
  EXPECT_EQ(client().get("faults/none").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(client().get("faults/none").error().code, ErrorCode::kNotFound);
}

TEST_F(FaultyS3, PartsBecomeOneObjectWhicheverRequestFails) {
  const auto bytes = some_bytes((5 << 20) + 12345);
  // begin, two parts, complete, head
  for (const std::string faults : {"500", "lost", "ok,reset", "ok,damaged,lost", "ok,ok,half",
                                   "ok,ok,ok,500", "ok,ok,ok,lost", "ok,ok,ok,ok,lost"}) {
    const std::string key = "parts/" + faults;
    server_.faults(faults);
    const auto stored = put_in_two(key, bytes);
    ASSERT_TRUE(stored.ok()) << faults << ": " << stored.error().message;
    EXPECT_EQ(stored->bytes, bytes.size());
    EXPECT_EQ(stored->sha256, sha256_hex(bytes));
    EXPECT_EQ(client().get(key).value(), bytes) << faults;
  }
  EXPECT_EQ(client().list("parts/", "", 100)->objects.size(), 8u);
  // A begin whose answer was lost is an upload that nobody goes on with.
  S3Store store(client(), "parts/");
  EXPECT_TRUE(
      store.remove_leftovers(std::chrono::system_clock::now() + std::chrono::hours(1)).ok());
  EXPECT_EQ(client().unfinished_uploads("parts/")->size(), 0u);
}

TEST_F(FaultyS3, AFailedUploadInPartsLeavesNothing) {
  options_.retries.attempts = 2;
  server_.faults("ok,ok,500,500");
  const auto stored = put_in_two("failed/a", some_bytes((5 << 20) + 1), 1);
  ASSERT_FALSE(stored.ok());
  EXPECT_EQ(stored.error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(client().head("failed/a").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(client().unfinished_uploads("failed/")->size(), 0u);
}

// Many put through a storm; somebody who looks past the proxy sees whole objects only.
TEST_F(FaultyS3, InAStormObjectsAreWholeAndThereOnce) {
  options_.retries.attempts = 10;
  S3Store stormy(client(), "storm/");
  S3Options direct_options = s3_options();
  direct_options.endpoint = from_environment("LIMNER_TEST_S3_DIRECT");
  const auto direct_client = S3Client::make(direct_options, web_.exchange, clock_).value();
  S3Store direct(*direct_client, "storm/");
  std::atomic<int> looks = 0;
  std::jthread reader([&](std::stop_token stop) {
    while (!stop.stop_requested()) {
      const auto page = direct.list({}).value();
      for (const StoredObject& object : page.objects) {
        const auto got = direct.get(object.key, {});
        EXPECT_TRUE(got.ok()) << got.error().message;
        ++looks;
      }
    }
  });
  server_.storm(0.3, 7);
  std::vector<std::jthread> writers;
  for (std::uint32_t w = 0; w < 4; ++w) {
    writers.emplace_back([&, w] {
      for (std::uint32_t i = 0; i < 10; ++i) {
        const auto stored = stormy.put({.account = "acme"}, some_bytes(100'000, w * 100 + i));
        EXPECT_TRUE(stored.ok()) << stored.error().message;
      }
    });
  }
  writers.clear();
  EXPECT_GT(server_.requests(), 45);
  server_.faults("");
  reader = {};
  EXPECT_GT(looks, 10);
  const auto all = direct.list({}).value().objects;
  EXPECT_EQ(all.size(), 40u);
  for (const StoredObject& object : all) EXPECT_EQ(object.bytes, 100'000u);
}

}  // namespace
}  // namespace limner::delivery
