// An upload in parts, one call each: for who writes down what has been sent and goes on with it
// after a restart.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "delivery/s3_client.h"

namespace limner::delivery {

// S3's own rules (docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html): parts but the last
// have 5 MiB at least, and there are 10,000 of them at most.
inline constexpr std::uint64_t kSmallestPart = std::uint64_t{5} << 20;
inline constexpr std::uint64_t kMostParts = 10'000;

struct S3Part {
  int number = 0;  // from 1
  std::uint64_t bytes = 0;
  std::string tag{};  // what the server calls it
};

// Safe to call from many threads. Errors as S3Client's; kNotFound from parts(), put() and
// complete() where the server knows no such upload: it is complete, or was taken back.
class S3Multipart {
 public:
  // `client` must outlive this.
  explicit S3Multipart(S3Client& client) : client_(client) {}

  // The upload's id. `sha256` is that of the whole object, kept beside it as S3Client::put does.
  Result<std::string> begin(const std::string& key, std::string_view content_type,
                            const std::string& sha256);
  // The server checks the bytes' SHA-256 before it keeps them.
  Result<S3Part> put(const S3Upload& upload, int number, std::span<const std::uint8_t> bytes);
  // What the server has of it, by number.
  Result<std::vector<S3Part>> parts(const S3Upload& upload);
  // `parts` by number, without gaps.
  Result<void> complete(const S3Upload& upload, const std::vector<S3Part>& parts);

 private:
  S3Client& client_;
};

}  // namespace limner::delivery
