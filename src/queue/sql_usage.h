// Reading the table `job_usage`. Functions may throw soci::soci_error.
#pragma once

#include <soci/soci.h>

#include <cstdint>
#include <string>
#include <vector>

#include "queue/store.h"

namespace limner::queue {

std::vector<UsageRow> read_usage(soci::session& sql, std::int64_t since, std::size_t limit);
std::vector<UsageSum> read_usage_sums(soci::session& sql, const UsageQuery& query);
std::int64_t read_images_since(soci::session& sql, const std::string& account, std::int64_t since);

}  // namespace limner::queue
