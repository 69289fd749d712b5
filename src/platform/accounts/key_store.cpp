#include "platform/accounts/key_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "base/quote.h"
#include "base/sha256.h"
#include "base/suggest.h"
#include "platform/accounts/api_key.h"
#include "platform/accounts/key_tables.h"
#include "platform/audit/audit_log.h"

namespace limner::platform {
namespace {

constexpr std::int64_t kMostPerMinute = 60'000'000, kMostAtOnce = 1'000'000;

// Where a hash stands in the snapshot. Its first bytes say nothing about a key, and the whole hash
// is compared in constant time.
std::uint64_t slot_of(const KeyHash& hash) {
  std::uint64_t slot = 0;
  std::memcpy(&slot, hash.data(), sizeof(slot));
  return slot;
}

KeyHash hash_from_hex(const std::string& text) {
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  if (text.size() != 64 || text.find_first_not_of("0123456789abcdef") != std::string::npos) {
    throw Failure(ErrorCode::kIo, "[accounts] a stored hash is not 64 hexadecimal digits");
  }
  KeyHash hash{};
  for (std::size_t i = 0; i < hash.size(); ++i) {
    hash[i] = static_cast<std::uint8_t>(digit(text[2 * i]) << 4 | digit(text[2 * i + 1]));
  }
  return hash;
}

void audit(soci::session& sql, const Clock& clock, std::string_view actor, std::string_view action,
           std::string subject, std::string detail) {
  append_audit(sql,
               {std::string(actor), std::string(action), std::move(subject), std::move(detail)},
               clock.wall());
}

Account account_for(soci::session& sql, const Clock& clock, const KeyRequest& request,
                    std::string_view actor, bool& made) {
  check_account_name(request.account).value_or_throw();
  if (auto there = find_account(sql, request.account)) return *there;
  if (request.tier.empty()) {
    throw Failure(ErrorCode::kInvalidArgument,
                  fmt::format("[account] there is no account '{}' yet: a new one wants a tier",
                              request.account));
  }
  const Account account{
      .name = request.account, .tier = request.tier, .created_at = clock.wall().count()};
  insert_account(sql, account);
  audit(sql, clock, actor, audit_action::kAccountCreate, "account " + account.name,
        "tier " + account.tier);
  made = true;
  return account;
}

// A stored key with a fresh secret; what differs from `like` is made new.
NewKey store_new_key(soci::session& sql, ApiKey like, const Clock& clock) {
  NewKey made{.key = make_api_key(), .about = std::move(like)};
  made.about.id = "key_" + random_base62(16);
  made.about.shown = shown_api_key(made.key);
  made.about.created_at = clock.wall().count();
  made.about.revoked_at = made.about.last_used_at = 0;
  insert_key(sql, {made.about, to_hex(hash_api_key(made.key))});
  return made;
}

NewKey create_in(soci::session& sql, const Clock& clock, const KeyRequest& request,
                 std::string_view actor) {
  const std::int64_t now = clock.wall().count();
  if (request.scopes == Scopes{}) {
    throw Failure(ErrorCode::kInvalidArgument, "[key] a key wants at least one scope");
  }
  if (request.expires_at != 0 && request.expires_at <= now) {
    throw Failure(ErrorCode::kInvalidArgument, "[key] a key must expire in the future");
  }
  bool new_account = false;
  const Account account = account_for(sql, clock, request, actor, new_account);
  NewKey made = store_new_key(sql,
                              {.account = account.name,
                               .tier = request.tier == account.tier ? "" : request.tier,
                               .scopes = request.scopes,
                               .expires_at = request.expires_at},
                              clock);
  made.tier = made.about.tier.empty() ? account.tier : made.about.tier;
  made.new_account = new_account;
  audit(sql, clock, actor, audit_action::kKeyCreate, made.about.id,
        fmt::format("account {}, scopes {}", account.name, to_string(request.scopes)));
  return made;
}

ApiKey key_there(soci::session& sql, const std::string& id) {
  auto key = find_key(sql, id);
  if (!key) {
    throw Failure(ErrorCode::kNotFound,
                  fmt::format("[key] there is no key with the id {}", quote(id)));
  }
  return std::move(*key);
}

void set_limit(std::int64_t& limit, const std::optional<std::int64_t>& to, std::string_view what,
               std::int64_t least, std::int64_t most) {
  if (!to) return;
  if (*to < least || *to > most) {
    throw Failure(ErrorCode::kInvalidArgument,
                  fmt::format("[account] want {} from {} to {}; got {}", what, least, most, *to));
  }
  limit = *to;
}

std::string described(const Account& account) {
  const AccountLimits& limits = account.limits;
  return fmt::format(
      "tier {}, requests_per_minute {}, burst {}, concurrent_requests {}, images_per_day {}, {}",
      account.tier, limits.requests_per_minute, limits.burst, limits.concurrent_requests,
      limits.images_per_day, account.disabled ? "disabled" : "enabled");
}

Account changed(Account account, const AccountChange& change) {
  AccountLimits& limits = account.limits;
  if (change.tier) account.tier = *change.tier;
  if (change.disabled) account.disabled = *change.disabled;
  set_limit(limits.requests_per_minute, change.requests_per_minute, "requests per minute", 0,
            kMostPerMinute);
  set_limit(limits.burst, change.burst, "a burst", 1, kMostAtOnce);
  set_limit(limits.concurrent_requests, change.concurrent_requests, "concurrent requests", 0,
            kMostAtOnce);
  set_limit(limits.images_per_day, change.images_per_day, "images per day", 0, INT64_MAX / 2);
  return account;
}

// Result of `work` on the connection, which is dropped after a failure: what a failed sync left
// behind is known only to one that reads the log again.
template <typename Work>
auto guarded(std::string_view place, std::unique_ptr<Database>& connection, const Work& work) {
  using Value = decltype(work());
  try {
    return Result<Value>(work());
  } catch (const soci::soci_error& error) {
    connection.reset();
    return Result<Value>(database_failure(place, error).error());
  } catch (const Failure& failure) {
    return Result<Value>(failure.error());
  }
}

}  // namespace

// The tables as they were at one version; never changed once made.
struct KeyStore::Snapshot {
  struct Entry {
    KeyHash hash{};
    Identity identity{};
    std::int64_t expires_at = 0;
    bool revoked = false, disabled = false;
  };
  std::int64_t version = 0;
  std::unordered_multimap<std::uint64_t, Entry> entries;

