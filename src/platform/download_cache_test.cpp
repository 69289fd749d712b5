#include "platform/download_cache.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "base/sha256.h"

namespace limner::platform {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

std::string content(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// A cache in a folder of its own. Its downloads write the last part of the URL's path as many times
// as the part before says: https://host/3/ab is "ababab"; each leaves a line in `calls`.
class Cache : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "limner_cache_XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }
  void TearDown() override { fs::remove_all(folder_); }

  DownloadCache cache(std::uint64_t max_bytes = 1000) {
    return DownloadCache({.folder = folder_ / "cache",
                          .max_bytes = max_bytes,
                          .download = [this](const http::DownloadRequest& r) { return bring(r); },
                          .warn = [this](std::string_view text) { warnings_ += text; }});
  }

  Result<http::Downloaded> bring(const http::DownloadRequest& request) {
    std::ofstream(folder_ / "calls", std::ios::app) << request.url << "\n";
    std::this_thread::sleep_for(delay_);
    if (request.url.ends_with("fails")) return Error{ErrorCode::kUnavailable, "no", true};
    const auto word = request.url.rfind('/');
    const auto times = request.url.rfind('/', word - 1);
    std::string text;
    for (int i = std::stoi(request.url.substr(times + 1)); i > 0; --i) {
      text += request.url.substr(word + 1);
    }
    std::ofstream(request.file.string() + ".part") << text;
    fs::rename(request.file.string() + ".part", request.file);
    return http::Downloaded{request.file, text.size(),
                            sha256_hex(std::as_bytes(std::span<const char>(text))), ""};
  }

  int calls() const {
    const std::string lines = content(folder_ / "calls");
    return static_cast<int>(std::count(lines.begin(), lines.end(), '\n'));
  }
  static http::DownloadRequest of(const std::string& path) {
    http::DownloadRequest request;
    request.url = "https://host/" + path;
    return request;
  }

  fs::path folder_;
  std::chrono::milliseconds delay_ = 0ms;
  std::string warnings_;
};

TEST_F(Cache, AFileIsFetchedOnce) {
  const auto first = cache().get(of("3/ab")).value();
  EXPECT_FALSE(first.hit);
  EXPECT_EQ(content(first.file), "ababab");
  EXPECT_EQ(first.bytes, 6u);
  const auto second = cache().get(of("3/ab")).value();
  EXPECT_TRUE(second.hit) << "also after a restart";
  EXPECT_EQ(second.file, first.file);
  EXPECT_EQ(second.sha256, first.sha256);
  EXPECT_EQ(first.file.filename().string(),
            // printf 'https://host/3/ab' | sha256sum
            "e2fbf5f9ef7660ecf8e9ecb068f1f21b827043e93b97f209634bfa758710d2fb.data");
  EXPECT_EQ(calls(), 1);
  EXPECT_FALSE(cache().get(of("3/ab?other")).value().hit);
}

TEST_F(Cache, TheLeastRecentlyUsedGoesFirst) {
  auto small = cache(100);
  const auto a = small.get(of("40/a")).value().file;
  const auto b = small.get(of("40/b")).value().file;
  EXPECT_TRUE(small.get(of("40/a")).value().hit);
  const auto c = small.get(of("40/c")).value().file;
  EXPECT_TRUE(fs::exists(a));
  EXPECT_FALSE(fs::exists(b)) << "a was used after it";
  EXPECT_TRUE(fs::exists(c));
  const auto d = small.get(of("100/d")).value().file;
  EXPECT_FALSE(fs::exists(a) || fs::exists(c));
  EXPECT_TRUE(fs::exists(d)) << "the newest one stays";
}

TEST_F(Cache, WhatFailsIsNotKept) {
  const auto failed = cache().get(of("1/fails"));
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().message, "no");
  EXPECT_FALSE(cache().get(of("1/fails")).ok());
  EXPECT_EQ(calls(), 2);
  const auto wrong = cache().get(http::DownloadRequest{.url = "ftp://host/x", .file = {}});
  ASSERT_FALSE(wrong.ok());
  EXPECT_EQ(wrong.error().code, ErrorCode::kInvalidArgument);
}

