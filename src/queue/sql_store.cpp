#include "queue/sql_store.h"

#include <algorithm>
#include <mutex>

#include "platform/database.h"
#include "queue/sql_rows.h"
#include "queue/sql_usage.h"

namespace limner::queue {
namespace {

using contract::Job;
using platform::Database;
using soci::into;
using soci::use;

struct NextIds {
  long long sequence = 1, outbox = 1;
};

// The writing connection with its prepared statements. Dropped and opened again after a failure.
class Writer {
 public:
  // `next` is at least what a writer before it would have given out.
  Writer(const std::filesystem::path& file, NextIds next)
      : database_(Database::sqlite(file)), sql_(prepared(database_)), next_(next) {
    NextIds stored;
    sql_ << "select coalesce(max(sequence), 0) + 1 from jobs", into(stored.sequence);
    sql_ << "select coalesce(max(id), 0) + 1 from job_outbox", into(stored.outbox);
    next_.sequence = std::max(next_.sequence, stored.sequence);
    next_.outbox = std::max(next_.outbox, stored.outbox);
    prepare();
  }

  const NextIds& next() const { return next_; }

  std::vector<Written> write(std::span<const Change> changes) {
    platform::Transaction transaction(sql_);
    std::vector<Written> answers;
    answers.reserve(changes.size());
    for (const Change& change : changes) {
      answers.push_back(std::visit([&](const auto& one) { return apply(one); }, change));
    }
    transaction.commit();
    return answers;
  }

  void outbox_told(std::int64_t up_to) {
    platform::Transaction transaction(sql_);
    const long long last = up_to;
    sql_ << "delete from job_outbox where id <= :last", use(last);
    transaction.commit();
  }

  void removed(const Removal& removal) {
    sql_ << "delete from object_removals where job_id = :a and object = :b", use(removal.job_id),
        use(removal.object);
  }

  void sweep(long long keys_before, long long jobs_before) {
    platform::Transaction transaction(sql_);
    sql_ << "delete from idempotency_keys where created_at < :before", use(keys_before);
    sql_ << "delete from job_events where sequence in "
            "(select sequence from jobs where status >= 2 and finished_at < :before)",
        use(jobs_before);
    sql_ << "delete from jobs where status >= 2 and finished_at < :before", use(jobs_before);
    transaction.commit();
  }

 private:
  static soci::session& prepared(Database& database) {
    platform::migrate_audit(database);
    database.migrate("queue", queue_schema());
    return database.session();
  }

  void prepare() {
    insert_job_ =
        (sql_.prepare
             << "insert into jobs (sequence, id, account, key_id, tier, priority, model, "
                "job_class, work, request, status, attempt, crashes, failures, cancel_requested, "
                "dead_letter, worker, created_at, queued_at, not_before, expires_at, started_at, "
                "finished_at, last_event, result, error_code, error_message, error_retryable) "
                "values "
                "(:a, :b, :c, :d, :e, :f, :g, :h, :i, :j, :k, 0, 0, 0, 0, 0, '', :l, :o, 0, :m, 0, "
                "0, :n, '', -1, '', 0)",
         use(row_.sequence), use(row_.id), use(row_.account), use(row_.key_id), use(row_.tier),
         use(row_.priority), use(row_.model), use(row_.job_class), use(row_.work),
         use(row_.request), use(row_.status), use(row_.created_at), use(row_.queued_at),
         use(row_.expires_at), use(row_.last_event));
    update_job_ =
        (sql_.prepare
             << "update jobs set status = :a, attempt = :b, crashes = :c, failures = :d, "
                "cancel_requested = :e, dead_letter = :f, worker = :g, "
                "queued_at = case when :t = 0 then :u else queued_at end, not_before = :h, "
                "expires_at = :s, started_at = :i, finished_at = :j, last_event = :k, "
                "result = :l, error_code = :m, "
                "error_message = :n, error_retryable = :o "
                "where sequence = :p and status = :q and attempt = :r",
         use(row_.status), use(row_.attempt), use(row_.crashes), use(row_.failures),
         use(row_.cancel_requested), use(row_.dead_letter), use(row_.worker), use(row_.status),
         use(row_.queued_at), use(row_.not_before), use(row_.expires_at), use(row_.started_at),
         use(row_.finished_at), use(row_.last_event), use(row_.result), use(row_.error_code),
         use(row_.error_message), use(row_.error_retryable), use(row_.sequence), use(from_status_),
         use(from_attempt_));
    insert_event_ =
        (sql_.prepare << "insert into job_events (sequence, event_id, type, data, "
                         "created_at) values (:a, :b, :c, :d, :e)",
         use(row_.sequence), use(event_id_), use(event_type_), use(event_data_), use(at_));
    insert_outbox_ = (sql_.prepare << "insert into job_outbox (id, job_id, event_id, type, "
                                      "created_at) values (:a, :b, :c, :d, :e)",
                      use(next_.outbox), use(row_.id), use(event_id_), use(event_type_), use(at_));
  }

