#include "delivery/webhook_tables.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace limner::delivery {
namespace {

using soci::into;
using soci::use;

// The same text for SQLite and PostgreSQL. Times are milliseconds since 1970; 0 is never.
constexpr std::string_view kSchema[] = {
    "create table webhook_endpoints (number bigint primary key, account varchar(255) not null, "
    "url text not null, secret text not null, disabled integer not null, "
    "unique (account, url, secret))",
    "create table webhook_accounts (account varchar(255) primary key, url text not null, "
    "events text not null)",
    "create table webhook_secrets (number bigint primary key, account varchar(255) not null, "
    "secret text not null, created_at bigint not null, retires_at bigint not null)",
    "create index webhook_secrets_by_account on webhook_secrets (account)",
    "create table webhook_deliveries (sequence bigint primary key, "
    "id varchar(64) not null unique, endpoint bigint not null, account varchar(255) not null, "
    "job_id varchar(64) not null, event varchar(64) not null, body text not null, "
    "state integer not null, attempts integer not null, due bigint not null, "
    "last_status integer not null, last_error text not null, created_at bigint not null, "
    "ended_at bigint not null)",
    "create index webhook_deliveries_due on webhook_deliveries (due) where state = 0",
    "create index webhook_deliveries_by_account on webhook_deliveries (account, sequence)",
    "create index webhook_deliveries_by_endpoint on webhook_deliveries (endpoint)",
    "alter table webhook_deliveries add column traceparent varchar(64) not null default ''",
};

// The schedule's last wait is 24 hours and a tenth at most; no Retry-After is obeyed for longer.
constexpr std::chrono::hours kLongestWait{27};

constexpr const char* kDisabled = "the endpoint is disabled";

long long millis(Time time) {
  return std::chrono::floor<std::chrono::milliseconds>(time).time_since_epoch().count();
}

Time time_of(long long millis) {
  return Time(std::chrono::milliseconds(millis));
}

// What a select of deliveries binds.
struct Columns {
  long long sequence = 0, endpoint = 0, due = 0, created_at = 0;
  std::string id, url, body, last_error, job_id, event, account, secret, traceparent;
  int state = 0, attempts = 0, last_status = 0;

  static std::string select(bool with_body, std::string_view where) {
    return fmt::format(
        "select d.sequence, d.id, d.endpoint, e.url, {}, d.state, d.attempts, d.due, "
        "d.last_status, d.last_error, d.job_id, d.event, d.created_at, d.account, e.secret, "
        "d.traceparent "
        "from webhook_deliveries d join webhook_endpoints e on e.number = d.endpoint where {}",
        with_body ? "d.body" : "''", where);
  }
  soci::details::prepare_temp_type bind(soci::details::prepare_temp_type prepared) {
    return (prepared, into(sequence), into(id), into(endpoint), into(url), into(body), into(state),
            into(attempts), into(due), into(last_status), into(last_error), into(job_id),
            into(event), into(created_at), into(account), into(secret), into(traceparent));
  }
  WebhookTables::Row row() const {
    WebhookDelivery delivery{.id = id,
                             .endpoint = std::to_string(endpoint),
                             .url = url,
                             .body = body,
                             .state = static_cast<DeliveryState>(state),
                             .attempts = attempts,
                             .due = time_of(due),
                             .last_status = last_status,
                             .last_error = last_error,
                             .traceparent = traceparent};
    return {{sequence, std::move(delivery), job_id, event, time_of(created_at)}, account, secret};
  }
};

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

platform::Database opened(const std::filesystem::path& file) {
  auto database = platform::Database::sqlite(file);
  platform::migrate_audit(database);
  database.migrate("webhooks", kSchema);
  return database;
}

}  // namespace

WebhookTables::WebhookTables(const std::filesystem::path& file)
    : database_(opened(file)), sql_(database_.session()) {}

long long WebhookTables::next(const char* table, const char* column) {
  long long number = 0;
  sql_ << fmt::format("select coalesce(max({}), 0) + 1 from {}", column, table), into(number);
  return number;
}

