// Store: what a queue keeps on the disk. It knows rows and transactions, and nothing of order or
// time; the Queue above decides.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/error.h"
#include "contract/job.h"
#include "platform/audit/audit_log.h"

namespace limner::queue {

// A client's promise that equal keys mean one job. Equal fingerprints mean equal bodies.
struct Idempotency {
  std::string scope{};  // account, method and path
  std::string key{};
  std::string fingerprint{};
};

// A new job. Written with its event, its outbox row, and its idempotency key, unless the key is
// taken.
struct Submission {
  contract::Job job{};
  std::optional<Idempotency> idempotency{};
};

// The next state of a job. Written only onto a job that still has the status and attempt named, so
// that whoever comes late changes nothing.
struct Transition {
  std::int64_t sequence = 0;
  contract::JobStatus from = contract::JobStatus::kQueued;
  std::int32_t from_attempt = 0;

  contract::JobStatus status = contract::JobStatus::kQueued;
  std::int32_t attempt = 0;
  std::int32_t crashes = 0;
  std::int32_t failures = 0;
  bool cancel_requested = false;
  bool dead_letter = false;
  std::string worker{};
  std::int64_t not_before = 0;
  std::int64_t expires_at = 0;
  std::int64_t started_at = 0;
  std::int64_t finished_at = 0;
  std::string result{};
  std::optional<Error> error{};

  contract::JobEvent event{};  // becomes the job's last event
  bool tell = false;           // an outbox row for the event
  std::optional<contract::Usage> usage{};
  std::optional<platform::AuditAct> act{};  // an audit row: it was somebody's act
};

// Of a terminal job and its events; its usage stays.
struct Erasure {
  std::int64_t sequence = 0;
  std::vector<std::string> objects{};  // in the artifact store that it shows: a Removal each
  std::optional<platform::AuditAct> act{};
  std::int64_t at = 0;  // of the act
};

struct Setting {
  std::string name{};
  std::string value{};
  std::optional<platform::AuditAct> act{};
  std::int64_t at = 0;  // of the act
};

using Change = std::variant<Submission, Transition, Erasure, Setting>;

struct Written {
  enum class Kind {
    kDone,
    kReplayed,  // a submission whose key stands for `id` already
    kConflict,  // the key stands for another body
    kLate,      // a transition or an erasure whose job had moved on
  };
  Kind kind = Kind::kDone;
  std::int64_t sequence = 0;  // of a submission
  std::string id{};           // of a replayed one
};

// A row that tells the world of an event; deleted when the world has been told.
struct OutboxRow {
  std::int64_t id = 0;
  std::string job_id{};
  std::int64_t event_id = 0;
  std::string type{};
  std::int64_t at = 0;
};

// An object of the artifact store that an erased job showed; forgotten when it has been seen to.
struct Removal {
  std::string job_id{}, account{}, object{};
};

// What other jobs of the account have to do with an object.
struct ObjectUse {
  bool shown = false;     // a result names it
  bool may_come = false;  // a job that runs since before it was stored may be about to name it
};

struct ListQuery {
  std::string account{};
  std::optional<contract::JobStatus> status{};
  std::int64_t before = INT64_MAX;  // sequence; newest first from there
  std::size_t limit = 50;
};

struct UsageRow {
  std::string job_id{}, account{}, key_id{}, model{}, job_class{};
  contract::Tier tier = contract::Tier::kRelax;
  double work = 0.0;
  contract::Usage usage{};
  std::int64_t at = 0;
};

// Which usage to add up. Times are milliseconds since 1970.
struct UsageQuery {
  std::string account{};  // "": of all
  std::int64_t since = 0;
  std::int64_t before = INT64_MAX;
  std::size_t limit = 1000;  // sums
};

// What one key used of one model in one tier and one day (UTC).
struct UsageSum {
  std::int64_t day = 0;  // since 1970-01-01, in which the jobs ended
  std::string account{}, key_id{}, model{};
  contract::Tier tier = contract::Tier::kRelax;
  std::int64_t jobs = 0;
  contract::Usage usage{};
};

// Reads and writes may come from several threads at once. One process at a time writes jobs.
class Store {
 public:
  virtual ~Store() = default;

  // All changes in one transaction that is on the disk when this returns. One answer per change; a
  // late transition stops none of the others. After an error everything or nothing may have been
  // written: the caller reads again.
  virtual Result<std::vector<Written>> write(std::span<const Change> changes) = 0;

  virtual Result<std::optional<contract::Job>> find(const std::string& id) = 0;
  virtual Result<std::optional<contract::Job>> find(std::int64_t sequence) = 0;
  // Without requests and results.
  virtual Result<std::vector<contract::Job>> list(const ListQuery& query) = 0;
  // Looks at all jobs of the account. `object` is of letters, digits and -_./ only, and may be
  // taken for one that differs in case or in a '_'. `stored_at` is in milliseconds since 1970.
  virtual Result<ObjectUse> object_use(const std::string& account, const std::string& object,
                                       std::int64_t stored_at) = 0;
  // Those of one job, or of all ("") in the order of their jobs.
  virtual Result<std::vector<Removal>> removals(const std::string& job_id, std::size_t limit) = 0;
  virtual Result<void> removed(const Removal& removal) = 0;
  // The written answer to a key, as write() would give it: kReplayed, kConflict, or nothing.
  virtual Result<std::optional<Written>> replay(const Idempotency& idempotency) = 0;
  virtual Result<std::vector<contract::JobEvent>> events(const std::string& id,
                                                         std::int64_t after) = 0;
  // Queued and running jobs in order of acceptance, without their requests.
  virtual Result<void> each_open(const std::function<void(const contract::Job&)>& take) = 0;
  virtual Result<std::string> setting(const std::string& name) = 0;  // "" when it was never set

  virtual Result<std::vector<OutboxRow>> outbox(std::int64_t after, std::size_t limit) = 0;
  virtual Result<void> outbox_told(std::int64_t up_to) = 0;  // deletes the rows up to that id
  virtual Result<std::vector<UsageRow>> usage(std::int64_t since, std::size_t limit) = 0;
  // By day (newest first), then account, key, model and tier.
  virtual Result<std::vector<UsageSum>> usage_sums(const UsageQuery& query) = 0;
  // Images that jobs of the account which ended since then have drawn.
  virtual Result<std::int64_t> images_since(const std::string& account, std::int64_t since) = 0;
  // Idempotency keys and terminal jobs older than the two times (milliseconds since 1970).
  virtual Result<void> sweep(std::int64_t keys_before, std::int64_t jobs_before) = 0;
};

}  // namespace limner::queue
