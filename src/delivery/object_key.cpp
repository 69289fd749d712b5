#include "delivery/object_key.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

namespace limner::delivery {
namespace {

constexpr std::array<std::pair<std::string_view, Retention>, 3> kRetentions = {
    {{"hot", Retention::kHot}, {"warm", Retention::kWarm}, {"cold", Retention::kCold}}};

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

bool is_small_letter(char c) {
  return c >= 'a' && c <= 'z';
}

bool is_account_character(char c) {
  return is_digit(c) || is_small_letter(c) || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
}

bool is_sha256(std::string_view text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), [](char c) {
           return is_digit(c) || (c >= 'a' && c <= 'f');
         });
}

Error invalid(std::string what) {
  return {ErrorCode::kInvalidArgument, "[store] " + std::move(what)};
}

}  // namespace

std::string_view name(Retention retention) {
  for (const auto& [word, known] : kRetentions) {
    if (known == retention) return word;
  }
  return "hot";
}

Result<Retention> retention_from_name(std::string_view name) {
  for (const auto& [word, known] : kRetentions) {
    if (word == name) return known;
  }
  return invalid(
      fmt::format("want hot, warm or cold as the retention, got '{}'", name.substr(0, 80)));
}

std::string ObjectKey::text() const {
  return fmt::format("{}/{}/{}/{}.{}", name(retention), account, sha256.substr(0, 2), sha256,
                     extension);
}

Result<void> check_account(std::string_view account) {
  if (account.empty() || account.size() > 64 ||
      !std::all_of(account.begin(), account.end(), is_account_character)) {
    return invalid(fmt::format("want an account of 1 to 64 letters, digits, '-' and '_', got '{}'",
                               account.substr(0, 80)));
  }
  return {};
}

Result<void> check_extension(std::string_view extension) {
  const auto fits = [](char c) { return is_digit(c) || is_small_letter(c); };
  if (extension.empty() || extension.size() > 8 ||
      !std::all_of(extension.begin(), extension.end(), fits)) {
    return invalid(
        fmt::format("want an extension of 1 to 8 lower-case letters and digits, got '{}'",
                    extension.substr(0, 80)));
  }
  return {};
}

Result<ObjectKey> parse_object_key(std::string_view text) {
  const Error wrong = invalid(fmt::format(
      "want an object's name such as hot/ACCOUNT/ab/SHA256.png, got '{}'", text.substr(0, 200)));
  std::array<std::string_view, 4> parts{};
  std::string_view rest = text;
  for (std::size_t i = 0; i < 3; ++i) {
    const auto slash = rest.find('/');
    if (slash == std::string_view::npos) return wrong;
    parts[i] = rest.substr(0, slash);
    rest.remove_prefix(slash + 1);
  }
  const auto dot = rest.find('.');
  if (dot == std::string_view::npos) return wrong;
  const auto retention = retention_from_name(parts[0]);
  ObjectKey key{.account = std::string(parts[1]),
                .sha256 = std::string(rest.substr(0, dot)),
                .extension = std::string(rest.substr(dot + 1))};
  if (!retention || !check_account(key.account) || !check_extension(key.extension) ||
      !is_sha256(key.sha256) || !key.sha256.starts_with(parts[2]) || parts[2].size() != 2) {
    return wrong;
  }
  key.retention = *retention;
  return key;
}

std::string_view content_type(std::string_view extension) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 7> kTypes = {
      {{"png", "image/png"},
       {"jpg", "image/jpeg"},
       {"jpeg", "image/jpeg"},
       {"webp", "image/webp"},
       {"avif", "image/avif"},
       {"json", "application/json"},
       {"txt", "text/plain; charset=utf-8"}}};
  for (const auto& [known, type] : kTypes) {
    if (known == extension) return type;
  }
  return "application/octet-stream";
}

}  // namespace limner::delivery
