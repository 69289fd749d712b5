#include "runpod/result_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <optional>

#include "delivery/s3_client.h"
#include "delivery/s3_large_put.h"
#include "delivery/store_settings.h"
#include "delivery/supabase_client.h"

namespace limner::runpod {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kLongestKey = 512;

Result<void> check_key(const std::string& key) {
  const auto refused = [&] {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("[results] want a name such as JOB/0.png for a stored picture, got "
                             "'{}'",
                             key.substr(0, 100))};
  };
  if (key.empty() || key.size() > kLongestKey) return refused();
  for (std::size_t begin = 0; begin <= key.size();) {
    const std::size_t end = std::min(key.find('/', begin), key.size());
    const std::string_view part = std::string_view(key).substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") return refused();
    for (const char c : part) {
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f || c == '\\') return refused();
    }
    begin = end + 1;
  }
  return {};
}

}  // namespace

// Where files go. Any thread may call.
class ResultStore::Bucket {
 public:
  virtual ~Bucket() = default;
  virtual Result<void> check() = 0;
  // The URL.
  virtual Result<std::string> put(const ResultFile& file, std::chrono::seconds url_lifetime,
                                  const delivery::CallLimits& limits) = 0;
};

class ResultStore::S3Bucket final : public Bucket {
 public:
  S3Bucket(std::unique_ptr<delivery::S3Client> client, std::string prefix)
      : client_(std::move(client)), prefix_(std::move(prefix)) {}

  Result<void> check() override { return client_->check_bucket(); }

  Result<std::string> put(const ResultFile& file, std::chrono::seconds url_lifetime,
                          const delivery::CallLimits& limits) override {
    const std::string key = prefix_ + file.key;
    if (file.bytes.size() > delivery::kLargeObject) {
      const auto stored =
          delivery::put_in_parts(*client_, key, file.content_type, file.bytes, {.limits = limits});
      if (!stored.ok()) return stored.error();
    } else {
      const auto stored = client_->put(key, file.content_type, file.bytes, limits);
      if (!stored.ok()) return stored.error();
    }
    return client_->presign_get(key, url_lifetime);
  }

 private:
  const std::unique_ptr<delivery::S3Client> client_;
  const std::string prefix_;
};

class ResultStore::SupabaseBucket final : public Bucket {
 public:
  SupabaseBucket(std::unique_ptr<delivery::SupabaseClient> client, std::string prefix)
      : client_(std::move(client)), prefix_(std::move(prefix)) {}

  Result<void> check() override { return client_->check_bucket(); }

  Result<std::string> put(const ResultFile& file, std::chrono::seconds url_lifetime,
                          const delivery::CallLimits& limits) override {
    const std::string key = prefix_ + file.key;
    const auto stored = client_->put(key, file.content_type, file.bytes, limits);
    if (!stored.ok()) return stored.error();
    return client_->sign(key, url_lifetime, "", limits);
  }

 private:
  const std::unique_ptr<delivery::SupabaseClient> client_;
  const std::string prefix_;
};

Result<std::unique_ptr<ResultStore>> ResultStore::open(const platform::DeliveryConfig& config,
                                                       platform::http::Exchange& exchange,
                                                       const platform::Clock& clock,
                                                       ResultStoreOptions options) {
  std::unique_ptr<Bucket> bucket;
  if (config.store == "supabase") {
    auto client =
        delivery::SupabaseClient::make(delivery::supabase_options(config), exchange, clock);
    if (!client.ok()) return client.error();
    bucket = std::make_unique<SupabaseBucket>(std::move(*client), config.prefix);
  } else if (config.store == "s3" || delivery::names_s3(config)) {
    const auto where = delivery::s3_options(config);
    if (!where.ok()) return where.error();
    auto client = delivery::S3Client::make(*where, exchange, clock);
    if (!client.ok()) return client.error();
    bucket = std::make_unique<S3Bucket>(std::move(*client), config.prefix);
  } else {
    return std::unique_ptr<ResultStore>();
  }
  return std::unique_ptr<ResultStore>(new ResultStore(std::move(bucket), clock, options));
}

ResultStore::ResultStore(std::unique_ptr<Bucket> bucket, const platform::Clock& clock,
                         ResultStoreOptions options)
    : options_(options), clock_(clock), bucket_(std::move(bucket)) {
  for (std::size_t i = 0; i < options_.parallel; ++i) {
    threads_.emplace_back([this](std::stop_token stop) { upload_all(std::move(stop)); });
  }
}

ResultStore::~ResultStore() {
  for (std::jthread& thread : threads_) thread.request_stop();
  threads_.clear();
  for (Upload& upload : waiting_) {
    upload.url.set_value(Error{ErrorCode::kCancelled, "[results] the worker was stopped"});
  }
}

Result<void> ResultStore::check() {
  return bucket_->check();
}

std::future<Result<std::string>> ResultStore::begin(ResultFile file, std::stop_token stop) {
  Upload upload{std::move(file), std::move(stop), clock_.now() + options_.deadline, {}};
  auto url = upload.url.get_future();
  const std::lock_guard lock(mutex_);
  waiting_.push_back(std::move(upload));
  changed_.notify_one();
  return url;
}

void ResultStore::upload_all(std::stop_token stop) {
  while (true) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait(lock, stop, [&] { return !waiting_.empty(); })) return;
    Upload upload = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    upload.url.set_value(put(upload, stop));
    if (stop.stop_requested()) return;
  }
}

Result<std::string> ResultStore::put(const Upload& upload, std::stop_token stop) {
  std::stop_source either;
  const std::stop_callback of_job(upload.stop, [&] { either.request_stop(); });
  const std::stop_callback of_store(stop, [&] { either.request_stop(); });
  try {
    if (const auto checked = check_key(upload.file.key); !checked.ok()) return checked.error();
    const milliseconds left = upload.end - clock_.now();
    if (left.count() <= 0) {
      return Error{ErrorCode::kDeadlineExceeded,
                   fmt::format("[results] {} was not begun within {} ms", upload.file.key,
                               options_.deadline.count()),
                   true};
    }
    auto url = bucket_->put(upload.file, options_.url_lifetime, {left, either.get_token()});
    if (url.ok()) return url;
    Error error = delivery::for_callers(url.error());
    if (error.code == ErrorCode::kNotFound) error.code = ErrorCode::kIo;
    return error;
  } catch (const std::exception& error) {
    return Error{ErrorCode::kInternal, fmt::format("[results] {}", error.what())};
  }
}

Result<std::vector<std::string>> ResultStore::put_all(std::vector<ResultFile> files,
                                                      std::stop_token stop) {
  std::stop_source either;
  const std::stop_callback of_caller(stop, [&] { either.request_stop(); });
  std::vector<std::future<Result<std::string>>> uploads;
  for (ResultFile& file : files) uploads.push_back(begin(std::move(file), either.get_token()));
  std::vector<std::string> urls;
  std::optional<Error> first_error;
  for (auto& upload : uploads) {
    auto url = upload.get();
    if (url.ok()) {
      urls.push_back(std::move(*url));
    } else if (!first_error || first_error->code == ErrorCode::kCancelled) {
      first_error = url.error();
      either.request_stop();
    }
  }
  if (first_error) return *first_error;
  return urls;
}

}  // namespace limner::runpod
