#include "gateway/api_v1/upload_routes.h"

#include <fmt/format.h>

#include <boost/beast/core/string.hpp>

#include "contract/request_fields.h"
#include "delivery/accept.h"
#include "delivery/crypto.h"
#include "gateway/api_v1/answers.h"
#include "gateway/http/multipart.h"
#include "image/header.h"

namespace limner::gateway::api_v1 {
namespace {

namespace asio = boost::asio;
using http::beast_http::status;
using nlohmann::json;

constexpr std::int64_t kLargestSide = 16'384;
constexpr std::int64_t kMostPixels = std::int64_t{64} << 20;  // 256 MiB when decoded

bool is_form(std::string_view content_type) {
  content_type = content_type.substr(0, content_type.find(';'));
  while (content_type.ends_with(' ')) content_type.remove_suffix(1);
  return boost::beast::iequals(content_type, "multipart/form-data");
}

// The file in the form `body`, of which the result is a part.
std::string_view file_of(std::string_view content_type, std::string_view body) {
  const auto parts = http::parse_multipart(content_type, body);
  if (!parts.ok()) {
    refuse(status::bad_request, "invalid_form",
           fmt::format("The form cannot be read: {}.", contract::field_message(parts.error())));
  }
  if (parts->size() != 1) {
    refuse(status::bad_request, "invalid_form",
           fmt::format("The form must have one part, the file; it has {}.", parts->size()));
  }
  return parts->front().content;
}

image::Header check(std::string_view file) {
  if (file.empty()) {
    refuse(status::bad_request, "invalid_argument",
           "The file is empty: it must be a PNG, JPEG or WebP file.");
  }
  if (file.size() > kMostUploadBytes) {
    refuse(
        status::payload_too_large, "body_too_large",
        fmt::format("A picture must be at most {} bytes, got {}.", kMostUploadBytes, file.size()));
  }
  const auto header = image::read_header(delivery::bytes_of(file));
  if (!header.ok() && header.error().code == ErrorCode::kUnsupported) {
    refuse(status::unsupported_media_type, "unsupported_media_type",
           "The file must be a PNG, JPEG or WebP file, and is none of them.");
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
json store(const ApiV1Services& services, const std::string& account, std::string_view file) {
  const image::Header header = check(file);
  const std::string extension(image::extension(header.format).substr(1));
  const delivery::Place place{.account = account, .extension = extension};
  const auto stored = services.artifacts.put(place, delivery::bytes_of(file)).value_or_throw();
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
  const auto put = [&api, &request, account = caller.account] {
    const std::string_view type = request.header("Content-Type");
    const std::string_view body = request.body;
    return store(api.services, account, is_form(type) ? file_of(type, body) : body);
  };
  const json object = co_await http::blocking(api.services.blocking, put);
  co_return json_answer(object, status::created);
}

}  // namespace limner::gateway::api_v1