  Written apply(const Submission& submission) {
    if (submission.idempotency) {
      const std::optional<Written> known = replay(sql_, *submission.idempotency);
      if (known) return *known;
    }
    row_ = to_row(submission.job);
    row_.sequence = next_.sequence++;
    row_.last_event = 1;
    insert_job_.execute(true);
    contract::JobEvent queued;
    queued.id = 1;
    queued.type = "status";
    queued.data = contract::name(contract::JobStatus::kQueued);
    queued.at = submission.job.created_at;
    add_event(queued, true);
    if (submission.idempotency) {
      const Idempotency& key = *submission.idempotency;
      sql_ << "insert into idempotency_keys (scope, name, fingerprint, job_id, created_at) "
              "values (:a, :b, :c, :d, :e)",
          use(key.scope), use(key.key), use(key.fingerprint), use(row_.id), use(row_.created_at);
    }
    return {Written::Kind::kDone, row_.sequence, row_.id};
  }

  Written apply(const Transition& to) {
    row_.sequence = to.sequence;
    from_status_ = static_cast<int>(to.from);
    from_attempt_ = to.from_attempt;
    row_.status = static_cast<int>(to.status);
    row_.attempt = to.attempt;
    row_.crashes = to.crashes;
    row_.failures = to.failures;
    row_.cancel_requested = to.cancel_requested;
    row_.dead_letter = to.dead_letter;
    row_.worker = to.worker;
    row_.queued_at = to.event.at;  // where it is queued from now on
    row_.not_before = to.not_before;
    row_.expires_at = to.expires_at;
    row_.started_at = to.started_at;
    row_.finished_at = to.finished_at;
    row_.last_event = to.event.id;
    row_.result = to.result;
    row_.set_error(to.error);
    update_job_.execute(true);
    if (update_job_.get_affected_rows() == 0) return {Written::Kind::kLate, to.sequence, ""};
    row_.id = to.event.job_id;
    add_event(to.event, to.tell);
    if (to.usage) add_usage(to);
    add_act(to.act, to.event.at);
    return {Written::Kind::kDone, to.sequence, ""};
  }

  Written apply(const Erasure& erasure) {
    const long long sequence = erasure.sequence;
    for (const std::string& object : erasure.objects) {
      sql_ << "insert into object_removals (job_id, account, object) select id, account, :a "
              "from jobs where sequence = :b and status >= 2",
          use(object), use(sequence);
    }
    sql_ << "delete from job_events where sequence = :a and sequence in "
            "(select sequence from jobs where status >= 2)",
        use(sequence);
    soci::statement erase =
        (sql_.prepare << "delete from jobs where sequence = :a and status >= 2", use(sequence));
    erase.execute(true);
    if (erase.get_affected_rows() == 0) return {Written::Kind::kLate, sequence, ""};
    add_act(erasure.act, erasure.at);
    return {Written::Kind::kDone, sequence, ""};
  }

  Written apply(const Setting& setting) {
    sql_ << "delete from queue_settings where name = :a", use(setting.name);
    sql_ << "insert into queue_settings (name, value) values (:a, :b)", use(setting.name),
        use(setting.value);
    add_act(setting.act, setting.at);
    return {};
  }

  void add_act(const std::optional<platform::AuditAct>& act, std::int64_t at) {
    if (act) platform::append_audit(sql_, *act, platform::Millis{at});
  }

  void add_event(const contract::JobEvent& event, bool tell) {
    event_id_ = event.id;
    event_type_ = event.type;
    event_data_ = event.data;
    at_ = event.at;
    insert_event_.execute(true);
    if (!tell) return;
    if (event.type == "status") event_type_ = event.data;
    insert_outbox_.execute(true);
    ++next_.outbox;
  }

  void add_usage(const Transition& to) {
    const contract::Usage& usage = *to.usage;
    const long long images = usage.images, steps = usage.steps, pixels = usage.pixels,
                    sequence = to.sequence, at = to.finished_at;
    sql_
        << "insert into job_usage (job_id, attempt, account, key_id, tier, model, job_class, work, "
           "images, steps, pixels, seconds, created_at) select id, attempt, account, key_id, tier, "
           "model, job_class, work, :a, :b, :c, :d, :e from jobs where sequence = :f",
        use(images), use(steps), use(pixels), use(usage.seconds), use(at), use(sequence);
  }

