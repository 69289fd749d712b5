#include "delivery/webhook_signature.h"

#include <fmt/format.h>

#include <algorithm>

#include "delivery/crypto.h"

namespace limner::delivery {
namespace {

constexpr std::string_view kSymmetric = "whsec_", kPrivate = "whsk_", kPublic = "whpk_";

Error invalid(std::string_view what) {
  return {ErrorCode::kInvalidArgument, fmt::format("[webhook] {}", what)};
}

bool is_id_character(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
         c == '_';
}

}  // namespace

Result<WebhookSecret> WebhookSecret::parse(std::string_view text) {
  if (text.starts_with(kSymmetric)) {
    auto key = from_base64(text.substr(kSymmetric.size()));
    if (!key) return invalid("want base64 behind whsec_");
    if (key->size() < 24 || key->size() > 64) {
      return invalid(
          fmt::format("want a secret of 24 to 64 bytes behind whsec_, got {}", key->size()));
    }
    return WebhookSecret(false, std::move(*key));
  }
  if (!text.starts_with(kPrivate)) {
    return invalid("want a secret that begins with whsec_ or whsk_");
  }
  auto key = from_base64(text.substr(kPrivate.size()));
  if (!key || (key->size() != 32 && key->size() != 64)) {
    return invalid("want the base64 of a 32 or 64 byte Ed25519 key behind whsk_");
  }
  const std::vector<std::uint8_t> public_key(key->begin() + 32, key->end());
  key->resize(32);
  if (!public_key.empty() && ed25519_public_key(*key) != public_key) {
    return invalid("the two halves of the whsk_ key do not belong together");
  }
  return WebhookSecret(true, std::move(*key));
}

WebhookSecret WebhookSecret::make() {
  return {false, random_bytes(32)};
}

std::string WebhookSecret::text() const {
  return fmt::format("{}{}", ed25519_ ? kPrivate : kSymmetric, base64(key_));
}

std::string WebhookSecret::public_text() const {
  return ed25519_ ? fmt::format("{}{}", kPublic, base64(ed25519_public_key(key_))) : "";
}

std::string WebhookSecret::sign(std::string_view id, std::chrono::sys_seconds timestamp,
                                std::string_view body) const {
  const std::string text = fmt::format("{}.{}.{}", id, timestamp.time_since_epoch().count(), body);
  if (ed25519_) return fmt::format("v1a,{}", base64(ed25519_sign(key_, text)));
  return fmt::format("v1,{}", base64(hmac_sha256(key_, text)));
}

std::string make_webhook_id() {
  // 32 symbols, so that five bits of each byte choose one evenly.
  constexpr std::string_view kSymbols = "0123456789abcdefghjkmnpqrstvwxyz";
  std::string id = "msg_";
  for (const std::uint8_t byte : random_bytes(27)) id += kSymbols[byte % kSymbols.size()];
  return id;
}

Result<std::vector<std::string>> webhook_headers(std::string_view id,
                                                 std::chrono::sys_seconds timestamp,
                                                 std::string_view body,
                                                 std::span<const WebhookSecret> secrets) {
  if (id.empty() || !std::all_of(id.begin(), id.end(), is_id_character)) {
    return invalid(
        fmt::format("want an id of letters, digits, '-' and '_', got '{}'", id.substr(0, 80)));
  }
  if (secrets.empty()) return invalid("want a secret to sign with, got none");
  std::string signatures;
  for (const WebhookSecret& secret : secrets) {
    if (!signatures.empty()) signatures += ' ';
    signatures += secret.sign(id, timestamp, body);
  }
  return std::vector<std::string>{
      fmt::format("webhook-id: {}", id),
      fmt::format("webhook-timestamp: {}", timestamp.time_since_epoch().count()),
      fmt::format("webhook-signature: {}", signatures)};
}

}  // namespace limner::delivery
