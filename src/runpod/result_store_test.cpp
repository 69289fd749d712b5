// What a ResultStore does with its time and its threads; tests/services has real buckets.
#include "runpod/result_store.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace limner::runpod {
namespace {

using namespace std::chrono_literals;
using platform::http::Reply;
using platform::http::Request;

// A bucket's server in memory: keeps what is put, and can be slow or refuse.
class BucketServer final : public platform::http::Exchange {
 public:
  Result<Reply> send(const Request& request) override {
    std::unique_lock lock(mutex_);
    most_at_once = std::max(most_at_once, ++now_);
    changed_.wait_for(lock, request.stop, delay, [] { return false; });
    --now_;
    if (request.stop.stop_requested()) return Error{ErrorCode::kCancelled, "stopped"};
    paths.push_back(request.method + ' ' + request.url.target);
    Reply reply{.status = refuses.empty() || request.url.target.find(refuses) == std::string::npos
                              ? 200
                              : 403};
    const std::string body = answer;
    reply.body.assign(body.begin(), body.end());
    return reply;
  }
  bool was_asked(const std::string& path) {
    const std::scoped_lock lock(mutex_);
    return std::find(paths.begin(), paths.end(), path) != paths.end();
  }
  std::chrono::milliseconds delay{0};
  std::string refuses{}, answer{};
  int most_at_once = 0;  // by mutex_, like paths
  std::vector<std::string> paths;

 private:
  std::mutex mutex_;
  std::condition_variable_any changed_;
  int now_ = 0;  // by mutex_
};

class ResultStoreTest : public testing::Test {
 protected:
  ResultStoreTest() {
    config_.endpoint = "https://s3.example.com/pictures";
    config_.access_key_id.value = "id";
    config_.secret_access_key.value = "secret";
  }
  std::unique_ptr<ResultStore> open(ResultStoreOptions options = {}) {
    return ResultStore::open(config_, server_, clock_, options).value();
  }
  static std::vector<ResultFile> files(int count) {
    std::vector<ResultFile> all;
    for (int i = 0; i < count; ++i) {
      all.push_back({.key = "job/" + std::to_string(i) + ".png", .bytes = {1, 2, 3}});
    }
    return all;
  }

  platform::DeliveryConfig config_;
  BucketServer server_;
  platform::SystemClock clock_;
};

TEST_F(ResultStoreTest, IsWhatTheConfigurationNames) {
  platform::DeliveryConfig none;
  EXPECT_EQ(ResultStore::open(none, server_, clock_).value(), nullptr);
  EXPECT_NE(open(), nullptr);
  config_.secret_access_key.value.clear();
  const auto half = ResultStore::open(config_, server_, clock_);
  ASSERT_FALSE(half.ok());
  EXPECT_NE(half.error().message.find("BUCKET_SECRET_ACCESS_KEY"), std::string::npos);
  EXPECT_EQ(half.error().message.find("BUCKET_ACCESS_KEY_ID"), std::string::npos);
  EXPECT_TRUE(server_.paths.empty());
}

TEST_F(ResultStoreTest, FilesGoUpSideBySideAndTheirUrlsComeInOrder) {
  server_.delay = 60ms;
  const auto store = open();
  const auto urls = store->put_all(files(8));
  ASSERT_TRUE(urls.ok()) << urls.error().message;
  ASSERT_EQ(urls->size(), 8u);
  for (int i = 0; i < 8; ++i) {
    const std::string path = "/pictures/job/" + std::to_string(i) + ".png";
    EXPECT_TRUE(urls->at(static_cast<std::size_t>(i))
                    .starts_with("https://s3.example.com" + path + "?X-Amz-Algorithm="));
    EXPECT_TRUE(server_.was_asked("PUT " + path));
  }
  EXPECT_EQ(server_.most_at_once, 4);
}

TEST_F(ResultStoreTest, BeginDoesNotWaitForTheServer) {
  server_.delay = 300ms;
  const auto store = open();
  const auto before = std::chrono::steady_clock::now();
  std::vector<std::future<Result<std::string>>> urls;
  for (ResultFile& file : files(4)) urls.push_back(store->begin(std::move(file)));
  EXPECT_LT(std::chrono::steady_clock::now() - before, 150ms);
  for (auto& url : urls) EXPECT_TRUE(url.get().ok());
}

TEST_F(ResultStoreTest, AFileThatIsRefusedFailsThemAll) {
  server_.refuses = "/2.png";
  const auto urls = open()->put_all(files(6));
  // Of the worker's key: the client is not at fault.
  EXPECT_EQ(urls.error().code, ErrorCode::kIo);
}

TEST_F(ResultStoreTest, AJobThatStopsStopsItsUploads) {
  server_.delay = 30s;
  const auto store = open();
  std::stop_source job;
  auto url = store->begin(files(1)[0], job.get_token());
  EXPECT_EQ(url.wait_for(50ms), std::future_status::timeout);
  job.request_stop();
  ASSERT_EQ(url.wait_for(5s), std::future_status::ready);
  EXPECT_EQ(url.get().error().code, ErrorCode::kCancelled);
}

TEST_F(ResultStoreTest, TheDeadlineCountsTheTimeInTheQueue) {
  server_.delay = 200ms;
  const auto store = open({.parallel = 1, .deadline = 100ms});
  auto first = store->begin(files(1)[0]);
  auto second = store->begin(files(2)[1]);
  static_cast<void>(first.get());
  const auto late = second.get();
  EXPECT_EQ(late.error().code, ErrorCode::kDeadlineExceeded);
  EXPECT_FALSE(server_.was_asked("PUT /pictures/job/1.png"));
}

TEST_F(ResultStoreTest, WhatIsNotUpWhenTheStoreGoesIsCancelled) {
  server_.delay = 30s;
  auto store = open({.parallel = 1});
  auto first = store->begin(files(1)[0]);
  auto second = store->begin(files(2)[1]);
  EXPECT_EQ(first.wait_for(50ms), std::future_status::timeout);
  store.reset();
  EXPECT_EQ(first.get().error().code, ErrorCode::kCancelled);
  EXPECT_EQ(second.get().error().code, ErrorCode::kCancelled);
}

TEST_F(ResultStoreTest, NamesThatCouldLeaveTheirFolderAreRefused) {
  const auto store = open();
  for (const char* key : {"", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", "a\\b", "a\nb"}) {
    EXPECT_EQ(store->begin({.key = key}).get().error().code, ErrorCode::kInvalidArgument) << key;
  }
  EXPECT_TRUE(server_.paths.empty());
}

TEST_F(ResultStoreTest, SupabaseSignsWhatItWasGiven) {
  platform::DeliveryConfig config;
  config.store = "supabase";
  config.supabase_url = "https://p.supabase.co";
  config.supabase_key.value = "key";
  config.bucket = "heads";
  config.prefix = "shots/";
  server_.answer = R"({"signedURL": "/object/sign/heads/shots/u/1.png?token=t"})";
  const auto store = ResultStore::open(config, server_, clock_).value();
  EXPECT_EQ(store->begin({.key = "u/1.png"}).get().value(),
            "https://p.supabase.co/storage/v1/object/sign/heads/shots/u/1.png?token=t");
  EXPECT_EQ(server_.paths,
            (std::vector<std::string>{"POST /storage/v1/object/heads/shots/u/1.png",
                                      "POST /storage/v1/object/sign/heads/shots/u/1.png"}));
}

}  // namespace
}  // namespace limner::runpod
