#include "delivery/s3_large_put.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "delivery/crypto.h"
#include "delivery/s3_multipart.h"

namespace limner::delivery {
namespace {

using std::chrono::steady_clock;

// One upload; throws Failure.
class LargePut {
 public:
  LargePut(S3Client& client, S3Upload upload, std::span<const std::uint8_t> bytes,
           const LargePutOptions& options)
      : multipart_(client), upload_(std::move(upload)), bytes_(bytes), options_(options) {}

  void send_parts() {
    parts_.resize((bytes_.size() + options_.part_bytes - 1) / options_.part_bytes);
    {
      std::vector<std::jthread> threads;
      const auto more =
          std::min<std::size_t>(static_cast<std::size_t>(options_.parallel), parts_.size());
      for (std::size_t i = 1; i < more; ++i) threads.emplace_back([this] { send_some(); });
      send_some();
    }
    if (first_error_) throw Failure(*first_error_);
  }

  Result<void> complete() { return multipart_.complete(upload_, parts_); }

 private:
  void send_some() {
    for (std::size_t i = next_++; i < parts_.size(); i = next_++) {
      const auto rest = bytes_.subspan(i * options_.part_bytes);
      auto sent = may_go_on();
      if (sent.ok()) {
        auto part =
            multipart_.put(upload_, static_cast<int>(i) + 1,
                           rest.first(std::min<std::size_t>(options_.part_bytes, rest.size())));
        if (part.ok()) {
          parts_[i] = std::move(*part);
          continue;
        }
        sent = part.error();
      }
      next_ = parts_.size();  // the others stop, too
      const std::scoped_lock lock(mutex_);
      if (!first_error_) first_error_ = sent.error();
    }
  }

  Result<void> may_go_on() const {
    if (options_.limits.stop.stop_requested()) {
      return Error{ErrorCode::kCancelled,
                   fmt::format("[s3] the upload of {} was stopped", upload_.key)};
    }
    if (steady_clock::now() - began_ < options_.limits.within) return {};
    return Error{ErrorCode::kDeadlineExceeded,
                 fmt::format("[s3] {} was not sent within {} ms", upload_.key,
                             options_.limits.within.count()),
                 true};
  }

  S3Multipart multipart_;
  const S3Upload upload_;
  const std::span<const std::uint8_t> bytes_;
  const LargePutOptions& options_;
  const steady_clock::time_point began_ = steady_clock::now();
  std::vector<S3Part> parts_;  // each written by the thread that sent it
  std::atomic<std::size_t> next_ = 0;
  std::mutex mutex_;
  std::optional<Error> first_error_;  // by mutex_
};

}  // namespace

Result<S3Object> put_in_parts(S3Client& client, const std::string& key,
                              std::string_view content_type, std::span<const std::uint8_t> bytes,
                              const LargePutOptions& options) {
  if (bytes.empty() || (bytes.size() - 1) / options.part_bytes >= kMostParts) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("[s3] {} bytes do not go into 1 to {} parts of {}", bytes.size(),
                             kMostParts, options.part_bytes)};
  }
  const std::string sum = sha256_hex(bytes);
  const auto id = S3Multipart(client).begin(key, content_type, sum);
  if (!id) return id.error();
  const S3Upload upload{key, *id, {}};
  try {
    LargePut put(client, upload, bytes, options);
    put.send_parts();
    const auto completed = put.complete();
    // An unknown upload may be one whose completion was answered, and the answer lost.
    if (!completed && completed.error().code != ErrorCode::kNotFound)
      throw Failure(completed.error());
    auto object = client.head(key).value_or_throw();
    if (!completed && object.sha256 != sum) throw Failure(completed.error());
    return object;
  } catch (const Failure& failure) {
    static_cast<void>(client.abort(upload));
    return failure.error();
  }
}

}  // namespace limner::delivery
