#include "gateway/api_v1/account_routes.h"

#include <fmt/format.h>

#include "base/quote.h"
#include "delivery/sweeper.h"
#include "gateway/api_v1/answers.h"

namespace limner::gateway::api_v1 {
namespace {

namespace asio = boost::asio;
using contract::Job;
using contract::JobStatus;
using http::beast_http::status;
using nlohmann::json;

constexpr std::size_t kPage = 100;

void refuse_while_open(queue::Queue& queue, const std::string& account) {
  for (const JobStatus open : {JobStatus::kQueued, JobStatus::kRunning}) {
    const auto some = queue.list({.account = account, .status = open, .limit = 1}).value_or_throw();
    if (some.empty()) continue;
    refuse(status::conflict, "not_ended",
           fmt::format("The account {} has generations that are {}: disable it and cancel them "
                       "first.",
                       quote(account), name(open)));
  }
}

// Those accepted before `begun`. How many.
std::size_t erase_generations(queue::Queue& queue, const std::string& account, std::int64_t begun) {
  std::size_t erased = 0;
  queue::ListQuery page{.account = account, .limit = kPage};
  for (;;) {
    const auto rows = queue.list(page).value_or_throw();
    for (const Job& row : rows) {
      page.before = row.sequence;
      if (row.created_at >= begun || !contract::is_terminal(row.status)) continue;
      const auto done = queue.erase(row);
      if (done.ok()) ++erased;
      const bool gone = !done.ok() && done.error().code == ErrorCode::kNotFound;
      if (!gone) done.value_or_throw();
    }
    if (rows.size() < kPage) return erased;
  }
}

// Blocks.
json delete_data(const ApiV1Services& services, const http::Caller& caller,
                 const std::string& account) {
  delivery::check_account(account).value_or_throw();
  const platform::Millis begun = services.clock.wall();
  refuse_while_open(services.queue, account);
  // Before the act, which is many transactions: what cannot be written is not done.
  if (services.audit) {
    services.audit(act_by(caller, platform::audit_action::kDataDelete, "account " + account));
  }
  const std::size_t generations = erase_generations(services.queue, account, begun.count());
  const auto objects =
      delivery::remove_account(services.artifacts, account, delivery::Time(begun)).value_or_throw();
  return {{"account", account}, {"generations", generations}, {"objects", objects}};
}

}  // namespace

asio::awaitable<http::Response> delete_account_data(Api& api, http::Request& request) {
  const http::Caller& caller = require(request, Scope::kAdminister);
  check_query(request, {});
  const auto remove = [&api, caller, account = request.path_parameters.at("account")] {
    return delete_data(api.services, caller, account);
  };
  const json removed = co_await http::blocking(api.services.blocking, remove);
  co_return json_answer(removed);
}

}  // namespace limner::gateway::api_v1
