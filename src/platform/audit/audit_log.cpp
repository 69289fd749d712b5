#include "platform/audit/audit_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/quote.h"
#include "base/sha256.h"
#include "platform/database.h"

namespace limner::platform {
namespace {

using soci::into;
using soci::use;

constexpr std::string_view kSchema[] = {
    "create table audit_log (id bigint primary key, created_at bigint not null, "
    "actor text not null, action varchar(64) not null, subject text not null, "
    "detail text not null, hash varchar(64) not null)",
    "create table audit_head (entries bigint not null, hash varchar(64) not null)",
    "insert into audit_head (entries, hash) values "
    "(0, '0000000000000000000000000000000000000000000000000000000000000000')",
};

constexpr std::size_t kHashDigits = 64;

std::string no_hash() {
  return std::string(kHashDigits, '0');
}

// A row while SOCI reads or writes it.
struct Row {
  long long id = 0, at = 0;
  std::string actor, action, subject, detail, hash;

  AuditEntry entry() const { return {id, at, {actor, action, subject, detail}, hash}; }
};

soci::details::prepare_temp_type select_rows(soci::session& sql, const char* rest, Row& row) {
  return (
      sql.prepare << "select id, created_at, actor, action, subject, detail, hash from audit_log "
                  << rest,
      into(row.id), into(row.at), into(row.actor), into(row.action), into(row.subject),
      into(row.detail), into(row.hash));
}

AuditAnchor stored_head(soci::session& sql) {
  long long entries = 0, rows = 0;
  std::string hash;
  sql << "select count(*) from audit_head", into(rows);
  sql << "select entries, hash from audit_head", into(entries), into(hash);
  return rows == 1 ? AuditAnchor{entries, hash} : AuditAnchor{-1, ""};
}

// What is wrong with `entry` as the one after `head`; "" when nothing is.
std::string problem_after(const AuditAnchor& head, const AuditEntry& entry) {
  const std::int64_t wanted = head.entries + 1;
  if (entry.id != wanted) {
    return fmt::format("entry {} is missing: the next one there is {}", wanted, entry.id);
  }
  if (entry.hash != audit_hash(head.hash, entry)) {
    return fmt::format(
        "entry {} does not fit its hash: it, or the one before it, was changed, moved or replaced",
        wanted);
  }
  return "";
}

std::string problem_at_end(const AuditAnchor& read, const AuditAnchor& stored) {
  if (stored.entries < 0) return "the table audit_head has not one row";
  if (stored.entries > read.entries) {
    return fmt::format("entries {} to {} are missing at the end", read.entries + 1, stored.entries);
  }
  if (stored.entries < read.entries || stored.hash != read.hash) {
    return fmt::format(
        "the chain ends with entry {}, and the table audit_head names {}: entries "
        "were added or replaced by something else than limner",
        read.entries, stored.entries);
  }
  return "";
}

std::string anchor_problem(const AuditAnchor& head, const AuditAnchor& anchor) {
  if (anchor.entries > head.entries) {
    return fmt::format("entries {} to {}, which the anchor counts, are missing at the end",
                       head.entries + 1, anchor.entries);
  }
  return fmt::format("entry {} is not the anchor's: the chain was written anew", anchor.entries);
}

AuditVerdict verdict_of(soci::session& sql, const std::optional<AuditAnchor>& anchor) {
  AuditVerdict verdict{{0, no_hash()}, ""};
  const auto at_anchor = [&] {
    return !anchor ||
           (anchor->entries == verdict.head.entries && anchor->hash == verdict.head.hash);
  };
  bool anchored = at_anchor();
  Row row;
  soci::statement select = select_rows(sql, "order by id", row);
  for (bool more = select.execute(true); more; more = select.fetch()) {
    const AuditEntry entry = row.entry();
    verdict.problem = problem_after(verdict.head, entry);
    if (!verdict.problem.empty()) return verdict;
    verdict.head = {entry.id, entry.hash};
    anchored = anchored || at_anchor();
  }
  verdict.problem = problem_at_end(verdict.head, stored_head(sql));
  if (verdict.problem.empty() && !anchored) verdict.problem = anchor_problem(verdict.head, *anchor);
  return verdict;
}

Database open_there(const std::filesystem::path& file) {
  if (!std::filesystem::exists(file)) {
    throw Failure(ErrorCode::kNotFound, fmt::format("[audit] there is no {}", file.string()));
  }
  return Database::sqlite(file, Database::Access::kReadOnly);
}

template <typename Value, typename Work>
Result<Value> guarded(std::string_view place, const Work& work) {
  try {
    return work();
  } catch (const soci::soci_error& error) {
    return database_failure(place, error).error();
  } catch (const Failure& failure) {
    return failure.error();
  }
}

}  // namespace

std::string to_string(const AuditAnchor& anchor) {
  return fmt::format("{}:{}", anchor.entries, anchor.hash);
}

Result<AuditAnchor> parse_audit_anchor(std::string_view text) {
  AuditAnchor anchor;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), anchor.entries);
  const auto used = static_cast<std::size_t>(end - text.data());
  const bool number = error == std::errc() && anchor.entries >= 0;
  if (number && text.size() == used + 1 + kHashDigits && text[used] == ':') {
    anchor.hash = std::string(text.substr(used + 1));
    if (anchor.hash.find_first_not_of("0123456789abcdef") == std::string::npos) return anchor;
  }
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("[audit] an anchor is a count, ':' and 64 hexadecimal digits, as "
                           "`limner audit verify` prints it; got {}",
                           quote(text))};
}

