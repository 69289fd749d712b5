// AuditLog: who changed what and who was refused, in a table that is only ever added to. Each entry
// carries the SHA-256 of the hash before it and its own content, so that an entry that was changed,
// moved or removed is found.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "platform/clock.h"

namespace soci {
class session;
}

namespace limner::platform {

class Database;

// What an entry's `action` may be; more may come.
namespace audit_action {
inline constexpr std::string_view kKeyCreate = "key.create";
inline constexpr std::string_view kKeyRevoke = "key.revoke";
inline constexpr std::string_view kKeyRotate = "key.rotate";
inline constexpr std::string_view kAccountCreate = "account.create";
inline constexpr std::string_view kAccountChange = "account.change";
inline constexpr std::string_view kTemplatesReload = "templates.reload";
inline constexpr std::string_view kQueuePause = "queue.pause";
inline constexpr std::string_view kQueueResume = "queue.resume";
inline constexpr std::string_view kDataDelete = "data.delete";
inline constexpr std::string_view kRefused = "refused";
}  // namespace audit_action

// One act. No prompts and no secrets; a key is named by its id.
struct AuditAct {
  std::string actor{};  // "key_...", "cli:root", "service", "address 192.0.2.7"
  std::string action{};
  std::string subject{};  // what it was done to: "key_...", "account ada", "GET /v1/queue"
  std::string detail{};   // one line, free
};

struct AuditEntry {
  std::int64_t id = 0;  // 1, 2, 3, ... without gaps
  std::int64_t at = 0;  // milliseconds since 1970 (UTC)
  AuditAct act{};
  std::string hash{};  // 64 hexadecimal digits
};

// How far the chain had come. Kept elsewhere, it also convicts whoever wrote the whole chain anew.
struct AuditAnchor {
  std::int64_t entries = 0;
  std::string hash{};
};

std::string to_string(const AuditAnchor& anchor);  // "42:9f86d0..."
Result<AuditAnchor> parse_audit_anchor(std::string_view text);

struct AuditVerdict {
  AuditAnchor head{};     // of what was read
  std::string problem{};  // "": the chain is whole; else one sentence with the entry's number
};

// SHA-256 over the hash before it (64 digits; of the first entry 64 zeros) and the entry's id,
// time, actor, action, subject and detail, each as "LENGTH:TEXT," with the length in bytes.
std::string audit_hash(std::string_view previous, const AuditEntry& entry);

// For rooms that write the act in the transaction of the change itself: makes the tables, and adds
// an entry in the transaction that is open. The latter may throw soci::soci_error. Both also write
// after a log that was tampered with, since a key must be revocable then too; the break stays.
void migrate_audit(Database& database);
void append_audit(soci::session& session, const AuditAct& act, Millis at);

// Any thread may call, and several processes may have the same file open.
class AuditLog {
 public:
  // Opens or makes the file. `clock` must outlive the log.
  static Result<std::unique_ptr<AuditLog>> open(const std::filesystem::path& file,
                                                const Clock& clock);
  ~AuditLog();

  // All in one transaction, on the disk when this returns. The order is kept.
  Result<void> append(std::span<const AuditAct> acts);

 private:
  AuditLog(std::filesystem::path file, const Clock& clock);

  const std::filesystem::path file_;
  const Clock& clock_;
  std::mutex mutex_;
  std::unique_ptr<Database> database_;  // by mutex_; empty after a failure, which a new one forgets
};

// Of a file that is there, and may be in use; kNotFound where there is none.
// Newest first, from before the entry `before`.
Result<std::vector<AuditEntry>> list_audit(const std::filesystem::path& file, std::int64_t before,
                                           std::size_t limit);
// Reads the whole chain. With an anchor, the chain must also have its entry with its hash.
Result<AuditVerdict> verify_audit(const std::filesystem::path& file,
                                  const std::optional<AuditAnchor>& anchor);

}  // namespace limner::platform
