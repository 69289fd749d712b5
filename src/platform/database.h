// A connection to an SQL database through SOCI: SQLite in a file, PostgreSQL by the same SQL.
#pragma once

#include <soci/soci.h>

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace limner::platform {

// Everything here throws Failure (kIo; kUnavailable where another process holds the lock too long).
// Statements made on session() may throw soci::soci_error: database_failure() translates. Used by
// one thread at a time.
class Database {
 public:
  enum class Access { kReadWrite, kReadOnly };

  // An SQLite file, which its owner alone may read where this makes it: write-ahead log, every
  // commit on the disk before it returns (synchronous=FULL), five seconds of patience with other
  // writers.
  static Database sqlite(const std::filesystem::path& file, Access access = Access::kReadWrite);

  soci::session& session() { return *session_; }

  // Runs the steps of `room` that this database has not seen yet, each in its own transaction.
  // Steps are only ever appended.
  void migrate(std::string_view room, std::span<const std::string_view> steps);

 private:
  explicit Database(std::unique_ptr<soci::session> session) : session_(std::move(session)) {}
  std::unique_ptr<soci::session> session_;
};

// Takes the write lock at once, so that what it reads is what it changes. Rolled back unless
// committed.
class Transaction {
 public:
  explicit Transaction(soci::session& session);
  ~Transaction();
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  void commit();

 private:
  soci::session& session_;
  bool open_ = true;
};

// `place` as in "[queue.store]".
Failure database_failure(std::string_view place, const soci::soci_error& error);

}  // namespace limner::platform
