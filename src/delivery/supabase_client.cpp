#include "delivery/supabase_client.h"

#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "delivery/crypto.h"
#include "delivery/percent.h"

namespace limner::delivery {
namespace {

using nlohmann::json;
using platform::http::Reply;

constexpr std::uint64_t kLargestAnswer = std::uint64_t{16} << 20;
constexpr std::uint64_t kLargestObject = std::uint64_t{1} << 30;

std::optional<Time> parse_time(const std::string& text, const char* form) {
  std::tm parts{};
  if (!strptime(text.c_str(), form, &parts)) return std::nullopt;
  return std::chrono::system_clock::from_time_t(timegm(&parts));
}

[[noreturn]] void fail_reading(std::string_view what) {
  throw Failure(ErrorCode::kIo, fmt::format("[supabase] want {} in the answer, got none", what));
}

json parsed(const Reply& reply) {
  json answer = json::parse(reply.text(), nullptr, false);
  if (answer.is_discarded()) fail_reading("JSON");
  return answer;
}

std::string text_in(const json& object, const char* name) {
  const auto field = object.is_object() ? object.find(name) : object.end();
  return field != object.end() && field->is_string() ? field->get<std::string>() : "";
}

// Supabase answers 400 to most failures and says in the body what it means.
int meant_status(const Reply& reply) {
  const json answer = json::parse(reply.text(), nullptr, false);
  const std::string code = text_in(answer, "statusCode");
  if (code.size() == 3 && code.find_first_not_of("0123456789") == std::string::npos) {
    return std::stoi(code);
  }
  return reply.status;
}

}  // namespace

struct SupabaseClient::Call {
  std::string method;
  std::string path;  // behind the base, encoded
  std::vector<std::string> headers{};
  std::span<const std::uint8_t> body{};
  std::uint64_t max_reply = kLargestAnswer;
  std::string body_sha256{};  // of the answer; "": any
  CallLimits limits{};
};

Result<std::unique_ptr<SupabaseClient>> SupabaseClient::make(SupabaseOptions options,
                                                             platform::http::Exchange& exchange,
                                                             const platform::Clock& clock) {
  auto url = platform::http::parse_url(options.url);
  if (!url) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("[supabase] want a URL such as https://PROJECT.supabase.co: {}",
                             url.error().message)};
  }
  if (options.service_key.empty() || options.bucket.empty() ||
      options.bucket.find_first_of("/?# ") != std::string::npos ||
      options.service_key.find_first_of("\r\n ") != std::string::npos) {
    return Error{ErrorCode::kInvalidArgument,
                 "[supabase] want a service key and the name of a bucket"};
  }
  while (url->target.ends_with('/')) url->target.pop_back();
  if (!url->target.ends_with("/storage/v1")) url->target += "/storage/v1";
  std::unique_ptr<SupabaseClient> store(new SupabaseClient(std::move(options), exchange, clock));
  store->base_ = std::move(*url);
  return store;
}

SupabaseClient::SupabaseClient(SupabaseOptions options, platform::http::Exchange& exchange,
                               const platform::Clock& clock)
    : options_(std::move(options)),
      clock_(clock),
      retries_("supabase", options_.retries, exchange, clock) {}

std::string SupabaseClient::object(const std::string& key) const {
  return percent_encode(fmt::format("{}/{}", options_.bucket, key), "/");
}

void SupabaseClient::check_sum(const Call& call, const Reply& reply) {
  if (call.body_sha256.empty() || call.body_sha256 == sha256_hex(reply.body)) return;
  throw Failure(Error{ErrorCode::kIo,
                      fmt::format("[supabase] {}: want bytes with SHA-256 {}, got others",
                                  call.path, call.body_sha256),
                      true});
}

Reply SupabaseClient::perform(const Call& call) {
  platform::http::Url url = base_;
  url.target += call.path;
  const auto request = [&] {
    platform::http::Request next{.method = call.method,
                                 .url = url,
                                 .headers = call.headers,
                                 .body = call.body,
                                 .max_reply = call.max_reply};
    next.headers.push_back(fmt::format("Authorization: Bearer {}", options_.service_key));
    next.headers.push_back(fmt::format("apikey: {}", options_.service_key));
    return next;
  };
  const auto check = [&](const Reply& reply) {
    if (reply.cut) {
      throw Failure(ErrorCode::kIo, fmt::format("[supabase] {}: the answer has more than {} bytes",
                                                url.shown(), call.max_reply));
    }
    if (reply.status >= 200 && reply.status < 300) return check_sum(call, reply);
    const int status = meant_status(reply);
    throw Failure(Error{
        code_of_status(status),
        fmt::format("[supabase] {} {} answered {} {}", call.method, url.shown(), status,
                    text_in(json::parse(reply.text(), nullptr, false), "message").substr(0, 200)),
        status_may_pass(status)});
  };
  return retries_.call(request, check, call.limits);
}

Result<void> SupabaseClient::check_bucket() {
  try {
    perform({.method = "GET", .path = "/bucket/" + percent_encode(options_.bucket)});
    return {};
  } catch (const Failure& failure) {
    return failure.error();
  }
}

