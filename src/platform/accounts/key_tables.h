// The tables of accounts and keys: one function per statement, each in the caller's transaction.
// They may throw soci::soci_error. Only KeyStore uses them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "platform/accounts/account.h"
#include "platform/database.h"

namespace limner::platform {

// A key with what only the database and the cache know of it.
struct StoredKey {
  ApiKey about{};
  std::string hash{};  // SHA-256, 64 hexadecimal digits
};

void migrate_accounts(Database& database);

// Counted up by every change, so that other processes see that there was one.
std::int64_t accounts_version(soci::session& sql);
void count_accounts_version_up(soci::session& sql);

std::optional<Account> find_account(soci::session& sql, const std::string& name);
std::vector<Account> read_accounts(soci::session& sql);  // by name
void insert_account(soci::session& sql, const Account& account);
void update_account(soci::session& sql, const Account& account);

std::optional<ApiKey> find_key(soci::session& sql, const std::string& id);
std::vector<StoredKey> read_keys(soci::session& sql);  // oldest first
void insert_key(soci::session& sql, const StoredKey& key);
void set_key_end(soci::session& sql, const ApiKey& key);  // expires_at and revoked_at
void set_key_used(soci::session& sql, const std::string& id, std::int64_t at);
bool ever_had_an_admin_key(soci::session& sql);

}  // namespace limner::platform
