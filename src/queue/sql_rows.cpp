#include "queue/sql_rows.h"

namespace limner::queue {
namespace {

using contract::Job;
using soci::into;

// The same text for SQLite and PostgreSQL. Booleans are integers, times milliseconds since 1970.
constexpr std::string_view kSchema[] = {
    "create table jobs (sequence bigint primary key, id varchar(64) not null unique, "
    "account varchar(255) not null, key_id varchar(255) not null, tier integer not null, "
    "priority integer not null, model text not null, job_class text not null, "
    "work double precision not null, request text not null, status integer not null, "
    "attempt integer not null, crashes integer not null, failures integer not null, "
    "cancel_requested integer not null, dead_letter integer not null, worker text not null, "
    "created_at bigint not null, not_before bigint not null, expires_at bigint not null, "
    "started_at bigint not null, finished_at bigint not null, last_event bigint not null, "
    "result text not null, error_code integer not null, error_message text not null, "
    "error_retryable integer not null)",
    "create index jobs_by_account on jobs (account, sequence)",
    "create index jobs_open on jobs (sequence) where status < 2",
    "create table idempotency_keys (scope varchar(512) not null, name varchar(255) not null, "
    "fingerprint varchar(128) not null, job_id varchar(64) not null, created_at bigint not null, "
    "primary key (scope, name))",
    "create table job_events (sequence bigint not null, event_id bigint not null, "
    "type varchar(32) not null, data text not null, created_at bigint not null, "
    "primary key (sequence, event_id))",
    "create table job_outbox (id bigint primary key, job_id varchar(64) not null, "
    "event_id bigint not null, type varchar(32) not null, created_at bigint not null)",
    "create table job_usage (job_id varchar(64) not null, attempt integer not null, "
    "account varchar(255) not null, key_id varchar(255) not null, tier integer not null, "
    "model text not null, job_class text not null, work double precision not null, "
    "images bigint not null, steps bigint not null, pixels bigint not null, "
    "seconds double precision not null, created_at bigint not null, primary key (job_id, attempt))",
    "create index job_usage_by_time on job_usage (created_at)",
    "create table queue_settings (name varchar(64) primary key, value text not null)",
    "create index job_usage_by_account on job_usage (account, created_at)",
    "alter table jobs add column queued_at bigint not null default 0",
    "update jobs set queued_at = created_at",
    "create table object_removals (job_id varchar(64) not null, account varchar(255) not null, "
    "object varchar(512) not null, primary key (job_id, object))",
};

constexpr int kNoErrorCode = -1;

}  // namespace

std::span<const std::string_view> queue_schema() {
  return kSchema;
}

void Row::set_error(const std::optional<Error>& error) {
  error_code = error ? static_cast<int>(error->code) : kNoErrorCode;
  error_message = error ? error->message : std::string();
  error_retryable = error && error->retryable ? 1 : 0;
}

Row to_row(const Job& job) {
  Row row;
  row.sequence = job.sequence;
  row.id = job.id;
  row.account = job.account;
  row.key_id = job.key_id;
  row.tier = static_cast<int>(job.tier);
  row.priority = job.priority;
  row.model = job.model;
  row.job_class = job.job_class;
  row.work = job.work;
  row.request = job.request;
  row.status = static_cast<int>(job.status);
  row.created_at = row.queued_at = job.created_at;
  row.expires_at = job.expires_at;
  row.last_event = job.last_event;
  return row;
}

Job to_job(const Row& row) {
  Job job;
  job.sequence = row.sequence;
  job.id = row.id;
  job.account = row.account;
  job.key_id = row.key_id;
  job.tier = static_cast<contract::Tier>(row.tier);
  job.priority = row.priority;
  job.model = row.model;
  job.job_class = row.job_class;
  job.work = row.work;
  job.request = row.request;
  job.status = static_cast<contract::JobStatus>(row.status);
  job.attempt = row.attempt;
  job.crashes = row.crashes;
  job.failures = row.failures;
  job.cancel_requested = row.cancel_requested != 0;
  job.dead_letter = row.dead_letter != 0;
  job.worker = row.worker;
  job.created_at = row.created_at;
  job.queued_at = row.queued_at;
  job.not_before = row.not_before;
  job.expires_at = row.expires_at;
  job.started_at = row.started_at;
  job.finished_at = row.finished_at;
  job.last_event = row.last_event;
  job.result = row.result;
  if (row.error_code != kNoErrorCode) {
    job.error =
        Error{static_cast<ErrorCode>(row.error_code), row.error_message, row.error_retryable != 0};
  }
  return job;
}

// The order of the columns below.
soci::details::prepare_temp_type into_row(soci::details::prepare_temp_type prepared, Row& r) {
  return (prepared, into(r.sequence), into(r.id), into(r.account), into(r.key_id), into(r.tier),
          into(r.priority), into(r.model), into(r.job_class), into(r.work), into(r.status),
          into(r.attempt), into(r.crashes), into(r.failures), into(r.cancel_requested),
          into(r.dead_letter), into(r.worker), into(r.created_at), into(r.queued_at),
          into(r.not_before), into(r.expires_at), into(r.started_at), into(r.finished_at),
          into(r.last_event), into(r.error_code), into(r.error_message), into(r.error_retryable),
          into(r.request), into(r.result));
}

const char* const kColumns =
    "sequence, id, account, key_id, tier, priority, model, job_class, work, status, attempt, "
    "crashes, failures, cancel_requested, dead_letter, worker, created_at, queued_at, not_before, "
    "expires_at, started_at, finished_at, last_event, error_code, error_message, error_retryable";

}  // namespace limner::queue
