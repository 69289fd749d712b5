// Accounts and API keys as plain data: who may ask for what, and how much.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"

namespace limner::platform {

// 0 anywhere: no limit.
struct AccountLimits {
  std::int64_t requests_per_minute = 600;  // of each key
  std::int64_t burst = 60;                 // requests of a key that may come at once
  std::int64_t concurrent_requests = 100;  // being answered at the same time
  std::int64_t images_per_day = 0;         // accepted between midnights (UTC)
};

// Times are milliseconds since 1970 (UTC).
struct Account {
  std::string name{};
  std::string tier{};  // turbo, fast or relax; this room does not read it
  AccountLimits limits{};
  bool disabled = false;  // all its keys are refused
  std::int64_t created_at = 0;
};

// What a key may do; none includes another.
struct Scopes {
  bool generate = false, read = false, admin = false;
  bool operator==(const Scopes&) const = default;
};

std::string to_string(Scopes scopes);  // "generate,read"
// Errors: kInvalidArgument for an unknown scope, or none at all.
Result<Scopes> parse_scopes(std::string_view text);

// A key as it is known after it was shown once: nothing here lets anybody in.
struct ApiKey {
  std::string id{};  // "key_..."; public, named in usage and audit
  std::string account{};
  std::string tier{};   // "": its account's
  std::string shown{};  // "lmn_Ab3d...x7Kq"
  Scopes scopes{};
  std::int64_t created_at = 0;
  std::int64_t expires_at = 0;    // 0: never
  std::int64_t revoked_at = 0;    // 0: it was not
  std::int64_t last_used_at = 0;  // 0: never; behind by the time between two KeyStore::flush()
};

// 1 to 64 of a-z, A-Z, 0-9, '_' and '-', as names of stored pictures have it. Errors:
// kInvalidArgument.
Result<void> check_account_name(std::string_view name);

}  // namespace limner::platform
