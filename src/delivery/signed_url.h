// UrlSigner: URLs that open one stored object for a while to whoever holds them.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace limner::delivery {

struct SigningKey {
  std::string id;                    // 1..32 letters, digits, '-', '_'; seen in URLs
  std::vector<std::uint8_t> secret;  // 32 bytes or more
};

struct SignedUrl {
  std::string path;                                  // "/v1/artifacts/hot/...", as sent
  std::chrono::system_clock::time_point expires_at;  // to the second
  std::string download_name{};  // "": none. Any bytes; percent-encoded in the URL
};

// Immutable; safe to call from many threads. The query is
// `expires=SECONDS&key=ID[&download=NAME]&signature=BASE64URL`, the signature HMAC-SHA256 over a
// fixed first line, the path, expires, the key's id and the name, one a line. GET and HEAD are the
// same to it.
class UrlSigner {
 public:
  // `previous` still opens URLs made before the key changed; new ones are signed with `current`.
  // Errors: kInvalidArgument (an id or a secret that is not as SigningKey says, one id twice).
  static Result<UrlSigner> make(SigningKey current, std::optional<SigningKey> previous = {});

  // path?query.
  std::string sign(const SignedUrl& url) const;
  // What the URL was signed for. The query must hold what sign() writes and nothing else. Errors:
  // kPermissionDenied: altered, expired (from `expires_at` on), or signed with another key.
  Result<SignedUrl> verify(std::string_view path, std::string_view query,
                           std::chrono::system_clock::time_point now) const;

 private:
  UrlSigner() = default;
  const SigningKey* find(std::string_view id) const;
  SigningKey current_;
  std::optional<SigningKey> previous_;
};

}  // namespace limner::delivery