 public:
  static std::optional<Written> replay(soci::session& sql, const Idempotency& key) {
    std::string fingerprint, id;
    sql << "select fingerprint, job_id from idempotency_keys where scope = :a and name = :b",
        use(key.scope), use(key.key), into(fingerprint), into(id);
    if (!sql.got_data()) return std::nullopt;
    const bool same = fingerprint == key.fingerprint;
    return Written{same ? Written::Kind::kReplayed : Written::Kind::kConflict, 0, id};
  }

 private:
  Database database_;
  soci::session& sql_;
  NextIds next_;
  Row row_;  // what the statements bind, with the fields below
  int from_status_ = 0, from_attempt_ = 0;
  long long event_id_ = 0, at_ = 0;
  std::string event_type_, event_data_;
  soci::statement insert_job_{sql_}, update_job_{sql_}, insert_event_{sql_}, insert_outbox_{sql_};
};

class SqlStore : public Store {
 public:
  explicit SqlStore(std::filesystem::path file)
      : file_(std::move(file)),
        writer_(std::make_unique<Writer>(file_, NextIds{})),
        reader_(Database::sqlite(file_, Database::Access::kReadOnly)) {}

  Result<std::vector<Written>> write(std::span<const Change> changes) override {
    return writing<std::vector<Written>>([&](Writer& writer) { return writer.write(changes); });
  }

  Result<void> outbox_told(std::int64_t up_to) override {
    return written([&](Writer& writer) { writer.outbox_told(up_to); });
  }

  Result<void> sweep(std::int64_t keys_before, std::int64_t jobs_before) override {
    return written([&](Writer& writer) { writer.sweep(keys_before, jobs_before); });
  }

  Result<std::optional<Job>> find(const std::string& id) override {
    return one_job("id = :id", id);
  }

  Result<std::optional<Job>> find(std::int64_t sequence) override {
    return one_job("sequence = :sequence", static_cast<long long>(sequence));
  }

  Result<std::vector<Job>> list(const ListQuery& query) override {
    return reading<std::vector<Job>>([&](soci::session& sql) {
      const int low = query.status ? static_cast<int>(*query.status) : 0;
      const int high = query.status ? low : 100;
      const long long before = query.before;
      const int limit = static_cast<int>(query.limit);
      Row row;
      soci::statement select =
          (into_row(sql.prepare << "select " << kColumns << ", '', '' from jobs where account = :a "
                                << "and sequence < :b and status >= :c and status <= :d "
                                << "order by sequence desc limit :e",
                    row),
           use(query.account), use(before), use(low), use(high), use(limit));
      std::vector<Job> jobs;
      for (bool more = select.execute(true); more; more = select.fetch()) {
        jobs.push_back(to_job(row));
      }
      return jobs;
    });
  }

  Result<ObjectUse> object_use(const std::string& account, const std::string& object,
                               std::int64_t stored_at) override {
    return reading<ObjectUse>([&](soci::session& sql) {
      const std::string pattern = "%" + object + "%";
      const long long stored = stored_at;
      int shown = 0, running = 0;
      // One statement, so that a job which ends at this moment is seen as one or as the other.
      sql << "select coalesce(max(case when status = 1 then 0 else 1 end), 0), "
             "coalesce(max(case when status = 1 then 1 else 0 end), 0) from jobs "
             "where account = :a and (result like :b or (status = 1 and started_at <= :c))",
          use(account), use(pattern), use(stored), into(shown), into(running);
      return ObjectUse{shown > 0, running > 0};
    });
  }

  Result<std::vector<Removal>> removals(const std::string& job_id, std::size_t limit) override {
    return reading<std::vector<Removal>>([&](soci::session& sql) {
      Removal row;
      const int most = static_cast<int>(limit);
      soci::statement select =
          (sql.prepare << "select job_id, account, object from object_removals "
                          "where :a = '' or job_id = :b order by job_id, object limit :c",
           use(job_id), use(job_id), use(most), into(row.job_id), into(row.account),
           into(row.object));
      std::vector<Removal> rows;
      for (bool more = select.execute(true); more; more = select.fetch()) rows.push_back(row);
      return rows;
    });
  }

  Result<void> removed(const Removal& removal) override {
    return written([&](Writer& writer) { writer.removed(removal); });
  }

  Result<std::optional<Written>> replay(const Idempotency& key) override {
    return reading<std::optional<Written>>(
        [&](soci::session& sql) { return Writer::replay(sql, key); });
  }

  Result<std::vector<contract::JobEvent>> events(const std::string& id,
                                                 std::int64_t after) override {
    return reading<std::vector<contract::JobEvent>>([&](soci::session& sql) {
      contract::JobEvent event;
      long long event_id = 0, at = 0;
      const long long first = after;
      soci::statement select =
          (sql.prepare << "select e.event_id, e.type, e.data, e.created_at from job_events e "
                          "join jobs j on j.sequence = e.sequence where j.id = :a and "
                          "e.event_id > :b order by e.event_id",
           use(id), use(first), into(event_id), into(event.type), into(event.data), into(at));
      std::vector<contract::JobEvent> events;
      for (bool more = select.execute(true); more; more = select.fetch()) {
        event.job_id = id;
        event.id = event_id;
        event.at = at;
        events.push_back(event);
      }
      return events;
    });
  }

