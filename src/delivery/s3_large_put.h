// A large object in parts, several at a time: what fails on its way is sent again alone.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "delivery/s3_client.h"

namespace limner::delivery {

struct LargePutOptions {
  std::uint64_t part_bytes = std::uint64_t{16} << 20;  // kSmallestPart at least
  int parallel = 4;                                    // parts at a time, on threads of the call
  CallLimits limits{};
};

// Above this, parts are worth their two calls more.
inline constexpr std::uint64_t kLargeObject = std::uint64_t{64} << 20;

// Blocks. The object is there as a whole when this returns well, and not at all otherwise: a failed
// upload is taken back, by S3Store::remove_leftovers() where that failed, too. The SHA-256 of all
// bytes is kept beside it, as S3Client::put does. Errors as S3Client's; kInvalidArgument for no
// bytes or more than 10,000 parts.
Result<S3Object> put_in_parts(S3Client& client, const std::string& key,
                              std::string_view content_type, std::span<const std::uint8_t> bytes,
                              const LargePutOptions& options = {});

}  // namespace limner::delivery