WebhookTables::Endpoint WebhookTables::endpoint(const std::string& account, const std::string& url,
                                                const std::string& secret) {
  Endpoint endpoint;
  int off = 0;
  sql_ << "select number, disabled from webhook_endpoints where account = :a and url = :b and "
          "secret = :c",
      use(account), use(url), use(secret), into(endpoint.number), into(off);
  endpoint.disabled = off != 0;
  if (sql_.got_data()) return endpoint;
  endpoint.number = next("webhook_endpoints", "number");
  sql_ << "insert into webhook_endpoints (number, account, url, secret, disabled) "
          "values (:a, :b, :c, :d, 0)",
      use(endpoint.number), use(account), use(url), use(secret);
  return {endpoint.number, false};
}

void WebhookTables::enable(long long endpoint) {
  sql_ << "update webhook_endpoints set disabled = 0 where number = :a", use(endpoint);
}

void WebhookTables::disable(long long endpoint, Time now) {
  const std::string why = kDisabled;
  const long long at = millis(now);
  sql_ << "update webhook_endpoints set disabled = 1 where number = :a", use(endpoint);
  sql_ << "update webhook_deliveries set state = 2, last_error = :a, ended_at = :b "
          "where endpoint = :c and state = 0",
      use(why), use(at), use(endpoint);
}

bool WebhookTables::disabled(long long endpoint) {
  int off = 0;
  sql_ << "select disabled from webhook_endpoints where number = :a", use(endpoint), into(off);
  return off != 0;
}

bool WebhookTables::has_delivery(const std::string& id) {
  int there = 0;
  sql_ << "select count(*) from webhook_deliveries where id = :a", use(id), into(there);
  return there != 0;
}

void WebhookTables::insert(const NewDelivery& delivery, const Endpoint& endpoint, Time now) {
  const long long sequence = next("webhook_deliveries", "sequence"), at = millis(now);
  const int state = endpoint.disabled ? 2 : 0;
  const std::string error = endpoint.disabled ? kDisabled : "";
  const long long ended_at = endpoint.disabled ? at : 0;
  sql_ << "insert into webhook_deliveries (sequence, id, endpoint, account, job_id, event, body, "
          "state, attempts, due, last_status, last_error, created_at, ended_at, "
          "traceparent) values (:a, :b, :c, :d, :e, :f, :g, :h, 0, :i, 0, :j, :k, :l, :m)",
      use(sequence), use(delivery.id), use(endpoint.number), use(delivery.account),
      use(delivery.job_id), use(delivery.event), use(delivery.body), use(state), use(at),
      use(error), use(at), use(ended_at), use(delivery.traceparent);
}

void WebhookTables::update(const WebhookDelivery& delivery, Time now) {
  const int state = static_cast<int>(delivery.state);
  const long long due = millis(delivery.due);
  const long long ended_at = delivery.state == DeliveryState::kPending ? 0 : millis(now);
  sql_ << "update webhook_deliveries set state = :a, attempts = :b, due = :c, last_status = :d, "
          "last_error = :e, ended_at = :f where id = :g",
      use(state), use(delivery.attempts), use(due), use(delivery.last_status),
      use(delivery.last_error), use(ended_at), use(delivery.id);
}

void WebhookTables::move_due(std::chrono::milliseconds by) {
  const long long milliseconds = by.count();
  sql_ << "update webhook_deliveries set due = due + :a where state = 0", use(milliseconds);
}

std::vector<WebhookTables::Row> WebhookTables::due(Time now, const std::vector<std::string>& busy,
                                                   std::size_t limit) {
  const long long at = millis(now), latest = millis(now + kLongestWait);
  const int most = static_cast<int>(limit);
  // Endpoints are numbers of our own, so that they can stand in the text.
  const std::string where = fmt::format(
      "d.state = 0 and (d.due <= :a or d.due > :b) and e.disabled = 0 and d.endpoint not in ({}) "
      "order by d.due, d.sequence limit :c",
      fmt::join(busy, ", "));
  Columns columns;
  soci::statement select =
      (columns.bind(sql_.prepare << Columns::select(true, where)), use(at), use(latest), use(most));
  std::vector<Row> rows;
  for (bool more = select.execute(true); more; more = select.fetch()) rows.push_back(columns.row());
  return rows;
}

