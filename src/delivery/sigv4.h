// AWS Signature Version 4 (docs.aws.amazon.com, "Create a signed AWS API request"), for requests
// with headers and for URLs that carry their own permission.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limner::delivery::sigv4 {

struct Credentials {
  std::string access_key_id{};
  std::string secret_access_key{};
  std::string session_token{};  // "": none
};

struct Scope {
  std::string region{};
  std::string service = "s3";
  std::chrono::sys_seconds time{};
};

using Pairs = std::vector<std::pair<std::string, std::string>>;

struct Request {
  std::string method = "GET";
  std::string path = "/";        // not encoded; encoded once when signed, as S3 wants it
  Pairs query{};                 // not encoded, any order
  Pairs headers{};               // all of them are signed; "host" must be there
  std::string payload_sha256{};  // 64 hexadecimal digits, or kUnsignedPayload
  bool normalize_path = false;   // of other services than S3: "//" and dot segments are resolved
  bool payload_header = true;    // sends x-amz-content-sha256, which S3 requires
};

inline constexpr std::string_view kUnsignedPayload = "UNSIGNED-PAYLOAD";
inline constexpr std::string_view kEmptyPayload =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

// The path and the query as they go over the wire and into the signature.
std::string encoded_path(std::string_view path);
std::string encoded_query(const Pairs& query);

// The header lines to send beside the request's own: x-amz-date, x-amz-content-sha256,
// x-amz-security-token where there is a token, authorization.
Pairs sign(const Request& request, const Credentials& credentials, const Scope& scope);

// The whole query of a URL that opens the request until `lifetime` after the scope's time.
std::string presign(const Request& request, const Credentials& credentials, const Scope& scope,
                    std::chrono::seconds lifetime);

}  // namespace limner::delivery::sigv4