std::string audit_hash(std::string_view previous, const AuditEntry& entry) {
  std::string content(previous);
  for (const std::string& field :
       {std::to_string(entry.id), std::to_string(entry.at), entry.act.actor, entry.act.action,
        entry.act.subject, entry.act.detail}) {
    content += fmt::format("{}:{},", field.size(), field);
  }
  return sha256_hex(std::as_bytes(std::span(content)));
}

void migrate_audit(Database& database) {
  database.migrate("audit", kSchema);
}

void append_audit(soci::session& session, const AuditAct& act, Millis at) {
  const AuditAnchor head = stored_head(session);
  long long last = 0;
  session << "select coalesce(max(id), 0) from audit_log", into(last);
  AuditEntry entry{std::max<std::int64_t>(head.entries, last) + 1, at.count(), act, ""};
  entry.hash = audit_hash(head.hash, entry);
  const long long id = entry.id, created_at = entry.at;
  session << "insert into audit_log (id, created_at, actor, action, subject, detail, hash) values "
             "(:a, :b, :c, :d, :e, :f, :g)",
      use(id), use(created_at), use(act.actor), use(act.action), use(act.subject), use(act.detail),
      use(entry.hash);
  session << "delete from audit_head";
  session << "insert into audit_head (entries, hash) values (:a, :b)", use(id), use(entry.hash);
}

AuditLog::AuditLog(std::filesystem::path file, const Clock& clock)
    : file_(std::move(file)), clock_(clock) {}

AuditLog::~AuditLog() = default;

Result<std::unique_ptr<AuditLog>> AuditLog::open(const std::filesystem::path& file,
                                                 const Clock& clock) {
  std::unique_ptr<AuditLog> log(new AuditLog(file, clock));
  if (const auto written = log->append({}); !written.ok()) return written.error();
  return log;
}

Result<void> AuditLog::append(std::span<const AuditAct> acts) {
  const std::lock_guard lock(mutex_);
  const auto done = guarded<bool>("[audit] writing", [&] {
    if (!database_) {
      auto database = std::make_unique<Database>(Database::sqlite(file_));
      migrate_audit(*database);
      database_ = std::move(database);
    }
    if (acts.empty()) return true;
    Transaction transaction(database_->session());
    for (const AuditAct& act : acts) append_audit(database_->session(), act, clock_.wall());
    transaction.commit();
    return true;
  });
  if (done.ok()) return {};
  database_.reset();
  return done.error();
}

Result<std::vector<AuditEntry>> list_audit(const std::filesystem::path& file, std::int64_t before,
                                           std::size_t limit) {
  return guarded<std::vector<AuditEntry>>("[audit] reading", [&] {
    Database database = open_there(file);
    const long long first = before, most = static_cast<long long>(limit);
    std::vector<AuditEntry> entries;
    Row row;
    soci::statement select =
        (select_rows(database.session(), "where id < :a order by id desc limit :b", row),
         use(first), use(most));
    for (bool more = select.execute(true); more; more = select.fetch()) {
      entries.push_back(row.entry());
    }
    return entries;
  });
}

Result<AuditVerdict> verify_audit(const std::filesystem::path& file,
                                  const std::optional<AuditAnchor>& anchor) {
  return guarded<AuditVerdict>("[audit] reading", [&] {
    Database database = open_there(file);
    soci::session& sql = database.session();
    // One snapshot of chain and head, since others may be appending; closing ends it.
    sql << "begin";
    return verdict_of(sql, anchor);
  });
}

}  // namespace limner::platform
