#include "delivery/signed_url.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "delivery/crypto.h"
#include "delivery/percent.h"

namespace limner::delivery {
namespace {

// Says what is signed, so that a secret used elsewhere too cannot lend its signatures.
constexpr std::string_view kFirstLine = "limner-url-v1";

Error refused(std::string_view why) {
  return {ErrorCode::kPermissionDenied, fmt::format("[signed url] {}", why)};
}

Result<void> check(const SigningKey& key) {
  const bool id = !key.id.empty() && key.id.size() <= 32 &&
                  std::all_of(key.id.begin(), key.id.end(), [](char c) {
                    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                           (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
                  });
  if (!id) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("[signed url] want a key id of 1 to 32 letters, digits, '-' and '_', "
                             "got '{}'",
                             key.id.substr(0, 80))};
  }
  if (key.secret.size() < 32) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("[signed url] want a secret of at least 32 bytes for key {}, got {}",
                             key.id, key.secret.size())};
  }
  return {};
}

Digest signature_of(const SigningKey& key, std::string_view path, std::string_view expires,
                    std::string_view download) {
  return hmac_sha256(
      key.secret, fmt::format("{}\n{}\n{}\n{}\n{}", kFirstLine, path, expires, key.id, download));
}

// Reads `name=` from the front of `query` up to the next '&'; nothing when another name comes.
std::optional<std::string_view> take(std::string_view& query, std::string_view name) {
  if (!query.starts_with(name) || query.substr(name.size(), 1) != "=") return std::nullopt;
  query.remove_prefix(name.size() + 1);
  const auto end = std::min(query.find('&'), query.size());
  const std::string_view value = query.substr(0, end);
  query.remove_prefix(std::min(end + 1, query.size()));
  return value;
}

}  // namespace

Result<UrlSigner> UrlSigner::make(SigningKey current, std::optional<SigningKey> previous) {
  if (const auto checked = check(current); !checked) return checked.error();
  if (previous) {
    if (const auto checked = check(*previous); !checked) return checked.error();
    if (previous->id == current.id) {
      return Error{
          ErrorCode::kInvalidArgument,
          fmt::format("[signed url] want two keys with two ids, got '{}' twice", current.id)};
    }
  }
  UrlSigner signer;
  signer.current_ = std::move(current);
  signer.previous_ = std::move(previous);
  return signer;
}

const SigningKey* UrlSigner::find(std::string_view id) const {
  if (id == current_.id) return &current_;
  return previous_ && id == previous_->id ? &*previous_ : nullptr;
}

std::string UrlSigner::sign(const SignedUrl& url) const {
  const std::string expires = std::to_string(
      std::chrono::floor<std::chrono::seconds>(url.expires_at).time_since_epoch().count());
  const std::string download = percent_encode(url.download_name);
  const Digest signature = signature_of(current_, url.path, expires, download);
  return fmt::format("{}?expires={}&key={}{}{}&signature={}", url.path, expires, current_.id,
                     download.empty() ? "" : "&download=", download, base64_url(signature));
}

Result<SignedUrl> UrlSigner::verify(std::string_view path, std::string_view query,
                                    std::chrono::system_clock::time_point now) const {
  const Error altered = refused("the signature does not fit the address");
  std::string_view rest = query;
  const auto expires = take(rest, "expires");
  const auto id = take(rest, "key");
  const auto download = take(rest, "download");
  const auto signature = take(rest, "signature");
  const bool as_signed = expires && id && signature && rest.empty() && !query.ends_with('&') &&
                         !(download && download->empty());
  if (!as_signed) return altered;

  const SigningKey* key = find(*id);
  if (!key) return refused("the key it was signed with is not known any more");
  const auto given = from_base64_url(*signature);
  const Digest wanted = signature_of(*key, path, *expires, download.value_or(""));
  if (!given || !equal_in_constant_time(*given, wanted)) return altered;

  // Signed by us from here on; still nothing is assumed about its form.
  std::int64_t seconds = 0;
  const auto [end, error] =
      std::from_chars(expires->data(), expires->data() + expires->size(), seconds);
  const auto name = percent_decode(download.value_or(""));
  if (error != std::errc() || end != expires->data() + expires->size() || !name) return altered;
  const std::chrono::sys_seconds expires_at{std::chrono::seconds(seconds)};
  if (now >= expires_at) return refused("it has expired; ask for a new one");
  return SignedUrl{.path = std::string(path), .expires_at = expires_at, .download_name = *name};
}

}  // namespace limner::delivery
