// ResultStore: puts pictures of jobs where their clients can fetch them: in an S3 bucket (RunPod's
// BUCKET_* variables) or in one of Supabase Storage.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <future>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "platform/clock.h"
#include "platform/config/service_config.h"
#include "platform/http/exchange.h"

namespace limner::runpod {

struct ResultFile {
  std::string key{};  // behind the bucket's prefix: "JOB/0.png", "USER/JOB.png"
  std::string content_type = "image/png";
  std::vector<std::uint8_t> bytes{};
};

struct ResultStoreOptions {
  std::size_t parallel = 4;                                        // uploads at a time
  std::chrono::milliseconds deadline{120'000};                     // of a file, from begin() on
  std::chrono::seconds url_lifetime = std::chrono::hours(24 * 7);  // the longest that S3 signs
};

// Any thread may call. Uploads run on threads of the store's own, over connections that are kept;
// each is tried again while its deadline allows, and none is begun while the server keeps failing
// (delivery/retries.h).
class ResultStore {
 public:
  // Supabase when delivery.store says so, else S3 when delivery.endpoint and its keys are set;
  // null when nothing is. Asks no server. Errors: kInvalidArgument naming what is missing or wrong.
  // `exchange` and `clock` must outlive the store.
  static Result<std::unique_ptr<ResultStore>> open(const platform::DeliveryConfig& config,
                                                   platform::http::Exchange& exchange,
                                                   const platform::Clock& clock,
                                                   ResultStoreOptions options = {});
  ~ResultStore();  // what is not uploaded yet ends as kCancelled

  // That the bucket is there and the key opens it; for before the first job.
  Result<void> check();

  // Returns at once. The future has a URL that opens the file until url_lifetime is over, or an
  // error: kInvalidArgument (a key that could leave its folder), kCancelled (`stop`), kUnavailable
  // and kDeadlineExceeded (retryable), kIo (no bucket, or one that refuses the key or the file).
  // The same key again replaces the file; nobody ever sees a part of one.
  std::future<Result<std::string>> begin(ResultFile file, std::stop_token stop = {});
  // All of them side by side; their URLs in order, or the first error that came, after which the
  // others are stopped. A file that was up by then stays.
  Result<std::vector<std::string>> put_all(std::vector<ResultFile> files,
                                           std::stop_token stop = {});

 private:
  class Bucket;
  class S3Bucket;
  class SupabaseBucket;
  struct Upload {
    ResultFile file{};
    std::stop_token stop{};
    platform::Millis end{};  // of its deadline, by clock_
    std::promise<Result<std::string>> url{};
  };

  ResultStore(std::unique_ptr<Bucket> bucket, const platform::Clock& clock,
              ResultStoreOptions options);
  void upload_all(std::stop_token stop);
  Result<std::string> put(const Upload& upload, std::stop_token stop);

  const ResultStoreOptions options_;
  const platform::Clock& clock_;
  const std::unique_ptr<Bucket> bucket_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Upload> waiting_;         // by mutex_
  std::vector<std::jthread> threads_;  // last: they use all of the above
};

}  // namespace limner::runpod
