#include "platform/accounts/api_key.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <span>

#include "base/sha256.h"

namespace limner::platform {
namespace {

constexpr std::string_view kDigits =
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

constexpr std::array<std::uint32_t, 256> crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1u ? 0xedb88320u : 0u);
    table[i] = value;
  }
  return table;
}

std::uint32_t crc32(std::string_view text) {
  static constexpr auto kTable = crc_table();
  std::uint32_t value = 0xffffffffu;
  for (const char c : text) {
    value = kTable[(value ^ static_cast<std::uint8_t>(c)) & 255u] ^ value >> 8;
  }
  return ~value;
}

Error refused(std::string message) {
  return Error{ErrorCode::kUnauthenticated, std::move(message)};
}

}  // namespace

std::string random_base62(std::size_t digits) {
  std::string text;
  std::array<std::uint8_t, 64> bytes{};
  while (text.size() < digits) {
    if (getentropy(bytes.data(), bytes.size()) != 0) {
      throw Failure(ErrorCode::kInternal, "[api key] the system gives no random bytes");
    }
    for (const std::uint8_t byte : bytes) {
      // 248 = 4 x 62: larger bytes would favour the first digits.
      if (byte < 248 && text.size() < digits) text += kDigits[byte % 62];
    }
  }
  return text;
}

std::string base62_checksum(std::string_view text) {
  std::uint32_t value = crc32(text);
  std::string digits(kApiKeyChecksum, '0');
  for (auto digit = digits.rbegin(); digit != digits.rend(); ++digit) {
    *digit = kDigits[value % 62];
    value /= 62;
  }
  return digits;
}

std::string make_api_key() {
  const std::string random = random_base62(kApiKeyRandom);
  return fmt::format("{}{}{}", kApiKeyPrefix, random, base62_checksum(random));
}

Result<void> check_api_key(std::string_view text) {
  if (text.empty()) return refused("an API key is wanted: send 'Authorization: Bearer lmn_...'");
  const auto is_digit = [](char c) { return kDigits.find(c) != std::string_view::npos; };
  if (text.size() != kApiKeySize || !text.starts_with(kApiKeyPrefix) ||
      !std::all_of(text.begin() + kApiKeyPrefix.size(), text.end(), is_digit)) {
    return refused("this is no API key of limner: one is 'lmn_' and 36 letters and digits");
  }
  const std::string_view random = text.substr(kApiKeyPrefix.size(), kApiKeyRandom);
  if (text.substr(kApiKeyPrefix.size() + kApiKeyRandom) != base62_checksum(random)) {
    return refused("this API key is mistyped: its last six digits do not fit the others");
  }
  return {};
}

KeyHash hash_api_key(std::string_view key) {
  Sha256 hash;
  hash.update(std::as_bytes(std::span(key.data(), key.size())));
  return hash.finish();
}

bool equal_in_constant_time(const KeyHash& left, const KeyHash& right) {
  // volatile: the compiler may not leave the loop early.
  volatile std::uint8_t different = 0;
  for (std::size_t i = 0; i < left.size(); ++i) {
    different = static_cast<std::uint8_t>(different | (left[i] ^ right[i]));
  }
  return different == 0;
}

std::string shown_api_key(std::string_view key) {
  return fmt::format("{}...{}", key.substr(0, kApiKeyPrefix.size() + 4),
                     key.substr(key.size() - 4));
}

}  // namespace limner::platform
