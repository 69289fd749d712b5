#include "delivery/webhook_store.h"

#include <fmt/format.h>

#include <algorithm>

#include "delivery/webhook_tables.h"

namespace limner::delivery {
namespace {

using platform::Transaction;

// Longer than any attempt; a claim this old belongs to a sender that is gone.
constexpr std::chrono::minutes kLongestClaim{5};

// What the two clocks may part by without anybody having set one.
constexpr std::chrono::seconds kDrift{1};

WebhookSecret parsed(const std::string& text) {
  return WebhookSecret::parse(text).value_or_throw();
}

}  // namespace

WebhookStore::WebhookStore(std::filesystem::path file, const platform::Clock& clock,
                           int per_endpoint)
    : file_(std::move(file)),
      clock_(clock),
      per_endpoint_(per_endpoint),
      ahead_(clock.wall() - clock.now()) {}

WebhookStore::~WebhookStore() = default;

Time WebhookStore::now() const {
  return Time(clock_.wall());
}

// Waits are to last as long as they were meant to, also when somebody sets the wall clock, in which
// they are written down.
void WebhookStore::follow_clock(WebhookTables& tables) {
  const platform::Millis ahead = clock_.wall() - clock_.now();
  const platform::Millis jump = ahead - ahead_;
  if (std::chrono::abs(jump) < kDrift) return;
  tables.move_due(jump);
  ahead_ = ahead;
}

template <typename Value, typename Work>
Result<Value> WebhookStore::locked(std::string_view what, const Work& work) {
  const std::scoped_lock lock(mutex_);
  try {
    if (!tables_) tables_ = std::make_unique<WebhookTables>(file_);
    follow_clock(*tables_);
    return work(*tables_);
  } catch (const soci::soci_error& error) {
    // What a failed sync left behind is known only to a connection that reads the log again.
    tables_.reset();
    return platform::database_failure(fmt::format("[webhooks] {}", what), error).error();
  } catch (const Failure& failure) {
    return failure.error();
  }
}

Result<std::unique_ptr<WebhookStore>> WebhookStore::open(const std::filesystem::path& file,
                                                         const platform::Clock& clock,
                                                         int per_endpoint) {
  std::unique_ptr<WebhookStore> store(new WebhookStore(file, clock, per_endpoint));
  const auto opened = store->locked<bool>("opening", [](WebhookTables&) { return true; });
  if (!opened) return opened.error();
  return store;
}

Result<std::size_t> WebhookStore::add(std::span<const NewDelivery> deliveries) {
  return locked<std::size_t>("writing messages", [&](WebhookTables& tables) {
    Transaction transaction(tables.session());
    std::size_t added = 0;
    for (const NewDelivery& delivery : deliveries) {
      if (tables.has_delivery(delivery.id)) continue;
      if (!delivery.secret.empty()) {
        parsed(delivery.secret);
      } else if (tables.secrets(delivery.account, now()).empty()) {
        tables.insert_secret(delivery.account, WebhookSecret::make().text(), now());
      }
      tables.insert(delivery, tables.endpoint(delivery.account, delivery.url, delivery.secret),
                    now());
      ++added;
    }
    transaction.commit();
    return added;
  });
}

std::vector<std::string> WebhookStore::busy_endpoints() const {
  std::map<std::string, int> under_way;
  for (const auto& [id, claim] : claims_) ++under_way[claim.endpoint];
  std::vector<std::string> busy = {"0"};  // no endpoint's number, for a list that is never empty
  for (const auto& [endpoint, count] : under_way) {
    if (count >= per_endpoint_) busy.push_back(endpoint);
  }
  return busy;
}

Result<std::vector<DueWebhook>> WebhookStore::take(Time now, std::size_t limit) {
  return locked<std::vector<DueWebhook>>("reading what is due", [&](WebhookTables& tables) {
    std::erase_if(claims_, [&](const auto& claim) {
      return clock_.now() - claim.second.since > kLongestClaim;
    });
    const auto before = claims_;
    std::vector<DueWebhook> taken;
    try {
      // One by one: each taken may make its endpoint a busy one.
      while (taken.size() < limit) {
        auto next = next_due(tables, now);
        if (!next) break;
        claims_[next->delivery.id] = {next->delivery.endpoint, clock_.now()};
        taken.push_back(std::move(*next));
      }
    } catch (...) {
      claims_ = before;
      throw;
    }
    return taken;
  });
}

std::optional<DueWebhook> WebhookStore::next_due(WebhookTables& tables, Time now) const {
  const auto rows = tables.due(now, busy_endpoints(), claims_.size() + 1);
  const auto free = std::find_if(rows.begin(), rows.end(), [&](const WebhookTables::Row& row) {
    return !claims_.contains(row.view.delivery.id);
  });
  if (free == rows.end()) return std::nullopt;
  DueWebhook due{.delivery = free->view.delivery, .secrets = {}};
  if (!free->secret.empty()) {
    due.secrets.push_back(parsed(free->secret));
    return due;
  }
  for (const std::string& text : tables.secrets(free->account, now)) {
    due.secrets.push_back(parsed(text));
  }
  return due;
}

Result<void> WebhookStore::write(const DeliveryStep& step) {
  const auto written = locked<bool>("writing an attempt", [&](WebhookTables& tables) {
    const long long endpoint = std::stoll(step.delivery.endpoint);
    Transaction transaction(tables.session());
    WebhookDelivery delivery = step.delivery;
    if (delivery.state == DeliveryState::kPending && tables.disabled(endpoint)) {
      delivery.state = DeliveryState::kFailed;
    }
    tables.update(delivery, now());
    if (step.disable_endpoint) tables.disable(endpoint, now());
    transaction.commit();
    return true;
  });
  // Written or not, it is under way no longer.
  const std::scoped_lock lock(mutex_);
  claims_.erase(step.delivery.id);
  if (!written) return written.error();
  return {};
}

Result<std::vector<DeliveryView>> WebhookStore::list(const DeliveryQuery& query) {
  return locked<std::vector<DeliveryView>>(
      "listing", [&](WebhookTables& tables) { return tables.list(query); });
}

Result<DeliveryView> WebhookStore::resend(const std::string& account, const std::string& id) {
  return locked<DeliveryView>("resending", [&](WebhookTables& tables) {
    Transaction transaction(tables.session());
    auto row = tables.find(account, id);
    if (!row) throw Failure(ErrorCode::kNotFound, fmt::format("[webhooks] no message {}", id));
    if (claims_.contains(id)) {
      throw Failure(Error{ErrorCode::kUnavailable,
                          fmt::format("[webhooks] the message {} is being sent right now", id),
                          true});
    }
    DeliveryView view = std::move(row->view);
    view.delivery = delivery::resend(std::move(view.delivery), now());
    tables.update(view.delivery, now());
    tables.enable(std::stoll(view.delivery.endpoint));
    transaction.commit();
    return view;
  });
}

void WebhookStore::note(WebhookTables& tables, const Act& act) const {
  if (act) platform::append_audit(tables.session(), *act, clock_.wall());
}

Result<NewSecret> WebhookStore::new_secret(const std::string& account, const Act& act) {
  return locked<NewSecret>("making a secret", [&](WebhookTables& tables) {
    NewSecret made{WebhookSecret::make(), now() + kOverlap};
    Transaction transaction(tables.session());
    tables.retire_secrets(account, made.previous_until);
    tables.insert_secret(account, made.secret.text(), now());
    note(tables, act);
    transaction.commit();
    return made;
  });
}

Result<void> WebhookStore::set_endpoint(const std::string& account, const AccountEndpoint& endpoint,
                                        const Act& act) {
  const auto set = locked<bool>("setting an endpoint", [&](WebhookTables& tables) {
    Transaction transaction(tables.session());
    tables.set_account_endpoint(account, endpoint);
    note(tables, act);
    transaction.commit();
    return true;
  });
  if (!set) return set.error();
  return {};
}

Result<std::optional<AccountEndpoint>> WebhookStore::endpoint(const std::string& account) {
  return locked<std::optional<AccountEndpoint>>("reading an endpoint", [&](WebhookTables& tables) {
    return tables.account_endpoint(account);
  });
}

Result<void> WebhookStore::remove_endpoint(const std::string& account, const Act& act) {
  const auto removed = locked<bool>("removing an endpoint", [&](WebhookTables& tables) {
    Transaction transaction(tables.session());
    tables.remove_account_endpoint(account);
    note(tables, act);
    transaction.commit();
    return true;
  });
  if (!removed) return removed.error();
  return {};
}

Result<std::size_t> WebhookStore::sweep(Time before) {
  return locked<std::size_t>("sweeping", [&](WebhookTables& tables) {
    Transaction transaction(tables.session());
    const std::size_t dropped = tables.sweep(before, now());
    transaction.commit();
    return dropped;
  });
}

}  // namespace limner::delivery
