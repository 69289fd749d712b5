// KeyStore: accounts and API keys in the service's database. Keys are stored as SHA-256 hashes and
// shown once. Every change is written together with its entry in the audit log.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "platform/accounts/account.h"
#include "platform/clock.h"

namespace soci {
class session;
}

namespace limner::platform {

class Database;

// Who asks, once the key has been looked at.
struct Identity {
  std::string key_id{};
  std::string account{};
  std::string tier{};  // the key's own, else the account's
  Scopes scopes{};
  AccountLimits limits{};
};

struct KeyRequest {
  std::string account{};
  std::string tier{};  // "": the account's; wanted for a new account
  Scopes scopes{};
  std::int64_t expires_at = 0;  // milliseconds since 1970; 0: never
};

struct NewKey {
  std::string key{};  // the only time that it is told
  ApiKey about{};
  std::string tier{};  // its own, else its account's
  bool new_account = false;
};

// What is absent stays as it is.
struct AccountChange {
  std::optional<std::string> tier{};
  std::optional<std::int64_t> requests_per_minute{}, burst{}, concurrent_requests{},
      images_per_day{};
  std::optional<bool> disabled{};
};

// Any thread may call, and several processes may have the same file open: what one changes, the
// others follow within kFollow. `actor` is who asks for a change, as in AuditAct.
class KeyStore {
 public:
  static constexpr Millis kFollow{250};

  // Opens or makes the file. `clock` must outlive the store.
  static Result<std::unique_ptr<KeyStore>> open(const std::filesystem::path& file,
                                                const Clock& clock);
  ~KeyStore();

  // Answers from memory; at most every kFollow one caller looks whether the tables changed, and
  // whoever shows a key that is not known looks too: a new one works at once. Errors:
  // kUnauthenticated for what is no key, or an unknown, revoked or expired one; kPermissionDenied
  // where the account is disabled; kIo and kUnavailable where the database cannot be asked. No
  // message repeats the key.
  Result<Identity> authenticate(std::string_view key);

  // Makes the account too where there is none. A tier other than the account's is the key's own.
  Result<NewKey> create(const KeyRequest& request, std::string_view actor);
  // A key with all scopes for the account "admin", when no key with the scope admin was ever made.
  Result<std::optional<NewKey>> ensure_first_key();
  // A new key like `id`, which goes on working until `overlap` has passed or it expires. kNotFound;
  // kInvalidArgument for a revoked or expired one.
  Result<NewKey> rotate(const std::string& id, Millis overlap, std::string_view actor);
  // At once here. A key that is revoked already stays so. kNotFound.
  Result<void> revoke(const std::string& id, std::string_view actor);

  // kNotFound; kInvalidArgument for a limit below 0 or out of reason.
  Result<Account> change_account(const std::string& name, const AccountChange& change,
                                 std::string_view actor);

  Result<std::vector<ApiKey>> keys();       // oldest first, with the revoked ones
  Result<std::vector<Account>> accounts();  // by name

  // Writes when keys were last used; to be called every minute or so, and at the end.
  Result<void> flush();

 private:
  struct Snapshot;
  KeyStore(std::filesystem::path file, const Clock& clock);

  Result<bool> refresh();
  Result<std::shared_ptr<const Snapshot>> current();
  template <typename Work>
  auto reading(const Work& work);
  template <typename Work>
  auto writing(const Work& work);
  template <typename Work>
  auto changing(const Work& work);

  const std::filesystem::path file_;
  const Clock& clock_;

  std::mutex writer_mutex_, reader_mutex_;
  std::unique_ptr<Database> writer_;  // by writer_mutex_; empty after a failure
  std::unique_ptr<Database> reader_;  // by reader_mutex_; empty after a failure

  std::mutex snapshot_mutex_;
  std::shared_ptr<const Snapshot> snapshot_;  // by snapshot_mutex_
  std::optional<Millis> looked_at_;           // by snapshot_mutex_; empty: look at once

  std::mutex used_mutex_;
  std::map<std::string, std::int64_t> used_;  // by used_mutex_; key id to when, not yet written
};

}  // namespace limner::platform