std::optional<WebhookTables::Row> WebhookTables::find(const std::string& account,
                                                      const std::string& id) {
  Columns columns;
  soci::statement select =
      (columns.bind(sql_.prepare << Columns::select(true, "d.account = :a and d.id = :b")),
       use(account), use(id));
  if (!select.execute(true)) return std::nullopt;
  return columns.row();
}

std::vector<DeliveryView> WebhookTables::list(const DeliveryQuery& query) {
  const int low = query.state ? static_cast<int>(*query.state) : 0;
  const int high = query.state ? low : 100;
  const long long before = query.before;
  const int limit = static_cast<int>(query.limit);
  Columns columns;
  soci::statement select =
      (columns.bind(sql_.prepare << Columns::select(
                        false,
                        "d.account = :a and d.sequence < :b and d.state >= :c and d.state <= :d "
                        "order by d.sequence desc limit :e")),
       use(query.account), use(before), use(low), use(high), use(limit));
  std::vector<DeliveryView> views;
  for (bool more = select.execute(true); more; more = select.fetch()) {
    views.push_back(columns.row().view);
  }
  return views;
}

std::vector<std::string> WebhookTables::secrets(const std::string& account, Time now) {
  const long long at = millis(now);
  std::string secret;
  soci::statement select =
      (sql_.prepare << "select secret from webhook_secrets where account = :a and "
                       "(retires_at = 0 or retires_at > :b) order by number desc",
       use(account), use(at), into(secret));
  std::vector<std::string> secrets;
  for (bool more = select.execute(true); more; more = select.fetch()) secrets.push_back(secret);
  return secrets;
}

void WebhookTables::insert_secret(const std::string& account, const std::string& secret, Time now) {
  const long long number = next("webhook_secrets", "number"), at = millis(now);
  sql_ << "insert into webhook_secrets (number, account, secret, created_at, retires_at) "
          "values (:a, :b, :c, :d, 0)",
      use(number), use(account), use(secret), use(at);
}

void WebhookTables::retire_secrets(const std::string& account, Time when) {
  const long long at = millis(when);
  sql_ << "update webhook_secrets set retires_at = :a where account = :b and retires_at = 0",
      use(at), use(account);
}

std::optional<AccountEndpoint> WebhookTables::account_endpoint(const std::string& account) {
  std::string url, events;
  sql_ << "select url, events from webhook_accounts where account = :a", use(account), into(url),
      into(events);
  if (!sql_.got_data()) return std::nullopt;
  int off = 0;
  sql_ << "select disabled from webhook_endpoints where account = :a and url = :b and secret = ''",
      use(account), use(url), into(off);
  return AccountEndpoint{url, split(events), off != 0};
}

void WebhookTables::set_account_endpoint(const std::string& account,
                                         const AccountEndpoint& endpoint_set) {
  const std::string events = fmt::format("{}", fmt::join(endpoint_set.events, ","));
  remove_account_endpoint(account);
  sql_ << "insert into webhook_accounts (account, url, events) values (:a, :b, :c)", use(account),
      use(endpoint_set.url), use(events);
  enable(endpoint(account, endpoint_set.url, "").number);
}

void WebhookTables::remove_account_endpoint(const std::string& account) {
  sql_ << "delete from webhook_accounts where account = :a", use(account);
}

std::size_t WebhookTables::sweep(Time before, Time now) {
  const long long ended = millis(before), at = millis(now);
  soci::statement drop =
      (sql_.prepare << "delete from webhook_deliveries where state <> 0 and ended_at < :a",
       use(ended));
  drop.execute(true);
  const auto dropped = static_cast<std::size_t>(drop.get_affected_rows());
  sql_ << "delete from webhook_endpoints where number not in "
          "(select endpoint from webhook_deliveries) and not exists (select 1 from "
          "webhook_accounts a where a.account = webhook_endpoints.account and "
          "a.url = webhook_endpoints.url and webhook_endpoints.secret = '')";
  sql_ << "delete from webhook_secrets where retires_at <> 0 and retires_at <= :a", use(at);
  return dropped;
}

}  // namespace limner::delivery
