// Rows of the table `jobs`, in types that SOCI knows.
#pragma once

#include <soci/soci.h>

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "contract/job.h"

namespace limner::queue {

// The steps that make the queue's tables, for Database::migrate.
std::span<const std::string_view> queue_schema();

// What a statement binds.
struct Row {
  long long sequence = 0, created_at = 0, queued_at = 0, not_before = 0, expires_at = 0,
            started_at = 0, finished_at = 0, last_event = 0;
  std::string id, account, key_id, model, job_class, request, worker, result, error_message;
  int tier = 0, priority = 0, status = 0, attempt = 0, crashes = 0, failures = 0,
      cancel_requested = 0, dead_letter = 0, error_code = -1, error_retryable = 0;
  double work = 0.0;

  void set_error(const std::optional<Error>& error);  // absent: code -1
};

Row to_row(const contract::Job& job);  // of a new job
contract::Job to_job(const Row& row);

// What into_row() fills, but for the last two: the request and the result.
extern const char* const kColumns;
soci::details::prepare_temp_type into_row(soci::details::prepare_temp_type prepared, Row& row);

}  // namespace limner::queue
