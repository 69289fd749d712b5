#include "gateway/webhooks/routes.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/quote.h"
#include "contract/job_request.h"
#include "contract/json_fields.h"
#include "gateway/api_v1/answers.h"
#include "gateway/api_v1/generation_object.h"

namespace limner::gateway::webhooks {
namespace {

using api_v1::json_answer;
using api_v1::refuse;
using api_v1::refuse_field;
using api_v1::require;
using api_v1::Scope;
using boost::asio::awaitable;
using delivery::DeliveryState;
using http::Response;
using http::beast_http::status;
using http::beast_http::verb;
using nlohmann::json;

constexpr char kCursor = 'w';
constexpr std::size_t kLargestBody = 16'384;
constexpr DeliveryState kStates[] = {DeliveryState::kPending, DeliveryState::kDelivered,
                                     DeliveryState::kFailed};

std::string time_text(delivery::Time time) {
  const auto millis = std::chrono::floor<std::chrono::milliseconds>(time.time_since_epoch());
  return api_v1::timestamp(millis.count());
}

json delivery_object(const delivery::DeliveryView& view) {
  const delivery::WebhookDelivery& delivery = view.delivery;
  json object = {{"id", delivery.id},
                 {"request_id", view.job_id},
                 {"type", view.event},
                 {"url", delivery.url},
                 {"status", name(delivery.state)},
                 {"attempts", delivery.attempts},
                 {"created_at", time_text(view.created_at)},
                 {"next_attempt_at", nullptr},
                 {"last_status", nullptr},
                 {"last_error", nullptr}};
  if (delivery.state == DeliveryState::kPending) {
    object["next_attempt_at"] = time_text(delivery.due);
  }
  if (delivery.last_status != 0) object["last_status"] = delivery.last_status;
  if (!delivery.last_error.empty()) object["last_error"] = delivery.last_error;
  return object;
}

json endpoint_object(const delivery::AccountEndpoint& endpoint) {
  return {{"url", endpoint.url}, {"events", endpoint.events}, {"disabled", endpoint.disabled}};
}

delivery::DeliveryQuery list_query(const http::Request& request, const http::Caller& caller) {
  api_v1::check_query(request, {"status", "limit", "cursor"});
  delivery::DeliveryQuery asked{.account = caller.account};
  asked.limit = static_cast<std::size_t>(api_v1::query_number(request, "limit", 20, 1, 100));
  if (const auto cursor = api_v1::query_cursor(request, kCursor)) asked.before = *cursor;
  if (const auto wanted = api_v1::query(request, "status")) {
    const auto state = std::find_if(std::begin(kStates), std::end(kStates),
                                    [&](DeliveryState one) { return name(one) == *wanted; });
    if (state == std::end(kStates)) {
      refuse_field("status",
                   fmt::format("must be pending, delivered or failed, got {}", quote(*wanted)));
    }
    asked.state = *state;
  }
  return asked;
}

delivery::AccountEndpoint endpoint_of(const http::Request& request,
                                      const platform::http::NetworkRules& network) {
  const json body = api_v1::parse_object(request.body, kLargestBody);
  std::vector<http::FieldProblem> problems;
  contract::Fields fields(body, "", problems);
  delivery::AccountEndpoint endpoint;
  fields.read("url", endpoint.url);
  if (endpoint.url.empty()) {
    fields.wrong("url", "is wanted");
  } else if (const auto fits = delivery::check_webhook_url(endpoint.url, network); !fits) {
    fields.wrong("url", fits.error().message);
  }
  fields.read("events", endpoint.events, contract::webhook_events());
  fields.finish();
  if (!problems.empty()) {
    throw http::ProblemFailure({.status = status::unprocessable_entity,
                                .code = "invalid_argument",
                                .detail = "The endpoint has fields that cannot be used.",
                                .fields = std::move(problems)});
  }
  return endpoint;
}

platform::AuditAct act_of(const http::Caller& caller, std::string_view action) {
  return api_v1::act_by(caller, action, "account " + caller.account);
}

using Shared = std::shared_ptr<const WebhookServices>;

awaitable<Response> list_deliveries(Shared services, http::Request& request) {
  const auto asked = list_query(request, require(request, Scope::kRead));
  const auto list = [&] { return services->messages.list(asked).value_or_throw(); };
  const auto views = co_await http::blocking(services->blocking, list);
  json page = {{"data", json::array()}, {"next_cursor", nullptr}};
  for (const delivery::DeliveryView& view : views) page["data"].push_back(delivery_object(view));
  if (views.size() == asked.limit)
    page["next_cursor"] = api_v1::cursor_of(kCursor, views.back().sequence);
  co_return json_answer(page);
}

awaitable<Response> resend_delivery(Shared services, http::Request& request) {
  const http::Caller& caller = require(request, Scope::kGenerate);
  const std::string& id = request.path_parameters.at("id");
  const auto resend = [&] { return services->messages.resend(caller.account, id); };
  const auto view = co_await http::blocking(services->blocking, resend);
  if (!view && view.error().code == ErrorCode::kNotFound) {
    refuse(status::not_found, "not_found",
           fmt::format("There is no webhook delivery {}.", quote(id)));
  }
  if (!view) throw Failure(view.error());
  services->notifier.wake_senders();
  co_return json_answer(delivery_object(*view), status::accepted);
}

awaitable<Response> new_secret(Shared services, http::Request& request) {
  const http::Caller& caller = require(request, Scope::kGenerate);
  const auto make = [&] {
    return services->messages.new_secret(caller.account, act_of(caller, "webhooks.secret"))
        .value_or_throw();
  };
  const auto made = co_await http::blocking(services->blocking, make);
  const json object = {{"secret", made.secret.text()},
                       {"previous_valid_until", time_text(made.previous_until)}};
  Response response = json_answer(object, status::created);
  response.set("Cache-Control", "no-store");
  co_return response;
}

awaitable<Response> get_endpoint(Shared services, http::Request& request) {
  const http::Caller& caller = require(request, Scope::kRead);
  const auto read = [&] { return services->messages.endpoint(caller.account).value_or_throw(); };
  const auto endpoint = co_await http::blocking(services->blocking, read);
  if (!endpoint) {
    refuse(status::not_found, "not_found", "This account has no webhook endpoint of its own.");
  }
  co_return json_answer(endpoint_object(*endpoint));
}

awaitable<Response> put_endpoint(Shared services, http::Request& request) {
  const http::Caller& caller = require(request, Scope::kGenerate);
  const auto endpoint = endpoint_of(request, services->network);
  const auto set = [&] {
    services->messages.set_endpoint(caller.account, endpoint, act_of(caller, "webhooks.endpoint"))
        .value_or_throw();
  };
  co_await http::blocking(services->blocking, set);
  co_return json_answer(endpoint_object(endpoint));
}

awaitable<Response> delete_endpoint(Shared services, http::Request& request) {
  const http::Caller& caller = require(request, Scope::kGenerate);
  const auto remove = [&] {
    services->messages.remove_endpoint(caller.account, act_of(caller, "webhooks.endpoint.delete"))
        .value_or_throw();
  };
  co_await http::blocking(services->blocking, remove);
  Response response;
  response.status = status::no_content;
  co_return response;
}

}  // namespace

void add_routes(http::Router& router, WebhookServices services) {
  const auto shared = std::make_shared<const WebhookServices>(std::move(services));
  const auto add = [&](verb method, const char* pattern,
                       awaitable<Response> (*handle)(Shared, http::Request&)) {
    router.add(method, pattern,
               [shared, handle](http::Request& request) { return handle(shared, request); },
               {.body_limit = kLargestBody});
  };
  add(verb::get, "/v1/webhooks/deliveries", list_deliveries);
  add(verb::post, "/v1/webhooks/deliveries/{id}/resend", resend_delivery);
  add(verb::post, "/v1/webhooks/secret", new_secret);
  add(verb::get, "/v1/webhooks/endpoint", get_endpoint);
  add(verb::put, "/v1/webhooks/endpoint", put_endpoint);
  add(verb::delete_, "/v1/webhooks/endpoint", delete_endpoint);
}

}  // namespace limner::gateway::webhooks
