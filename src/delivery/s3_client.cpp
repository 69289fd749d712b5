#include "delivery/s3_client.h"

#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <initializer_list>
#include <optional>

#include "base/sha256.h"
#include "delivery/crypto.h"
#include "delivery/percent.h"
#include "delivery/xml.h"

namespace limner::delivery {
namespace {

using platform::http::Reply;
using std::chrono::milliseconds;

constexpr std::uint64_t kLargestObject = std::uint64_t{5} << 30;  // of one GET, as of one PUT

std::optional<Time> parse_time(const std::string& text, const char* form) {
  std::tm parts{};
  const char* end = strptime(text.c_str(), form, &parts);
  if (!end) return std::nullopt;
  return std::chrono::system_clock::from_time_t(timegm(&parts));
}

// RFC 9110's date, as in Last-Modified.
std::optional<Time> http_date(std::string_view text) {
  return parse_time(std::string(text), "%a, %d %b %Y %H:%M:%S");
}

// "2026-11-21T12:00:00.000Z"; the fraction is left out.
Time xml_time(std::string_view xml, std::string_view name) {
  return parse_time(xml_text(xml, name), "%Y-%m-%dT%H:%M:%S").value_or(Time{});
}

bool is_one_of(std::string_view code, std::initializer_list<std::string_view> codes) {
  return std::find(codes.begin(), codes.end(), code) != codes.end();
}

// An upload that was damaged or cut on its way; these come with a 400.
bool damaged_on_the_way(std::string_view code) {
  return is_one_of(code,
                   {"XAmzContentSHA256Mismatch", "BadDigest", "IncompleteBody", "RequestTimeout"});
}

// S3 answers 403 both to who is not known and to who may not.
ErrorCode meaning(int status, std::string_view code) {
  const bool unknown = is_one_of(
      code, {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"});
  return unknown ? ErrorCode::kUnauthenticated : code_of_status(status);
}

Error error_of(const std::string& where, const Reply& reply) {
  const std::string code = xml_text(reply.text(), "Code");
  const std::string message = xml_text(reply.text(), "Message");
  return {meaning(reply.status, code),
          fmt::format("[s3] {} answered {}{}{}{}{}", where, reply.status, code.empty() ? "" : " ",
                      code, message.empty() ? "" : ": ", message.substr(0, 200)),
          status_may_pass(reply.status) || damaged_on_the_way(code)};
}

// Throws Failure for bytes that are not those that were put.
void check_sum(const std::string& where, const Reply& reply) {
  const std::string_view stored = reply.header(kSumHeader);
  if (reply.status != 200 || stored.empty() || stored == sha256_hex(reply.body)) return;
  throw Failure(Error{ErrorCode::kIo,
                      fmt::format("[s3] {}: want bytes with SHA-256 {}, got others", where, stored),
                      true});
}

}  // namespace

Result<std::unique_ptr<S3Client>> S3Client::make(S3Options options,
                                                 platform::http::Exchange& exchange,
                                                 const platform::Clock& clock) {
  auto url = platform::http::parse_url(options.endpoint);
  if (!url) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("[s3] want an endpoint such as https://s3.eu-central-1.amazonaws.com: "
                             "{}",
                             url.error().message)};
  }
  if (options.credentials.access_key_id.empty() || options.credentials.secret_access_key.empty()) {
    return Error{ErrorCode::kInvalidArgument, "[s3] want an access key and its secret, got none"};
  }
  std::string path = url->target.substr(0, url->target.find('?'));
  while (path.ends_with('/')) path.pop_back();
  std::unique_ptr<S3Client> client(new S3Client(std::move(options), exchange, clock));
  client->base_ = std::move(*url);
  client->base_path_ = percent_decode(path).value_or(path);
  const std::string& bucket = client->options_.bucket;
  if (!bucket.empty() && client->options_.addressing == Addressing::kHost) {
    client->base_.host = bucket + '.' + client->base_.host;
  } else if (!bucket.empty()) {
    client->base_path_ += '/' + bucket;
  }
  return client;
}

S3Client::S3Client(S3Options options, platform::http::Exchange& exchange,
                   const platform::Clock& clock)
    : options_(std::move(options)),
      clock_(clock),
      retries_("s3", options_.retries, exchange, clock) {}

sigv4::Scope S3Client::scope() const {
  const std::chrono::sys_time<milliseconds> now{clock_.wall()};
  return {options_.region, "s3", std::chrono::floor<std::chrono::seconds>(now)};
}

sigv4::Request S3Client::signing_request(const Call& call) const {
  sigv4::Request request{.method = call.method,
                         .path = base_path_ + '/' + call.key,
                         .query = call.query,
                         .headers = call.headers,
                         .payload_sha256 = call.payload_sha256};
  request.headers.emplace_back("host", base_.authority());
  return request;
}

platform::http::Url S3Client::url_of(const Call& call) const {
  platform::http::Url url = base_;
  url.target = sigv4::encoded_path(base_path_ + '/' + call.key);
  if (!call.query.empty()) url.target += '?' + sigv4::encoded_query(call.query);
  return url;
}

Reply S3Client::perform(const Call& call) {
  const platform::http::Url url = url_of(call);
  const auto request = [&] {
    platform::http::Request next{
        .method = call.method, .url = url, .body = call.body, .max_reply = call.max_reply};
    sigv4::Pairs headers = sigv4::sign(signing_request(call), options_.credentials, scope());
    headers.insert(headers.end(), call.headers.begin(), call.headers.end());
    for (const auto& [name, value] : headers) {
      next.headers.push_back(fmt::format("{}: {}", name, value));
    }
    return next;
  };
  const auto check = [&](const Reply& reply) {
    const std::string where = fmt::format("{} {}", call.method, url.shown());
    // Completing an upload may fail behind a 200.
    const bool hidden = call.method == "POST" && !xml_elements(reply.text(), "Error").empty();
    if (reply.status < 200 || reply.status >= 300 || hidden) {
      Error error = error_of(where, reply);
      error.retryable = error.retryable || hidden;
      throw Failure(std::move(error));
    }
    if (reply.cut) {
      throw Failure(ErrorCode::kIo, fmt::format("[s3] {}: the answer has more than {} bytes", where,
                                                call.max_reply));
    }
    if (call.method == "GET") check_sum(where, reply);
  };
  return retries_.call(request, check, call.limits);
}

Result<Time> S3Client::put(const std::string& key, std::string_view content_type,
                           std::span<const std::uint8_t> bytes, const CallLimits& limits) {
  const std::string sum = sha256_hex(bytes);
  try {
    const Reply reply = perform(
        {.method = "PUT",
         .key = key,
         .headers = {{"content-type", std::string(content_type)}, {std::string(kSumHeader), sum}},
         .body = bytes,
         .payload_sha256 = sum,
         .limits = limits});
    return http_date(reply.header("date")).value_or(Time(clock_.wall()));
  } catch (const Failure& failure) {
    return failure.error();
  }
}

Result<std::vector<std::uint8_t>> S3Client::get(const std::string& key, ByteRange range) {
  try {
    Call call{.method = "GET", .key = key, .max_reply = kLargestObject};
    if (!range.whole()) {
      const std::uint64_t last =
          range.length > UINT64_MAX - range.first ? UINT64_MAX : range.first + range.length - 1;
      call.headers.emplace_back("range", last == UINT64_MAX
                                             ? fmt::format("bytes={}-", range.first)
                                             : fmt::format("bytes={}-{}", range.first, last));
    }
    Reply reply = perform(call);
    if (!range.whole() && reply.status != 206) {
      throw Failure(ErrorCode::kIo, fmt::format("[s3] {} gives no ranges: want 206 for {}, got {}",
                                                base_.authority(), key, reply.status));
    }
    return std::move(reply.body);
  } catch (const Failure& failure) {
    return failure.error();
  }
}

Result<S3Object> S3Client::head(const std::string& key) {
  try {
    const Reply reply = perform({.method = "HEAD", .key = key});
    const std::string length(reply.header("content-length"));
    const auto modified = http_date(reply.header("last-modified"));
    if (!modified || length.empty() ||
        length.find_first_not_of("0123456789") != std::string::npos || length.size() > 18) {
      throw Failure(ErrorCode::kIo, fmt::format("[s3] {} does not say how long or old {} is",
                                                base_.authority(), key));
    }
    return S3Object{key, std::stoull(length), *modified, std::string(reply.header(kSumHeader))};
  } catch (const Failure& failure) {
    return failure.error();
  }
}

Result<void> S3Client::remove(const std::string& key) {
  try {
    perform({.method = "DELETE", .key = key});
    return {};
  } catch (const Failure& failure) {
    if (failure.error().code == ErrorCode::kNotFound) return {};
    return failure.error();
  }
}

Result<S3Page> S3Client::list(const std::string& prefix, const std::string& after,
                              std::size_t limit) {
  try {
    Call call{.method = "GET",
              .query = {{"list-type", "2"},
                        {"prefix", prefix},
                        {"max-keys", std::to_string(std::clamp<std::size_t>(limit, 1, 1000))}}};
    if (!after.empty()) call.query.emplace_back("start-after", after);
    const Reply reply = perform(call);
    S3Page page;
    for (const std::string_view object : xml_elements(reply.text(), "Contents")) {
      const std::string size = xml_text(object, "Size");
      page.objects.push_back({xml_text(object, "Key"), size.empty() ? 0 : std::stoull(size),
                              xml_time(object, "LastModified")});
    }
    if (xml_text(reply.text(), "IsTruncated") == "true" && !page.objects.empty()) {
      page.next = page.objects.back().key;
    }
    return page;
  } catch (const Failure& failure) {
    return failure.error();
  } catch (const std::logic_error&) {
    return Error{ErrorCode::kIo,
                 fmt::format("[s3] {} lists an object of no size", base_.authority())};
  }
}

Result<void> S3Client::check_bucket() {
  try {
    // An answer to HEAD would not say why not.
    perform({.method = "GET", .query = {{"list-type", "2"}, {"max-keys", "1"}}});
    return {};
  } catch (const Failure& failure) {
    if (failure.error().code == ErrorCode::kPermissionDenied) return {};
    return failure.error();
  }
}

Result<Reply> S3Client::send(const S3Call& call) {
  try {
    return perform(call);
  } catch (const Failure& failure) {
    return failure.error();
  }
}

std::string S3Client::presign(const Call& call, std::chrono::seconds lifetime) const {
  platform::http::Url url = base_;
  url.target = sigv4::encoded_path(base_path_ + '/' + call.key) + '?' +
               sigv4::presign(signing_request(call), options_.credentials, scope(), lifetime);
  return url.text();
}

std::string S3Client::presign_get(const std::string& key, std::chrono::seconds lifetime,
                                  const std::string& download_name) const {
  Call call{.method = "GET", .key = key, .payload_sha256 = std::string(sigv4::kUnsignedPayload)};
  if (!download_name.empty()) {
    call.query.emplace_back("response-content-disposition", attachment(download_name));
  }
  return presign(call, lifetime);
}

std::string S3Client::presign_put(const std::string& key, std::chrono::seconds lifetime) const {
  return presign(
      {.method = "PUT", .key = key, .payload_sha256 = std::string(sigv4::kUnsignedPayload)},
      lifetime);
}

Result<std::vector<S3Upload>> S3Client::unfinished_uploads(const std::string& prefix) {
  try {
    const Reply reply = perform({.method = "GET", .query = {{"uploads", ""}, {"prefix", prefix}}});
    std::vector<S3Upload> uploads;
    for (const std::string_view upload : xml_elements(reply.text(), "Upload")) {
      uploads.push_back(
          {xml_text(upload, "Key"), xml_text(upload, "UploadId"), xml_time(upload, "Initiated")});
    }
    return uploads;
  } catch (const Failure& failure) {
    return failure.error();
  }
}

Result<void> S3Client::abort(const S3Upload& upload) {
  try {
    perform({.method = "DELETE", .key = upload.key, .query = {{"uploadId", upload.id}}});
    return {};
  } catch (const Failure& failure) {
    if (failure.error().code == ErrorCode::kNotFound) return {};
    return failure.error();
  }
}

}  // namespace limner::delivery
