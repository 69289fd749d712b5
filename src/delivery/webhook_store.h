// WebhookStore: endpoints, their secrets and the messages for them, in the service's database.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "delivery/webhook_sender.h"
#include "platform/audit/audit_log.h"

namespace limner::delivery {

// An account's own endpoint: where messages go when a request names no URL.
struct AccountEndpoint {
  std::string url{};
  std::vector<std::string> events{};  // "completed"; empty: every terminal one
  bool disabled = false;              // it answered 410, or a message's last attempt failed
};

// A message to be sent.
struct NewDelivery {
  std::string id{};  // webhook-id; equal ids are one message
  std::string account{};
  std::string job_id{};
  std::string event{};  // "generation.completed"
  std::string url{};
  std::string secret{};  // "whsec_..." or "whsk_..."; empty: the account's secrets sign
  std::string body{};
  std::string traceparent{};  // of the request that made the job; "": none
};

class WebhookTables;  // the rows

// A message as its account sees it.
struct DeliveryView {
  std::int64_t sequence = 0;  // order of making
  WebhookDelivery delivery{};
  std::string job_id{};
  std::string event{};
  Time created_at{};
};

struct NewSecret {
  WebhookSecret secret;
  Time previous_until{};  // so long those before it sign too
};

struct DeliveryQuery {
  std::string account{};
  std::optional<DeliveryState> state{};
  std::int64_t before = INT64_MAX;  // sequence; newest first from there
  std::size_t limit = 50;
};

// Safe to call from many threads. One process at a time sends. Secrets lie in the database as they
// are, since they have to sign; nothing here gives one back but new_secret(), once. Errors: kIo and
// kUnavailable (the database; nothing was written), and what is named below.
class WebhookStore final : public WebhookOutbox {
 public:
  // While one secret replaces another, both sign for so long.
  static constexpr std::chrono::seconds kOverlap = std::chrono::hours(24);

  // Opens or makes the tables in `file`. `per_endpoint` messages of one endpoint are under way at
  // most; a sender that takes must allow as many. `clock` must outlive the store.
  static Result<std::unique_ptr<WebhookStore>> open(const std::filesystem::path& file,
                                                    const platform::Clock& clock,
                                                    int per_endpoint = 2);
  ~WebhookStore() override;

  // In one transaction. What has an id that is there already changes nothing; what goes to a
  // disabled endpoint is kept as failed. An account that has no secret yet gets one. How many were
  // new. Errors: kInvalidArgument (a secret that is none).
  Result<std::size_t> add(std::span<const NewDelivery> deliveries);

  // Each is given once until it is written, or until its claim is five minutes old.
  Result<std::vector<DueWebhook>> take(Time now, std::size_t limit) override;
  // Where the step disables the endpoint, what else waits for it has failed too.
  Result<void> write(const DeliveryStep& step) override;

  Result<std::vector<DeliveryView>> list(const DeliveryQuery& query);
  // The message from the beginning of its schedule, to an endpoint that is enabled again. Errors:
  // kNotFound (the account has no such message), kUnavailable (it is being sent right now).
  Result<DeliveryView> resend(const std::string& account, const std::string& id);

  // Whose act a change is, for the audit log: written in the same transaction.
  using Act = std::optional<platform::AuditAct>;
  // A new secret for the account; the ones before it sign on until the overlap is over.
  Result<NewSecret> new_secret(const std::string& account, const Act& act = {});
  // Sets the account's own endpoint and enables it; what is due goes where it was meant to.
  Result<void> set_endpoint(const std::string& account, const AccountEndpoint& endpoint,
                            const Act& act = {});
  Result<std::optional<AccountEndpoint>> endpoint(const std::string& account);
  Result<void> remove_endpoint(const std::string& account, const Act& act = {});

  // Drops messages that ended before `before`, endpoints without messages and secrets that have
  // retired. How many messages.
  Result<std::size_t> sweep(Time before);

 private:
  struct Claim {
    std::string endpoint;
    platform::Millis since;  // of the clock that never goes back
  };

  WebhookStore(std::filesystem::path file, const platform::Clock& clock, int per_endpoint);
  Time now() const;
  template <typename Value, typename Work>
  Result<Value> locked(std::string_view what, const Work& work);
  // Under mutex_.
  void follow_clock(WebhookTables& tables);
  void note(WebhookTables& tables, const Act& act) const;
  std::vector<std::string> busy_endpoints() const;
  std::optional<DueWebhook> next_due(WebhookTables& tables, Time now) const;

  const std::filesystem::path file_;
  const platform::Clock& clock_;
  const int per_endpoint_;
  std::mutex mutex_;
  std::unique_ptr<WebhookTables> tables_;  // by mutex_; empty after a failure
  std::map<std::string, Claim> claims_;    // by mutex_; of messages under way, by id
  platform::Millis ahead_;  // by mutex_; the wall clock, of the one that never goes back
};

}  // namespace limner::delivery