  const Entry* find(const KeyHash& hash) const {
    const auto [first, last] = entries.equal_range(slot_of(hash));
    const auto found = std::find_if(first, last, [&](const auto& one) {
      return equal_in_constant_time(one.second.hash, hash);
    });
    return found == last ? nullptr : &found->second;
  }

  static std::shared_ptr<const Snapshot> read(soci::session& sql);
};

std::shared_ptr<const KeyStore::Snapshot> KeyStore::Snapshot::read(soci::session& sql) {
  auto made = std::make_shared<Snapshot>();
  // The version comes first: what changes while the rest is read is then read again.
  made->version = accounts_version(sql);
  std::unordered_map<std::string, Account> accounts;
  for (Account& account : read_accounts(sql)) accounts[account.name] = std::move(account);
  for (const StoredKey& key : read_keys(sql)) {
    const auto account = accounts.find(key.about.account);
    if (account == accounts.end()) continue;  // made after the accounts were read
    Entry entry{hash_from_hex(key.hash),
                {key.about.id, key.about.account,
                 key.about.tier.empty() ? account->second.tier : key.about.tier, key.about.scopes,
                 account->second.limits},
                key.about.expires_at,
                key.about.revoked_at != 0,
                account->second.disabled};
    made->entries.emplace(slot_of(entry.hash), std::move(entry));
  }
  return made;
}

KeyStore::KeyStore(std::filesystem::path file, const Clock& clock)
    : file_(std::move(file)), clock_(clock) {}

KeyStore::~KeyStore() = default;

template <typename Work>
auto KeyStore::reading(const Work& work) {
  const std::lock_guard lock(reader_mutex_);
  return guarded("[accounts] reading", reader_, [&] {
    if (!reader_) {
      reader_ = std::make_unique<Database>(Database::sqlite(file_, Database::Access::kReadOnly));
    }
    return work(reader_->session());
  });
}

// In one transaction.
template <typename Work>
auto KeyStore::writing(const Work& work) {
  const std::lock_guard lock(writer_mutex_);
  return guarded("[accounts] writing", writer_, [&] {
    if (!writer_) {
      auto database = std::make_unique<Database>(Database::sqlite(file_));
      migrate_audit(*database);
      migrate_accounts(*database);
      writer_ = std::move(database);
    }
    Transaction transaction(writer_->session());
    auto value = work(writer_->session());
    transaction.commit();
    return value;
  });
}

// As writing(), for what the snapshots of this and other processes must follow.
template <typename Work>
auto KeyStore::changing(const Work& work) {
  auto done = writing([&](soci::session& sql) {
    count_accounts_version_up(sql);
    return work(sql);
  });
  {
    const std::lock_guard lock(snapshot_mutex_);
    looked_at_.reset();  // for the case that the next line fails
  }
  // A failure here is met again, and told, by the next authenticate().
  if (done.ok()) static_cast<void>(refresh());
  return done;
}

Result<std::unique_ptr<KeyStore>> KeyStore::open(const std::filesystem::path& file,
                                                 const Clock& clock) {
  std::unique_ptr<KeyStore> store(new KeyStore(file, clock));
  const auto made = store->writing([](soci::session&) { return true; });
  if (!made.ok()) return made.error();
  if (const auto read = store->refresh(); !read.ok()) return read.error();
  return store;
}

Result<bool> KeyStore::refresh() {
  return reading([&](soci::session& sql) {
    const std::int64_t version = accounts_version(sql);
    {
      const std::lock_guard lock(snapshot_mutex_);
      if (snapshot_ && snapshot_->version == version) return true;
    }
    auto fresh = Snapshot::read(sql);
    const std::lock_guard lock(snapshot_mutex_);
    snapshot_ = std::move(fresh);
    return true;
  });
}

Result<std::shared_ptr<const KeyStore::Snapshot>> KeyStore::current() {
  {
    const std::lock_guard lock(snapshot_mutex_);
    const Millis now = clock_.now();
    if (looked_at_ && now - *looked_at_ < kFollow) return snapshot_;
    looked_at_ = now;  // others go on with what is there while this one looks
  }
  const auto read = refresh();
  const std::lock_guard lock(snapshot_mutex_);
  if (read.ok()) return snapshot_;
  looked_at_.reset();
  return read.error();
}

Result<Identity> KeyStore::authenticate(std::string_view key) {
  if (const auto written = check_api_key(key); !written.ok()) return written.error();
  auto known = current();
  if (!known.ok()) return known.error();
  const auto hash = hash_api_key(key);
  const Snapshot::Entry* entry = (*known)->find(hash);
  if (!entry) {
    // Made a moment ago, by another process.
    if (const auto read = refresh(); !read.ok()) return read.error();
    const std::lock_guard lock(snapshot_mutex_);
    known = snapshot_;
    entry = (*known)->find(hash);
  }
  if (!entry) return Error{ErrorCode::kUnauthenticated, "this API key is not known here"};
  const std::int64_t now = clock_.wall().count();
  if (entry->revoked) return Error{ErrorCode::kUnauthenticated, "this API key was revoked"};
  if (entry->expires_at != 0 && entry->expires_at <= now) {
    return Error{ErrorCode::kUnauthenticated, "this API key has expired"};
  }
  if (entry->disabled) {
    return Error{ErrorCode::kPermissionDenied,
                 fmt::format("the account {} is disabled", entry->identity.account)};
  }
  const std::lock_guard lock(used_mutex_);
  used_[entry->identity.key_id] = now;
  return entry->identity;
}

Result<NewKey> KeyStore::create(const KeyRequest& request, std::string_view actor) {
  return changing([&](soci::session& sql) { return create_in(sql, clock_, request, actor); });
}

Result<std::optional<NewKey>> KeyStore::ensure_first_key() {
  return changing([&](soci::session& sql) -> std::optional<NewKey> {
    if (ever_had_an_admin_key(sql)) return std::nullopt;
    return create_in(sql, clock_, {"admin", "turbo", {true, true, true}, 0}, "service");
  });
}

Result<NewKey> KeyStore::rotate(const std::string& id, Millis overlap, std::string_view actor) {
  return changing([&](soci::session& sql) {
    ApiKey old = key_there(sql, id);
    const std::int64_t now = clock_.wall().count();
    if (old.revoked_at != 0 || (old.expires_at != 0 && old.expires_at <= now)) {
      throw Failure(ErrorCode::kInvalidArgument,
                    fmt::format("[key] {} was revoked or has expired: make a new key instead", id));
    }
    NewKey made = store_new_key(sql, old, clock_);
    made.tier = old.tier.empty() ? find_account(sql, old.account).value().tier : old.tier;
    const std::int64_t end = now + overlap.count();
    old.expires_at = old.expires_at == 0 ? end : std::min(old.expires_at, end);
    set_key_end(sql, old);
    audit(sql, clock_, actor, audit_action::kKeyRotate, id,
          fmt::format("replaced by {}, works for {} s more", made.about.id,
                      (old.expires_at - now) / 1000));
    return made;
  });
}

Result<void> KeyStore::revoke(const std::string& id, std::string_view actor) {
  const auto done = changing([&](soci::session& sql) {
    ApiKey key = key_there(sql, id);
    if (key.revoked_at != 0) return true;
    key.revoked_at = clock_.wall().count();
    set_key_end(sql, key);
    audit(sql, clock_, actor, audit_action::kKeyRevoke, id, "account " + key.account);
    return true;
  });
  if (!done.ok()) return done.error();
  return {};
}

Result<Account> KeyStore::change_account(const std::string& name, const AccountChange& change,
                                         std::string_view actor) {
  return changing([&](soci::session& sql) {
    const auto there = find_account(sql, name);
    if (!there) {
      std::vector<std::string> names;
      for (const Account& account : read_accounts(sql)) names.push_back(account.name);
      throw Failure(ErrorCode::kNotFound, fmt::format("[account] there is no account {}{}",
                                                      quote(name), did_you_mean(name, names)));
    }
    const Account to = changed(*there, change);
    update_account(sql, to);
    audit(sql, clock_, actor, audit_action::kAccountChange, "account " + name,
          fmt::format("from {} to {}", described(*there), described(to)));
    return to;
  });
}

Result<std::vector<ApiKey>> KeyStore::keys() {
  return reading([](soci::session& sql) {
    std::vector<ApiKey> keys;
    for (StoredKey& key : read_keys(sql)) keys.push_back(std::move(key.about));
    return keys;
  });
}

Result<std::vector<Account>> KeyStore::accounts() {
  return reading([](soci::session& sql) { return read_accounts(sql); });
}

Result<void> KeyStore::flush() {
  std::map<std::string, std::int64_t> used;
  {
    const std::lock_guard lock(used_mutex_);
    used.swap(used_);
  }
  if (used.empty()) return {};
  const auto done = writing([&](soci::session& sql) {
    for (const auto& [id, at] : used) set_key_used(sql, id, at);
    return true;
  });
  if (done.ok()) return {};
  const std::lock_guard lock(used_mutex_);
  used_.merge(used);  // what came since is newer and stays
  return done.error();
}

}  // namespace limner::platform
