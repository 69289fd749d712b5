// The text of an API key, in GitHub's design for tokens: "lmn_", 30 random base62 digits (178
// bits), and six base62 digits of their CRC-32, so that a mistyped key is known without a database,
// and scanners of leaked secrets can tell a real one.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace limner::platform {

inline constexpr std::string_view kApiKeyPrefix = "lmn_";
inline constexpr std::size_t kApiKeyRandom = 30, kApiKeyChecksum = 6;
inline constexpr std::size_t kApiKeySize = kApiKeyPrefix.size() + kApiKeyRandom + kApiKeyChecksum;

// From the operating system's generator; each digit is uniform. Throws Failure(kInternal) when
// there is none.
std::string random_base62(std::size_t digits);

// CRC-32 (ISO 3309, as zlib's) of `text`, as six digits of 0-9A-Za-z.
std::string base62_checksum(std::string_view text);

std::string make_api_key();

// Whether `text` is written as a key is. Errors: kUnauthenticated, with a sentence for the client
// that never repeats the text.
Result<void> check_api_key(std::string_view text);

using KeyHash = std::array<std::uint8_t, 32>;
KeyHash hash_api_key(std::string_view key);  // SHA-256

// Takes the same time wherever the two differ.
bool equal_in_constant_time(const KeyHash& left, const KeyHash& right);

// "lmn_Ab3d...x7Kq": enough to tell keys apart, and 130 bits short of one.
std::string shown_api_key(std::string_view key);

}  // namespace limner::platform
