// S3Client: an S3 bucket by its REST API (docs.aws.amazon.com/AmazonS3/latest/API), signed with
// Signature Version 4. Works with AWS, MinIO, R2, versitygw and their kin.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
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

// The region that the host names of AWS, Backblaze, DigitalOcean and Wasabi hold; "us-east-1" for
// any other host.
std::string s3_region(const std::string& host);

struct S3Object {
  std::string key;
  std::uint64_t bytes = 0;
  Time modified{};
  std::string sha256{};  // of its bytes, where S3Client::head() finds one beside it
};

// Beside each object that this room puts. Not every S3 keeps x-amz-checksum-sha256; all keep this.
inline constexpr std::string_view kSumHeader = "x-amz-meta-sha256";

struct S3Page {
  std::vector<S3Object> objects;
  std::string next;  // the key to list after; "" after the last page
};

struct S3Upload {
  std::string key, id;
  Time started{};
};

// One request of the API, for what has no call of its own in S3Client (s3_multipart.h).
struct S3Call {
  std::string method{};
  std::string key{};  // "": the bucket itself
  sigv4::Pairs query{};
  sigv4::Pairs headers{};  // besides host
  std::span<const std::uint8_t> body{};
  std::string payload_sha256 = std::string(sigv4::kEmptyPayload);  // of `body`
  std::uint64_t max_reply = std::uint64_t{16} << 20;               // bytes; of an XML as it stands
  CallLimits limits{};
};

// Safe to call from many threads; every call blocks. Calls that fail in a way that may pass (no
// connection, status_may_pass, an answer cut short, bytes changed on the way) are made again as
// Retries does. Errors: as ArtifactStore's calls.
class S3Client {
 public:
  // Errors: kInvalidArgument (an endpoint that is no URL, no key). `exchange` and `clock` must
  // outlive the client.
  static Result<std::unique_ptr<S3Client>> make(S3Options options,
                                                platform::http::Exchange& exchange,
                                                const platform::Clock& clock);

  // The server checks the bytes' SHA-256 before it keeps them, and keeps it beside them
  // (x-amz-meta-sha256). The time is the server's.
  Result<Time> put(const std::string& key, std::string_view content_type,
                   std::span<const std::uint8_t> bytes, const CallLimits& limits = {});
  // A whole object is held against the SHA-256 that lies beside it, where there is one.
  Result<std::vector<std::uint8_t>> get(const std::string& key, ByteRange range = {});
  Result<S3Object> head(const std::string& key);
  Result<void> remove(const std::string& key);  // well, too, when it is not there
  Result<S3Page> list(const std::string& prefix, const std::string& after, std::size_t limit);
  Result<std::vector<S3Upload>> unfinished_uploads(const std::string& prefix);
  Result<void> abort(const S3Upload& upload);
  // That the bucket is there and the server knows these credentials. A key that may only write is
  // well.
  Result<void> check_bucket();
  // Signed, and made again as all others are; the answer is one of 2xx.
  Result<platform::http::Reply> send(const S3Call& call);

  // URLs that need no key until `lifetime` (7 days at most) is over. `download_name` as in
  // SignRequest. The PUT takes any bytes.
  std::string presign_get(const std::string& key, std::chrono::seconds lifetime,
                          const std::string& download_name = "") const;
  std::string presign_put(const std::string& key, std::chrono::seconds lifetime) const;

 private:
  using Call = S3Call;
  S3Client(S3Options options, platform::http::Exchange& exchange, const platform::Clock& clock);
  platform::http::Url url_of(const Call& call) const;
  std::string presign(const Call& call, std::chrono::seconds lifetime) const;
  sigv4::Scope scope() const;
  sigv4::Request signing_request(const Call& call) const;
  // Throws Failure.
  platform::http::Reply perform(const Call& call);

  const S3Options options_;
  const platform::Clock& clock_;
  platform::http::Url base_;  // scheme, host, port
  std::string base_path_;     // "" or "/BUCKET"
  Retries retries_;
};

}  // namespace limner::delivery
