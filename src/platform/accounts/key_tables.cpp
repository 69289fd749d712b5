#include "platform/accounts/key_tables.h"

#include <fmt/format.h>

namespace limner::platform {
namespace {

using soci::into;
using soci::use;

constexpr std::string_view kSchema[] = {
    "create table accounts (name varchar(64) primary key, tier varchar(32) not null, "
    "requests_per_minute bigint not null, burst bigint not null, "
    "concurrent_requests bigint not null, images_per_day bigint not null, "
    "disabled integer not null, created_at bigint not null)",
    "create table api_keys (id varchar(64) primary key, account varchar(64) not null, "
    "tier varchar(32) not null, hash varchar(64) not null unique, shown varchar(32) not null, "
    "may_generate integer not null, may_read integer not null, may_administer integer not null, "
    "created_at bigint not null, expires_at bigint not null, revoked_at bigint not null, "
    "last_used_at bigint not null)",
    "create table accounts_version (version bigint not null)",
    "insert into accounts_version (version) values (1)",
};

struct AccountRow {
  std::string name, tier;
  long long requests_per_minute = 0, burst = 0, concurrent_requests = 0, images_per_day = 0,
            created_at = 0;
  int disabled = 0;

  AccountRow() = default;
  explicit AccountRow(const Account& account)
      : name(account.name),
        tier(account.tier),
        requests_per_minute(account.limits.requests_per_minute),
        burst(account.limits.burst),
        concurrent_requests(account.limits.concurrent_requests),
        images_per_day(account.limits.images_per_day),
        created_at(account.created_at),
        disabled(account.disabled ? 1 : 0) {}

  Account account() const {
    return {name,
            tier,
            {requests_per_minute, burst, concurrent_requests, images_per_day},
            disabled != 0,
            created_at};
  }
};

soci::details::prepare_temp_type select_accounts(soci::session& sql, const char* where,
                                                 AccountRow& row) {
  return (sql.prepare << "select name, tier, requests_per_minute, burst, concurrent_requests, "
                         "images_per_day, disabled, created_at from accounts "
                      << where,
          into(row.name), into(row.tier), into(row.requests_per_minute), into(row.burst),
          into(row.concurrent_requests), into(row.images_per_day), into(row.disabled),
          into(row.created_at));
}

struct KeyRow {
  std::string id, account, tier, hash, shown;
  int generate = 0, read = 0, admin = 0;
  long long created_at = 0, expires_at = 0, revoked_at = 0, last_used_at = 0;

  KeyRow() = default;
  explicit KeyRow(const StoredKey& key)
      : id(key.about.id),
        account(key.about.account),
        tier(key.about.tier),
        hash(key.hash),
        shown(key.about.shown),
        generate(key.about.scopes.generate ? 1 : 0),
        read(key.about.scopes.read ? 1 : 0),
        admin(key.about.scopes.admin ? 1 : 0),
        created_at(key.about.created_at),
        expires_at(key.about.expires_at),
        revoked_at(key.about.revoked_at),
        last_used_at(key.about.last_used_at) {}

  StoredKey key() const {
    return {{id,
             account,
             tier,
             shown,
             {generate != 0, read != 0, admin != 0},
             created_at,
             expires_at,
             revoked_at,
             last_used_at},
            hash};
  }
};

soci::details::prepare_temp_type select_keys(soci::session& sql, const char* where, KeyRow& row) {
  return (sql.prepare << "select id, account, tier, hash, shown, may_generate, may_read, "
                         "may_administer, created_at, expires_at, revoked_at, last_used_at "
                         "from api_keys "
                      << where,
          into(row.id), into(row.account), into(row.tier), into(row.hash), into(row.shown),
          into(row.generate), into(row.read), into(row.admin), into(row.created_at),
          into(row.expires_at), into(row.revoked_at), into(row.last_used_at));
}

}  // namespace

void migrate_accounts(Database& database) {
  database.migrate("accounts", kSchema);
}

std::int64_t accounts_version(soci::session& sql) {
  long long version = 0;
  sql << "select version from accounts_version", into(version);
  return version;
}

void count_accounts_version_up(soci::session& sql) {
  sql << "update accounts_version set version = version + 1";
}

std::optional<Account> find_account(soci::session& sql, const std::string& name) {
  AccountRow row;
  soci::statement select = (select_accounts(sql, "where name = :name", row), use(name));
  if (!select.execute(true)) return std::nullopt;
  return row.account();
}

std::vector<Account> read_accounts(soci::session& sql) {
  AccountRow row;
  soci::statement select = select_accounts(sql, "order by name", row);
  std::vector<Account> accounts;
  for (bool more = select.execute(true); more; more = select.fetch()) {
    accounts.push_back(row.account());
  }
  return accounts;
}

void insert_account(soci::session& sql, const Account& account) {
  const AccountRow row(account);
  sql << "insert into accounts (name, tier, requests_per_minute, burst, concurrent_requests, "
         "images_per_day, disabled, created_at) values (:a, :b, :c, :d, :e, :f, :g, :h)",
      use(row.name), use(row.tier), use(row.requests_per_minute), use(row.burst),
      use(row.concurrent_requests), use(row.images_per_day), use(row.disabled), use(row.created_at);
}

void update_account(soci::session& sql, const Account& account) {
  const AccountRow row(account);
  sql << "update accounts set tier = :a, requests_per_minute = :b, burst = :c, "
         "concurrent_requests = :d, images_per_day = :e, disabled = :f where name = :g",
      use(row.tier), use(row.requests_per_minute), use(row.burst), use(row.concurrent_requests),
      use(row.images_per_day), use(row.disabled), use(row.name);
}

std::optional<ApiKey> find_key(soci::session& sql, const std::string& id) {
  KeyRow row;
  soci::statement select = (select_keys(sql, "where id = :id", row), use(id));
  if (!select.execute(true)) return std::nullopt;
  return row.key().about;
}

std::vector<StoredKey> read_keys(soci::session& sql) {
  KeyRow row;
  soci::statement select = select_keys(sql, "order by created_at, id", row);
  std::vector<StoredKey> keys;
  for (bool more = select.execute(true); more; more = select.fetch()) keys.push_back(row.key());
  return keys;
}

void insert_key(soci::session& sql, const StoredKey& key) {
  const KeyRow row(key);
  sql << "insert into api_keys (id, account, tier, hash, shown, may_generate, may_read, "
         "may_administer, created_at, expires_at, revoked_at, last_used_at) values "
         "(:a, :b, :c, :d, :e, :f, :g, :h, :i, :j, :k, :l)",
      use(row.id), use(row.account), use(row.tier), use(row.hash), use(row.shown),
      use(row.generate), use(row.read), use(row.admin), use(row.created_at), use(row.expires_at),
      use(row.revoked_at), use(row.last_used_at);
}

void set_key_end(soci::session& sql, const ApiKey& key) {
  const long long expires_at = key.expires_at, revoked_at = key.revoked_at;
  sql << "update api_keys set expires_at = :a, revoked_at = :b where id = :c", use(expires_at),
      use(revoked_at), use(key.id);
}

void set_key_used(soci::session& sql, const std::string& id, std::int64_t at) {
  const long long used = at;
  sql << "update api_keys set last_used_at = :a where id = :b and last_used_at < :c", use(used),
      use(id), use(used);
}

bool ever_had_an_admin_key(soci::session& sql) {
  long long count = 0;
  sql << "select count(*) from api_keys where may_administer = 1", into(count);
  return count > 0;
}

}  // namespace limner::platform