TEST_F(Cache, AnotherHashIsAReasonToFetchAgain) {
  auto request = of("2/x");
  request.sha256 = cache().get(request).value().sha256;
  EXPECT_TRUE(cache().get(request).value().hit);
  for (char& c : request.sha256) c = static_cast<char>(std::toupper(c));
  EXPECT_TRUE(cache().get(request).value().hit);
  request.sha256 = std::string(64, '0');
  EXPECT_FALSE(cache().get(request).value().hit);
}

TEST_F(Cache, ThreadsThatWantOneFileShareItsDownload) {
  delay_ = 100ms;
  auto shared = cache();
  std::atomic<int> hits = 0, good = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      const auto file = shared.get(of("3/ab"));
      if (!file.ok()) return;
      good += content(file->file) == "ababab";
      hits += file->hit;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 8);
  EXPECT_EQ(hits, 7);
  EXPECT_EQ(calls(), 1);
}

TEST_F(Cache, ProcessesThatWantOneFileShareItsDownload) {
  delay_ = 100ms;
  std::vector<pid_t> children;
  for (int i = 0; i < 3; ++i) {
    const pid_t child = fork();
    if (child == 0) _exit(cache().get(of("3/ab")).ok() ? 0 : 1);
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 1;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(calls(), 1);
}

TEST_F(Cache, DifferentFilesComeSideBySide) {
  delay_ = 200ms;
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back(
        [&, i] { EXPECT_TRUE(cache().get(of("1/file" + std::to_string(i))).ok()); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 900ms);
}

TEST_F(Cache, WhoWaitsCanStop) {
  delay_ = 400ms;
  std::thread first([&] { EXPECT_TRUE(cache().get(of("1/a")).ok()); });
  while (!fs::exists(folder_ / "calls")) std::this_thread::sleep_for(5ms);
  std::stop_source stop;
  auto request = of("1/a");
  request.stop = stop.get_token();
  std::thread stopper([&] {
    std::this_thread::sleep_for(50ms);
    stop.request_stop();
  });
  const auto stopped = cache().get(request);
  ASSERT_FALSE(stopped.ok());
  EXPECT_EQ(stopped.error().code, ErrorCode::kCancelled);
  stopper.join();
  first.join();
}

TEST_F(Cache, ABrokenIndexIsMadeAnewFromTheFiles) {
  const auto a = cache().get(of("3/ab")).value();
  const std::string odd_entry = "{\"version\": 1, \"files\": {\"" + a.file.filename().string() +
                                "\": {\"bytes\": \"many\"}}}";
  for (const std::string& text :
       std::vector<std::string>{"{", "", "[]", "{\"version\": 1}", odd_entry}) {
    std::ofstream(folder_ / "cache" / "index.json") << text;
    warnings_.clear();
    const auto again = cache().get(of("3/ab")).value();
    EXPECT_TRUE(again.hit) << text;
    EXPECT_EQ(again.sha256, a.sha256) << text;
    EXPECT_NE(warnings_.find("made anew"), std::string::npos) << text;
  }
  EXPECT_EQ(calls(), 1);
}

TEST_F(Cache, AFileThatWasRemovedOrCutIsFetchedAgain) {
  const auto file = cache().get(of("3/ab")).value().file;
  fs::remove(file);
  EXPECT_FALSE(cache().get(of("3/ab")).value().hit);
  EXPECT_TRUE(fs::exists(file));
  EXPECT_EQ(calls(), 2);
}

TEST_F(Cache, StrangersInTheFolderAreLeftAlone) {
  cache(100).get(of("90/a")).value();
  std::ofstream(folder_ / "cache" / "notes.txt") << std::string(1000, 'x');
  std::ofstream(folder_ / "cache" / "..safetensors") << "x";
  cache(100).get(of("90/b")).value();
  EXPECT_TRUE(fs::exists(folder_ / "cache" / "notes.txt"));
  EXPECT_TRUE(fs::exists(folder_ / "cache" / "..safetensors"));
}

TEST_F(Cache, NothingLargerThanTheCacheIsAskedFor) {
  std::uint64_t cap = 0;
  DownloadCache tiny({.folder = folder_ / "cache",
                      .max_bytes = 50,
                      .download = [&](const http::DownloadRequest& r) {
                        cap = r.max_bytes;
                        return bring(r);
                      }});
  EXPECT_TRUE(tiny.get(of("3/ab")).ok());
  EXPECT_EQ(cap, 50u);
}

}  // namespace
}  // namespace limner::platform
