#include "gateway/api_v1/upload_routes.h"

#include <fmt/format.h>

#include "delivery/accept.h"
#include "delivery/crypto.h"
#include "gateway/api_v1/answers.h"
#include "image/header.h"

namespace limner::gateway::api_v1 {
namespace {

namespace asio = boost::asio;
using http::beast_http::status;
using nlohmann::json;

constexpr std::int64_t kLargestSide = 16'384;
constexpr std::int64_t kMostPixels = std::int64_t{64} << 20;  // 256 MiB when decoded

image::Header check(const std::string& body) {
  if (body.empty()) {
    refuse(status::bad_request, "invalid_argument",
           "The body is empty: it must be a PNG, JPEG or WebP file.");
  }
  if (body.size() > kMostUploadBytes) {
    refuse(
        status::payload_too_large, "body_too_large",
        fmt::format("A picture must be at most {} bytes, got {}.", kMostUploadBytes, body.size()));
  }
  const auto header = image::read_header(delivery::bytes_of(body));
  if (!header.ok() && header.error().code == ErrorCode::kUnsupported) {
    refuse(status::unsupported_media_type, "unsupported_media_type",
           "The body must be a PNG, JPEG or WebP file, and is none of them.");
  }
  if (!header.ok()) {
    refuse(status::unprocessable_entity, "invalid_image",
           fmt::format("The picture cannot be read: {}.", header.error().message));
  }
  if (header->width > kLargestSide || header->height > kLargestSide ||
      header->width * header->height > kMostPixels) {
    refuse(status::unprocessable_entity, "invalid_image",
           fmt::format("The picture has {} x {} pixels; at most {} a side and {} in all are taken.",
                       header->width, header->height, kLargestSide, kMostPixels));
  }
  return *header;
}

// Blocks.
json store(const ApiV1Services& services, const std::string& account, const std::string& body,
           const image::Header& header) {
  const std::string extension(image::extension(header.format).substr(1));
  const delivery::Place place{.account = account, .extension = extension};
  const auto stored = services.artifacts.put(place, delivery::bytes_of(body)).value_or_throw();
  const Showing showing = services.showing();
  const auto url = services.artifacts.sign({.key = stored.key, .lifetime = showing.url_lifetime})
                       .value_or_throw();
  return {{"id", fmt::format("{}.{}", stored.key.sha256, extension)},
          {"url", url},
          {"url_expires_at", url_expiry(showing)},
          {"content_type", delivery::content_type(header.format)},
          {"width", header.width},
          {"height", header.height},
          {"bytes", stored.bytes},
          {"sha256", stored.key.sha256}};
}

}  // namespace

asio::awaitable<http::Response> upload(Api& api, http::Request& request) {
  const http::Caller& caller = require(request, Scope::kGenerate);
  check_query(request, {});
  const image::Header header = check(request.body);
  const auto put = [&api, account = caller.account, body = std::move(request.body), header] {
    return store(api.services, account, body, header);
  };
  const json object = co_await http::blocking(api.services.blocking, put);
  co_return json_answer(object, status::created);
}

}  // namespace limner::gateway::api_v1
