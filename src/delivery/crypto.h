// The few pieces of cryptography that signing needs, over OpenSSL.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace limner::delivery {

using Digest = std::array<std::uint8_t, 32>;

inline std::span<const std::uint8_t> bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

Digest hmac_sha256(std::span<const std::uint8_t> key, std::string_view text);
std::string sha256_hex(std::span<const std::uint8_t> bytes);

// Takes the same time wherever two texts of one length differ.
bool equal_in_constant_time(std::span<const std::uint8_t> left,
                            std::span<const std::uint8_t> right);

// RFC 4648: the usual alphabet with padding, and the one for URLs without.
std::string base64(std::span<const std::uint8_t> bytes);
std::string base64_url(std::span<const std::uint8_t> bytes);
// Nothing for what is not exactly the form that base64() makes, or base64_url().
std::optional<std::vector<std::uint8_t>> from_base64(std::string_view text);
std::optional<std::vector<std::uint8_t>> from_base64_url(std::string_view text);

// From the operating system's generator. Throws Failure(kInternal) when it has none.
std::vector<std::uint8_t> random_bytes(std::size_t count);

// Ed25519 (RFC 8032) of `text`: 64 bytes. `seed` is the private key's 32 bytes.
std::vector<std::uint8_t> ed25519_sign(std::span<const std::uint8_t> seed, std::string_view text);
std::vector<std::uint8_t> ed25519_public_key(std::span<const std::uint8_t> seed);

}  // namespace limner::delivery
