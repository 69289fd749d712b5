#include "gateway/api_v1/wish.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string>
#include <vector>

#include "delivery/accept.h"
#include "gateway/api_v1/answers.h"

namespace limner::gateway::api_v1 {
namespace {

using http::beast_http::status;
using image::Format;

constexpr std::array kFormats = {Format::kPng, Format::kJpeg, Format::kWebp, Format::kAvif};

std::optional<std::chrono::seconds> read_wait(std::string_view prefer) {
  while (!prefer.empty()) {
    const auto end = std::min(prefer.find_first_of(",;"), prefer.size());
    std::string_view one = prefer.substr(0, end);
    prefer.remove_prefix(std::min(end + 1, prefer.size()));
    std::string word;
    for (const char c : one) {
      if (c != ' ' && c != '\t' && c != '"') word += c >= 'A' && c <= 'Z' ? c + 32 : c;
    }
    if (!word.starts_with("wait=")) continue;
    long seconds = 0;
    const char* last = word.data() + word.size();
    const auto [stop, error] = std::from_chars(word.data() + 5, last, seconds);
    if (error != std::errc() || stop != last || seconds < 0) return std::nullopt;
    return std::chrono::seconds(std::min(seconds, 86'400L));
  }
  return std::nullopt;
}

}  // namespace

Wish read_wish(const http::Request& request, std::optional<Format> format) {
  Wish wish{.wait = read_wait(request.header("Prefer"))};
  const std::string_view accept = request.header("Accept");
  if (accept.empty()) return wish;
  std::vector<Format> offered(kFormats.begin(), kFormats.end());
  if (format) offered = {*format};
  const auto picture = delivery::choose_format(accept, offered);
  const auto json = delivery::accept_weight(accept, "application/json");
  if (!picture.ok()) refuse(status::bad_request, "invalid_argument", picture.error().message);
  if (*picture && *delivery::accept_weight(accept, delivery::content_type(**picture)) > *json) {
    wish.picture = *picture;
  } else if (*json == 0) {
    refuse(status::not_acceptable, "not_acceptable",
           format ? "The answer can be JSON or the picture in the format that output.format names."
                  : "The answer can be JSON or a picture: PNG, JPEG, WebP or AVIF.");
  }
  return wish;
}

}  // namespace limner::gateway::api_v1