Result<Time> SupabaseClient::put(const std::string& key, std::string_view content_type,
                                 std::span<const std::uint8_t> bytes, const CallLimits& limits) {
  try {
    perform({.method = "POST",
             .path = "/object/" + object(key),
             .headers = {fmt::format("Content-Type: {}", content_type), "x-upsert: true"},
             .body = bytes,
             .limits = limits});
    return Time(clock_.wall());
  } catch (const Failure& failure) {
    return failure.error();
  }
}

Result<std::vector<std::uint8_t>> SupabaseClient::get(const std::string& key, ByteRange range,
                                                      const std::string& sha256) {
  try {
    Call call{.method = "GET",
              .path = "/object/authenticated/" + object(key),
              .max_reply = kLargestObject};
    if (range.whole()) {
      call.body_sha256 = sha256;
    } else {
      const bool open = range.length > kLargestObject;
      call.headers.push_back(
          open ? fmt::format("Range: bytes={}-", range.first)
               : fmt::format("Range: bytes={}-{}", range.first, range.first + range.length - 1));
    }
    return std::move(perform(call).body);
  } catch (const Failure& failure) {
    return failure.error();
  }
}

Result<SupabaseObject> SupabaseClient::head(const std::string& key) {
  try {
    const Reply reply = describe(key);
    const std::string length(reply.header("content-length"));
    const auto time =
        parse_time(std::string(reply.header("last-modified")), "%a, %d %b %Y %H:%M:%S");
    if (!time || length.empty() || length.size() > 18 ||
        length.find_first_not_of("0123456789") != std::string::npos) {
      fail_reading("an object's length and time");
    }
    return SupabaseObject{key, std::stoull(length), *time};
  } catch (const Failure& failure) {
    return failure.error();
  }
}

Reply SupabaseClient::describe(const std::string& key) {
  const std::string path = "/object/authenticated/" + object(key);
  try {
    return perform({.method = "HEAD", .path = path});
  } catch (const Failure& failure) {
    if (failure.error().retryable) throw;
  }
  // An answer to HEAD has no body to say what its 400 means; that to GET does.
  perform({.method = "GET", .path = path, .headers = {"Range: bytes=0-0"}});
  return perform({.method = "HEAD", .path = path});
}

Result<bool> SupabaseClient::remove(const std::string& key) {
  try {
    const std::string body = json{{"prefixes", {key}}}.dump();
    const json removed = parsed(perform({.method = "DELETE",
                                         .path = "/object/" + percent_encode(options_.bucket),
                                         .headers = {"Content-Type: application/json"},
                                         .body = bytes_of(body)}));
    return removed.is_array() && !removed.empty();
  } catch (const Failure& failure) {
    return failure.error();
  }
}

Result<SupabasePage> SupabaseClient::list(const std::string& prefix, const std::string& after,
                                          std::size_t limit) {
  json wanted = {{"prefix", prefix},
                 {"limit", std::clamp<std::size_t>(limit, 1, 1000)},
                 {"with_delimiter", false},
                 {"sortBy", {{"column", "name"}, {"order", "asc"}}}};
  if (!after.empty()) wanted["cursor"] = after;
  try {
    const std::string body = wanted.dump();
    const json answer =
        parsed(perform({.method = "POST",
                        .path = "/object/list-v2/" + percent_encode(options_.bucket),
                        .headers = {"Content-Type: application/json"},
                        .body = bytes_of(body)}));
    if (!answer.contains("objects") || !answer["objects"].is_array()) fail_reading("objects");
    SupabasePage page;
    for (const json& object : answer["objects"]) {
      const std::string key = text_in(object, "name");
      const auto time = parse_time(text_in(object, "updated_at"), "%Y-%m-%dT%H:%M:%S");
      if (!key.starts_with(prefix) || !time) fail_reading("an object's name and time");
      const json metadata = object.value("metadata", json::object());
      page.objects.push_back(
          {key, metadata.is_object() ? metadata.value("size", std::uint64_t{0}) : 0, *time});
    }
    page.next = text_in(answer, "nextCursor");
    return page;
  } catch (const Failure& failure) {
    return failure.error();
  } catch (const json::exception&) {
    return Error{ErrorCode::kIo, "[supabase] a listed object is not as the API describes it"};
  }
}

Result<std::string> SupabaseClient::sign(const std::string& key, std::chrono::seconds lifetime,
                                         const std::string& download_name,
                                         const CallLimits& limits) {
  try {
    const std::string body = json{{"expiresIn", lifetime.count()}}.dump();
    const std::string path = text_in(parsed(perform({.method = "POST",
                                                     .path = "/object/sign/" + object(key),
                                                     .headers = {"Content-Type: application/json"},
                                                     .body = bytes_of(body),
                                                     .limits = limits})),
                                     "signedURL");
    if (!path.starts_with('/')) fail_reading("a signedURL");
    platform::http::Url url = base_;
    url.target += path;
    if (!download_name.empty()) url.target += "&download=" + percent_encode(download_name);
    return url.text();
  } catch (const Failure& failure) {
    return failure.error();
  }
}

}  // namespace limner::delivery
