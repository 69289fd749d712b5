// S3Client: an S3 bucket by its REST API (docs.aws.amazon.com/AmazonS3/latest/API), signed with
// Signature Version 4. Works with AWS, MinIO, R2, versitygw and their kin.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "delivery/retries.h"
#include "delivery/sigv4.h"
#include "delivery/store.h"
#include "platform/clock.h"
#include "platform/http/exchange.h"

namespace limner::delivery {

enum class Addressing {
  kHost,  // https://BUCKET.ENDPOINT/KEY
  kPath,  // https://ENDPOINT/BUCKET/KEY
};

struct S3Options {
  // "https://s3.eu-central-1.amazonaws.com". With an empty `bucket` the endpoint names the bucket
  // itself, in its host or as its path: "https://ID.r2.cloudflarestorage.com/pictures".
  std::string endpoint{};
  std::string bucket{};
  std::string region = "us-east-1";
  Addressing addressing = Addressing::kPath;
  sigv4::Credentials credentials{};
  RetryOptions retries{};
};

// The region that AWS's and DigitalOcean's host names hold; "us-east-1" for any other host.
std::string s3_region(const std::string& host);

// The convention of RunPod's workers: BUCKET_ENDPOINT_URL (the bucket in it), BUCKET_ACCESS_KEY_ID
// and BUCKET_SECRET_ACCESS_KEY; the region is read off AWS's and DigitalOcean's host names. Nothing
// when none of the three is set. `get` is getenv with "" for what is not set. Errors:
// kInvalidArgument naming the one that is missing or is no URL.
Result<std::optional<S3Options>> s3_from_bucket_environment(
    const std::function<std::string(const std::string&)>& get);

struct S3Object {
  std::string key;
  std::uint64_t bytes = 0;
  Time modified{};
};

struct S3Page {
  std::vector<S3Object> objects;
  std::string next;  // the key to list after; "" after the last page
};

struct S3Upload {
  std::string key, id;
  Time started{};
};

// Reads `length` bytes at `offset` of what is uploaded. Called from several threads at once.
using ReadPart =
    std::function<Result<std::vector<std::uint8_t>>(std::uint64_t offset, std::uint64_t length)>;

struct MultipartOptions {
  std::uint64_t part_bytes = std::uint64_t{16} << 20;  // 5 MiB at least, by S3's rule
  int parallel = 4;                                    // uploads at once
};

// Safe to call from many threads; every call blocks. Calls that fail in a way that may pass (no
// connection, 408, 429, 500, 502, 503, 504, an answer cut short) are made again after a wait that
// doubles and is shortened by up to half at random. Errors: as ArtifactStore's calls.
class S3Client {
 public:
  // Errors: kInvalidArgument (an endpoint that is no URL, no key). `exchange` and `clock` must
  // outlive the client.
  static Result<std::unique_ptr<S3Client>> make(S3Options options,
                                                platform::http::Exchange& exchange,
                                                const platform::Clock& clock);

  // The server checks the bytes' SHA-256 before it keeps them. The time is the server's.
  Result<Time> put(const std::string& key, std::string_view content_type,
                   std::span<const std::uint8_t> bytes);
  // In parts, several at once; a failed upload is taken back. `total` > 0.
  Result<void> put_in_parts(const std::string& key, std::string_view content_type,
                            std::uint64_t total, const ReadPart& read,
                            const MultipartOptions& options = {});
  Result<std::vector<std::uint8_t>> get(const std::string& key, ByteRange range = {});
  Result<S3Object> head(const std::string& key);
  Result<void> remove(const std::string& key);  // well, too, when it is not there
  Result<S3Page> list(const std::string& prefix, const std::string& after, std::size_t limit);
  Result<std::vector<S3Upload>> unfinished_uploads(const std::string& prefix);
  Result<void> abort(const S3Upload& upload);
  // That the bucket is there and these credentials open it.
  Result<void> check_bucket();

  // URLs that need no key until `lifetime` (7 days at most) is over. `download_name` as in
  // SignRequest. The PUT takes any bytes.
  std::string presign_get(const std::string& key, std::chrono::seconds lifetime,
                          const std::string& download_name = "") const;
  std::string presign_put(const std::string& key, std::chrono::seconds lifetime) const;

 private:
  struct Call;
  S3Client(S3Options options, platform::http::Exchange& exchange, const platform::Clock& clock);
  platform::http::Url url_of(const Call& call) const;
  std::string presign(const Call& call, std::chrono::seconds lifetime) const;
  sigv4::Scope scope() const;
  sigv4::Request signing_request(const Call& call) const;
  // Throws Failure.
  platform::http::Reply perform(const Call& call);
  std::string upload_parts(const std::string& key, const std::string& id, std::uint64_t total,
                           const ReadPart& read, const MultipartOptions& options);

  const S3Options options_;
  const platform::Clock& clock_;
  platform::http::Url base_;  // scheme, host, port
  std::string base_path_;     // "" or "/BUCKET"
  Retries retries_;
};

}  // namespace limner::delivery
