// The rows behind WebhookStore, and the statements that read and write them.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "delivery/webhook_store.h"
#include "platform/database.h"

namespace limner::delivery {

// Throws Failure and soci::soci_error; what changes several rows wants a Transaction around it.
// Used by one thread at a time.
class WebhookTables {
 public:
  struct Endpoint {
    long long number = 0;
    bool disabled = false;
  };
  // Whom a message belongs to, beside what a DeliveryView says.
  struct Row {
    DeliveryView view{};
    std::string account{};
    std::string secret{};  // of the endpoint; "": the account's sign
  };

  explicit WebhookTables(const std::filesystem::path& file);
  soci::session& session() { return sql_; }

  // Makes what is not there yet.
  Endpoint endpoint(const std::string& account, const std::string& url, const std::string& secret);
  void enable(long long endpoint);
  // And fails what waits for it.
  void disable(long long endpoint, Time now);
  bool disabled(long long endpoint);

  bool has_delivery(const std::string& id);
  void insert(const NewDelivery& delivery, const Endpoint& endpoint, Time now);
  void update(const WebhookDelivery& delivery, Time now);
  // The wait of every pending row ends as much later.
  void move_due(std::chrono::milliseconds by);
  // Pending rows due at `now` of enabled endpoints, oldest first; none of the `busy` ones. So is
  // one that would wait longer than anything does: the clock was set back while nobody looked.
  std::vector<Row> due(Time now, const std::vector<std::string>& busy, std::size_t limit);
  std::optional<Row> find(const std::string& account, const std::string& id);
  std::vector<DeliveryView> list(const DeliveryQuery& query);  // without bodies

  // Those that sign at `now`, newest first.
  std::vector<std::string> secrets(const std::string& account, Time now);
  void insert_secret(const std::string& account, const std::string& secret, Time now);
  void retire_secrets(const std::string& account, Time when);  // those that have no end yet

  std::optional<AccountEndpoint> account_endpoint(const std::string& account);
  void set_account_endpoint(const std::string& account, const AccountEndpoint& endpoint);
  void remove_account_endpoint(const std::string& account);

  std::size_t sweep(Time before, Time now);

 private:
  long long next(const char* table, const char* column);

  platform::Database database_;
  soci::session& sql_;
};

}  // namespace limner::delivery
