// Signatures of Standard Webhooks 1.0.0 (github.com/standard-webhooks/standard-webhooks, spec).
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace limner::delivery {

// A key of one endpoint. Never printed whole but by text(), to whom it belongs.
class WebhookSecret {
 public:
  // "whsec_" and the base64 of 24 to 64 bytes (HMAC-SHA256), or "whsk_" and the base64 of an
  // Ed25519 private key: its 32 bytes, or those and the public key's. Errors: kInvalidArgument,
  // which does not repeat the secret.
  static Result<WebhookSecret> parse(std::string_view text);
  static WebhookSecret make();  // 32 random bytes for HMAC-SHA256

  std::string text() const;  // whsec_... or whsk_...
  std::string public_text()
      const;  // "whpk_..." of an Ed25519 key, what a receiver verifies with; else ""
  // "v1,..." or "v1a,...": over `id.timestamp.body`.
  std::string sign(std::string_view id, std::chrono::sys_seconds timestamp,
                   std::string_view body) const;

 private:
  WebhookSecret(bool ed25519, std::vector<std::uint8_t> key)
      : ed25519_(ed25519), key_(std::move(key)) {}
  bool ed25519_;
  std::vector<std::uint8_t> key_;  // an Ed25519 key's 32 private bytes, or the HMAC's key
};

// "msg_" and 27 random letters and digits: no '.', so that id, timestamp and body cannot be read
// otherwise.
std::string make_webhook_id();

// The three header lines of one attempt; with several secrets (while one replaces another) the
// receiver may verify with any. Errors: kInvalidArgument for an id that holds '.' or anything else
// than letters, digits, '-' and '_', or no secret.
Result<std::vector<std::string>> webhook_headers(std::string_view id,
                                                 std::chrono::sys_seconds timestamp,
                                                 std::string_view body,
                                                 std::span<const WebhookSecret> secrets);

}  // namespace limner::delivery