  Result<void> each_open(const std::function<void(const Job&)>& take) override {
    const auto done = reading<bool>([&](soci::session& sql) {
      Row row;
      soci::statement select =
          into_row(sql.prepare << "select " << kColumns
                               << ", '', '' from jobs where status < 2 order by sequence",
                   row);
      for (bool more = select.execute(true); more; more = select.fetch()) take(to_job(row));
      return true;
    });
    if (!done.ok()) return done.error();
    return {};
  }

  Result<std::string> setting(const std::string& name) override {
    return reading<std::string>([&](soci::session& sql) {
      std::string value;
      sql << "select value from queue_settings where name = :a", use(name), into(value);
      return value;
    });
  }

  Result<std::vector<OutboxRow>> outbox(std::int64_t after, std::size_t limit) override {
    return reading<std::vector<OutboxRow>>([&](soci::session& sql) {
      OutboxRow row;
      long long id = 0, event_id = 0, at = 0;
      const long long first = after;
      const int most = static_cast<int>(limit);
      soci::statement select =
          (sql.prepare << "select id, job_id, event_id, type, created_at from job_outbox "
                          "where id > :a order by id limit :b",
           use(first), use(most), into(id), into(row.job_id), into(event_id), into(row.type),
           into(at));
      std::vector<OutboxRow> rows;
      for (bool more = select.execute(true); more; more = select.fetch()) {
        rows.push_back({id, row.job_id, event_id, row.type, at});
      }
      return rows;
    });
  }

  Result<std::vector<UsageRow>> usage(std::int64_t since, std::size_t limit) override {
    return reading<std::vector<UsageRow>>(
        [&](soci::session& sql) { return read_usage(sql, since, limit); });
  }

  Result<std::vector<UsageSum>> usage_sums(const UsageQuery& query) override {
    return reading<std::vector<UsageSum>>(
        [&](soci::session& sql) { return read_usage_sums(sql, query); });
  }

  Result<std::int64_t> images_since(const std::string& account, std::int64_t since) override {
    return reading<std::int64_t>(
        [&](soci::session& sql) { return read_images_since(sql, account, since); });
  }

 private:
  template <typename Value, typename Read>
  Result<Value> reading(const Read& read) {
    const std::lock_guard lock(read_mutex_);
    try {
      return read(reader_.session());
    } catch (const soci::soci_error& error) {
      return platform::database_failure("[queue.store] reading", error).error();
    } catch (const Failure& failure) {
      return failure.error();
    }
  }

  template <typename Value, typename Write>
  Result<Value> writing(const Write& write) {
    const std::lock_guard lock(write_mutex_);
    try {
      if (!writer_) writer_ = std::make_unique<Writer>(file_, next_);
      auto value = write(*writer_);
      next_ = writer_->next();
      return value;
    } catch (const soci::soci_error& error) {
      // What a failed sync left behind is known only to a connection that reads the log again.
      writer_.reset();
      return platform::database_failure("[queue.store] writing", error).error();
    } catch (const Failure& failure) {
      writer_.reset();
      return failure.error();
    }
  }

  template <typename Write>
  Result<void> written(const Write& write) {
    const auto done = writing<bool>([&](Writer& writer) {
      write(writer);
      return true;
    });
    if (!done.ok()) return done.error();
    return {};
  }

  template <typename Key>
  Result<std::optional<Job>> one_job(const char* where, const Key& key) {
    return reading<std::optional<Job>>([&](soci::session& sql) -> std::optional<Job> {
      Row row;
      soci::statement select =
          (into_row(sql.prepare << "select " << kColumns << ", request, result from jobs where "
                                << where,
                    row),
           use(key));
      if (!select.execute(true)) return std::nullopt;
      return to_job(row);
    });
  }

  const std::filesystem::path file_;
  std::mutex write_mutex_, read_mutex_;
  NextIds next_;                    // by write_mutex_
  std::unique_ptr<Writer> writer_;  // by write_mutex_; empty after a failure
  Database reader_;                 // by read_mutex_
};

}  // namespace

Result<std::unique_ptr<Store>> open_sqlite_store(const std::filesystem::path& file) {
  try {
    return std::unique_ptr<Store>(std::make_unique<SqlStore>(file));
  } catch (const Failure& failure) {
    return failure.error();
  } catch (const soci::soci_error& error) {
    return platform::database_failure("[queue.store] opening", error).error();
  }
}

}  // namespace limner::queue
