#include "delivery/crypto.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <memory>

#include "base/check.h"
#include "base/sha256.h"

namespace limner::delivery {
namespace {

constexpr std::string_view kUsual =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr std::string_view kForUrls =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

std::string encode(std::span<const std::uint8_t> bytes, std::string_view alphabet, bool padded) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t there = std::min<std::size_t>(3, bytes.size() - i);
    std::uint32_t group = 0;
    for (std::size_t k = 0; k < 3; ++k) group = group << 8 | (k < there ? bytes[i + k] : 0u);
    for (std::size_t k = 0; k < 4; ++k) {
      if (k <= there) {
        text += alphabet[group >> (18 - 6 * k) & 63u];
      } else if (padded) {
        text += '=';
      }
    }
  }
  return text;
}

std::optional<std::vector<std::uint8_t>> decode(std::string_view text, std::string_view alphabet,
                                                bool padded) {
  std::string_view digits = text;
  while (padded && digits.ends_with('=') && text.size() - digits.size() < 2) {
    digits.remove_suffix(1);
  }
  std::vector<std::uint8_t> bytes;
  std::uint32_t group = 0;
  int bits = 0;
  for (const char c : digits) {
    const auto value = alphabet.find(c);
    if (value == std::string_view::npos) return std::nullopt;
    group = group << 6 | static_cast<std::uint32_t>(value);
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      bytes.push_back(static_cast<std::uint8_t>(group >> bits & 255u));
    }
  }
  // Written again it must be the same: no stray bits, no missing or spare padding.
  if (encode(bytes, alphabet, padded) != text) return std::nullopt;
  return bytes;
}

struct KeyFree {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
struct ContextFree {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

std::unique_ptr<EVP_PKEY, KeyFree> ed25519_key(std::span<const std::uint8_t> seed) {
  LIMNER_CHECK(seed.size() == 32, "an Ed25519 private key has 32 bytes");
  std::unique_ptr<EVP_PKEY, KeyFree> key(
      EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, seed.data(), seed.size()));
  if (!key) throw Failure(ErrorCode::kInternal, "[crypto] OpenSSL has no Ed25519");
  return key;
}

}  // namespace

Digest hmac_sha256(std::span<const std::uint8_t> key, std::string_view text) {
  Digest digest{};
  unsigned size = 0;
  const auto* done = HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
                          bytes_of(text).data(), text.size(), digest.data(), &size);
  if (!done || size != digest.size()) {
    throw Failure(ErrorCode::kInternal, "[crypto] OpenSSL has no HMAC-SHA256");
  }
  return digest;
}

std::string sha256_hex(std::span<const std::uint8_t> bytes) {
  return limner::sha256_hex(std::as_bytes(bytes));
}

bool equal_in_constant_time(std::span<const std::uint8_t> left,
                            std::span<const std::uint8_t> right) {
  return left.size() == right.size() && CRYPTO_memcmp(left.data(), right.data(), left.size()) == 0;
}

std::string base64(std::span<const std::uint8_t> bytes) {
  return encode(bytes, kUsual, true);
}

std::string base64_url(std::span<const std::uint8_t> bytes) {
  return encode(bytes, kForUrls, false);
}

std::optional<std::vector<std::uint8_t>> from_base64(std::string_view text) {
  return decode(text, kUsual, true);
}

std::optional<std::vector<std::uint8_t>> from_base64_url(std::string_view text) {
  return decode(text, kForUrls, false);
}

std::vector<std::uint8_t> random_bytes(std::size_t count) {
  std::vector<std::uint8_t> bytes(count);
  if (RAND_bytes(bytes.data(), static_cast<int>(count)) != 1) {
    throw Failure(ErrorCode::kInternal, "[crypto] the system gives no random bytes");
  }
  return bytes;
}

std::vector<std::uint8_t> ed25519_sign(std::span<const std::uint8_t> seed, std::string_view text) {
  const auto key = ed25519_key(seed);
  const std::unique_ptr<EVP_MD_CTX, ContextFree> context(EVP_MD_CTX_new());
  std::vector<std::uint8_t> signature(64);
  std::size_t size = signature.size();
  if (!context || EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, key.get()) != 1 ||
      EVP_DigestSign(context.get(), signature.data(), &size, bytes_of(text).data(), text.size()) !=
          1) {
    throw Failure(ErrorCode::kInternal, "[crypto] OpenSSL cannot sign with Ed25519");
  }
  return signature;
}

std::vector<std::uint8_t> ed25519_public_key(std::span<const std::uint8_t> seed) {
  const auto key = ed25519_key(seed);
  std::vector<std::uint8_t> public_key(32);
  std::size_t size = public_key.size();
  if (EVP_PKEY_get_raw_public_key(key.get(), public_key.data(), &size) != 1) {
    throw Failure(ErrorCode::kInternal, "[crypto] OpenSSL gives no Ed25519 public key");
  }
  return public_key;
}

}  // namespace limner::delivery
