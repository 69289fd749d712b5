#include "gateway/api_v1/artifact_routes.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "delivery/local_store.h"
#include "delivery/object_key.h"
#include "delivery/percent.h"
#include "gateway/api_v1/answers.h"

namespace limner::gateway::api_v1 {
namespace {

namespace asio = boost::asio;
using http::Response;
using http::beast_http::status;
using http::beast_http::verb;

std::optional<std::uint64_t> number(std::string_view digits) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return value;
}

// What a browser may do with it: look at it, and nothing else.
void set_headers(Response& response, const delivery::ObjectKey& key, const delivery::SignedUrl& url,
                 std::chrono::milliseconds now) {
  const auto left = std::chrono::floor<std::chrono::seconds>(
      url.expires_at - std::chrono::system_clock::time_point(now));
  response.set("Content-Type", delivery::content_type(key.extension));
  response.set("ETag", fmt::format("\"{}\"", key.sha256));
  response.set("Accept-Ranges", "bytes");
  response.set("Cache-Control", fmt::format("private, max-age={}, immutable", left.count()));
  response.set("Content-Disposition", url.download_name.empty()
                                          ? std::string("inline")
                                          : delivery::attachment(url.download_name));
  response.set("Content-Security-Policy", "default-src 'none'; sandbox");
  response.set("X-Content-Type-Options", "nosniff");
}

// What the signature opens. Throws 403 and 404.
struct Opened {
  delivery::ObjectKey key;
  delivery::SignedUrl url;
};

Opened open(const ApiV1Services& services, const http::Request& request) {
  const auto question = request.target.find('?');
  const std::string_view query =
      question == std::string::npos ? "" : std::string_view(request.target).substr(question + 1);
  const delivery::Time now{services.clock.wall()};
  auto url = services.signer.verify(request.path, query, now);
  if (!url.ok()) refuse(status::forbidden, "permission_denied", url.error().message);
  const std::string_view path = request.path;
  const auto key = delivery::parse_object_key(
      path.substr(std::min(delivery::LocalStore::kPath.size(), path.size())));
  if (!key.ok()) refuse(status::not_found, "not_found", "There is no such object.");
  return {*key, std::move(*url)};
}

// If-Range (RFC 9110, section 13.1.5): a range is for whoever has the rest of the same object.
RangeChoice wanted_range(const http::Request& request, const delivery::ObjectKey& key,
                         std::uint64_t size) {
  const std::string_view condition = request.header("If-Range");
  const bool same = condition.empty() || condition == fmt::format("\"{}\"", key.sha256);
  if (!same || request.method != verb::get) return {};
  return choose_range(request.header("Range"), size);
}

// Blocks.
void fill(const ApiV1Services& services, const Opened& opened, const RangeChoice& choice,
          std::uint64_t size, Response& response) {
  if (!choice.satisfiable) {
    response.status = status::range_not_satisfiable;
    response.set("Content-Range", fmt::format("bytes */{}", size));
    return;
  }
  const delivery::ByteRange range = choice.range.value_or(delivery::ByteRange{});
  const auto bytes = services.artifacts.get(opened.key, range).value_or_throw();
  response.body.assign(bytes.begin(), bytes.end());
  if (!choice.range) return;
  response.status = status::partial_content;
  response.set("Content-Range",
               fmt::format("bytes {}-{}/{}", range.first, range.first + bytes.size() - 1, size));
}

}  // namespace

RangeChoice choose_range(std::string_view header, std::uint64_t size) {
  constexpr std::string_view kUnit = "bytes=";
  if (!header.starts_with(kUnit)) return {};
  const std::string_view spec = header.substr(kUnit.size());
  const auto dash = spec.find('-');
  if (dash == std::string_view::npos) return {};
  const auto first = number(spec.substr(0, dash));
  const auto last = number(spec.substr(dash + 1));
  if (dash == 0) {  // the last so many bytes
    if (!last) return {};
    if (*last == 0 || size == 0) return {.satisfiable = false};
    const std::uint64_t length = std::min(*last, size);
    return {.range = delivery::ByteRange{size - length, length}};
  }
  const bool open_end = dash + 1 == spec.size();
  if (!first || (!open_end && !last) || (last && *last < *first)) return {};
  if (*first >= size) return {.satisfiable = false};
  const std::uint64_t end = open_end ? size - 1 : std::min(*last, size - 1);
  return {.range = delivery::ByteRange{*first, end - *first + 1}};
}

asio::awaitable<Response> get_artifact(Api& api, http::Request& request) {
  const ApiV1Services& services = api.services;
  const Opened opened = open(services, request);
  Response response;
  set_headers(response, opened.key, opened.url, services.clock.wall());
  if (matches(request.header("If-None-Match"), response.headers["ETag"])) {
    response.status = status::not_modified;
    co_return response;
  }
  const auto head = [&services, opened] {
    return services.artifacts.head(opened.key).value_or_throw().bytes;
  };
  const std::uint64_t size = co_await http::blocking(services.blocking, head);
  if (request.method == verb::head) {
    response.set("Content-Length", std::to_string(size));
    co_return response;
  }
  const RangeChoice choice = wanted_range(request, opened.key, size);
  const auto read = [&services, opened, choice, size] {
    Response filled;
    fill(services, opened, choice, size, filled);
    return filled;
  };
  Response filled = co_await http::blocking(services.blocking, read);
  for (const auto& field : filled.headers) response.headers.set(field.name_string(), field.value());
  response.status = filled.status;
  response.body = std::move(filled.body);
  co_return response;
}

}  // namespace limner::gateway::api_v1
