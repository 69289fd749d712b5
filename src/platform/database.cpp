#include "platform/database.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

namespace limner::platform {
namespace {

void run(soci::session& session, std::string_view sql) {
  session << std::string(sql);
}

// A new file is its owner's alone, and so are the log and the index that SQLite lays beside it. One
// that is there keeps its mode, and is not opened: closing it would end SQLite's own locks on it
// (fcntl(2), of one process).
void make_private(const std::string& name) {
  const int made = open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (made >= 0) close(made);
}

}  // namespace

Database Database::sqlite(const std::filesystem::path& file, Access access) {
  const std::string name = file.string();
  if (name.find('"') != std::string::npos) {
    throw Failure(ErrorCode::kInvalidArgument,
                  fmt::format("[database] the path {} must not contain a quotation mark", name));
  }
  if (access == Access::kReadWrite) make_private(name);
  try {
    auto session = std::make_unique<soci::session>(fmt::format(
        "sqlite3://db=\"{}\" timeout=5{}", name, access == Access::kReadOnly ? " readonly=1" : ""));
    if (access == Access::kReadWrite) {
      run(*session, "pragma journal_mode=wal");
      run(*session, "pragma synchronous=full");
    }
    return Database(std::move(session));
  } catch (const soci::soci_error& error) {
    throw database_failure(fmt::format("[database] opening {}", name), error);
  }
}

void Database::migrate(std::string_view room, std::span<const std::string_view> steps) {
  try {
    run(*session_,
        "create table if not exists schema_versions "
        "(room varchar(64) primary key, version integer not null)");
    const std::string name(room);
    for (;;) {
      Transaction transaction(*session_);
      int version = 0;
      *session_ << "select version from schema_versions where room = :room", soci::use(name),
          soci::into(version);
      if (version > static_cast<int>(steps.size())) {
        throw Failure(ErrorCode::kUnsupported,
                      fmt::format("[database] the tables of {} have version {}, and this program "
                                  "knows {}: use the program that made them, or a newer one",
                                  room, version, steps.size()));
      }
      if (version == static_cast<int>(steps.size())) return;
      run(*session_, steps[static_cast<std::size_t>(version)]);
      ++version;
      *session_ << "delete from schema_versions where room = :room", soci::use(name);
      *session_ << "insert into schema_versions (room, version) values (:room, :version)",
          soci::use(name), soci::use(version);
      transaction.commit();
    }
  } catch (const soci::soci_error& error) {
    throw database_failure(fmt::format("[database] making the tables of {}", room), error);
  }
}

Transaction::Transaction(soci::session& session) : session_(session) {
  run(session_, session_.get_backend_name() == "sqlite3" ? "begin immediate" : "begin");
}

Transaction::~Transaction() {
  if (!open_) return;
  try {
    run(session_, "rollback");
  } catch (const soci::soci_error&) {
    // After some failures SQLite has rolled back by itself, and says so.
  }
}

void Transaction::commit() {
  run(session_, "commit");
  open_ = false;
}

Failure database_failure(std::string_view place, const soci::soci_error& error) {
  const std::string message = error.what();
  const bool locked = message.find("database is locked") != std::string::npos;
  return Failure(Error{locked ? ErrorCode::kUnavailable : ErrorCode::kIo,
                       fmt::format("{}: {}", place, message), true});
}

}  // namespace limner::platform
