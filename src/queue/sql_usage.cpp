#include "queue/sql_usage.h"

namespace limner::queue {

using soci::into;
using soci::use;

std::vector<UsageRow> read_usage(soci::session& sql, std::int64_t since, std::size_t limit) {
  UsageRow row;
  long long images = 0, steps = 0, pixels = 0, at = 0;
  int tier = 0;
  const long long first = since, most = static_cast<long long>(limit);
  soci::statement select =
      (sql.prepare << "select job_id, account, key_id, model, job_class, tier, work, images, "
                      "steps, pixels, seconds, created_at from job_usage "
                      "where created_at >= :a order by created_at desc limit :b",
       use(first), use(most), into(row.job_id), into(row.account), into(row.key_id),
       into(row.model), into(row.job_class), into(tier), into(row.work), into(images), into(steps),
       into(pixels), into(row.usage.seconds), into(at));
  std::vector<UsageRow> rows;
  for (bool more = select.execute(true); more; more = select.fetch()) {
    row.tier = static_cast<contract::Tier>(tier);
    row.usage.images = images;
    row.usage.steps = steps;
    row.usage.pixels = pixels;
    row.at = at;
    rows.push_back(row);
  }
  return rows;
}

std::vector<UsageSum> read_usage_sums(soci::session& sql, const UsageQuery& query) {
  UsageSum sum;
  long long day = 0, jobs = 0, images = 0, steps = 0, pixels = 0;
  int tier = 0;
  const long long since = query.since, before = query.before,
                  most = static_cast<long long>(query.limit);
  soci::statement select =
      (sql.prepare << "select created_at / 86400000 as usage_day, account, key_id, model, "
                      "tier, count(*), sum(images), sum(steps), sum(pixels), sum(seconds) "
                      "from job_usage where created_at >= :a and created_at < :b "
                      "and (:c = '' or account = :d) "
                      "group by usage_day, account, key_id, model, tier "
                      "order by usage_day desc, account, key_id, model, tier limit :e",
       use(since), use(before), use(query.account), use(query.account), use(most), into(day),
       into(sum.account), into(sum.key_id), into(sum.model), into(tier), into(jobs), into(images),
       into(steps), into(pixels), into(sum.usage.seconds));
  std::vector<UsageSum> sums;
  for (bool more = select.execute(true); more; more = select.fetch()) {
    sum.day = day;
    sum.tier = static_cast<contract::Tier>(tier);
    sum.jobs = jobs;
    sum.usage.images = images;
    sum.usage.steps = steps;
    sum.usage.pixels = pixels;
    sums.push_back(sum);
  }
  return sums;
}

std::int64_t read_images_since(soci::session& sql, const std::string& account, std::int64_t since) {
  long long images = 0;
  const long long first = since;
  sql << "select coalesce(sum(images), 0) from job_usage where account = :a and created_at >= :b",
      use(account), use(first), into(images);
  return images;
}

}  // namespace limner::queue
