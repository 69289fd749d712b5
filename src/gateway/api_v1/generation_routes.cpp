#include "gateway/api_v1/generation_routes.h"

#include <fmt/format.h>

#include "base/quote.h"
#include "base/suggest.h"
#include "gateway/api_v1/answers.h"
#include "gateway/deleted_pictures.h"

namespace limner::gateway::api_v1 {
namespace {

namespace asio = boost::asio;
using contract::Job;
using contract::JobStatus;
using http::Response;
using http::beast_http::status;
using nlohmann::json;

constexpr char kCursor = 'g';

queue::ListQuery list_query(const http::Request& request, const http::Caller& caller) {
  check_query(request, {"status", "limit", "cursor", "account"});
  queue::ListQuery asked;
  asked.limit = static_cast<std::size_t>(query_number(request, "limit", 20, 1, 100));
  if (const auto cursor = query_cursor(request, kCursor)) asked.before = *cursor;
  if (const auto wanted = query(request, "status")) {
    asked.status = contract::status_named(*wanted);
    if (!asked.status) {
      static const std::vector<std::string> kNames = {"queued", "running",  "completed", "blocked",
                                                      "failed", "canceled", "expired"};
      refuse_field("status", fmt::format("must be one of {}, got {}", fmt::join(kNames, ", "),
                                         quote(*wanted)));
    }
  }
  asked.account = query(request, "account").value_or(caller.account);
  if (asked.account != caller.account && !caller.may_administer) {
    refuse(status::forbidden, "permission_denied",
           "Generations of other accounts are shown to keys with the scope `admin`.");
  }
  return asked;
}

// Blocks.
json list_page(const ApiV1Services& services, const queue::ListQuery& asked) {
  const auto rows = services.queue.list(asked).value_or_throw();
  json page = {{"data", json::array()}, {"next_cursor", nullptr}};
  const Showing showing = services.showing();
  for (const Job& row : rows) {
    const auto job = services.queue.find(row.id).value_or_throw();
    if (!job) continue;  // deleted in between
    page["data"].push_back(generation_object(*job, showing, moment_of(services, *job)));
  }
  if (rows.size() == asked.limit) page["next_cursor"] = cursor_of(kCursor, rows.back().sequence);
  return page;
}

Response shown_answer(const ApiV1Services& services, const Shown& shown) {
  Response response = json_answer(generation_object(shown.job, services.showing(), shown.moment));
  response.set("ETag", generation_etag(shown.job, shown.moment, services.clock));
  response.set("Cache-Control", "private, no-cache");
  return response;
}

std::vector<std::string> stored_objects(const Job& job) {
  std::vector<std::string> objects;
  if (job.result.empty()) return objects;
  const auto result = contract::job_result_from_text(job.result).value_or_throw();
  for (const contract::Artifact& artifact : result.images) {
    objects.push_back(artifact.image.key);
    for (const contract::StoredImage& thumbnail : artifact.thumbnails)
      objects.push_back(thumbnail.key);
  }
  return objects;
}

// What an administrator does to another's generation goes into the audit log.
queue::Act act_on(const Job& job, const http::Caller& caller, std::string_view action) {
  if (job.account == caller.account) return std::nullopt;
  return act_by(caller, action, "generation " + job.id, "of account " + job.account);
}

// Blocks.
void erase(const ApiV1Services& services, const http::Caller& caller, const std::string& id) {
  const Job job = show(services, caller, id).job;
  const auto erased = services.queue.erase(
      job, stored_objects(job), act_on(job, caller, platform::audit_action::kDataDelete));
  if (!erased.ok() && erased.error().code == ErrorCode::kInvalidArgument) {
    const auto now = show(services, caller, id).job.status;
    refuse(status::conflict, "not_ended",
           fmt::format("The generation is {}: cancel it first.", name(now)));
  }
  erased.value_or_throw();
  const auto removed = remove_deleted_pictures(services.store, services.artifacts, id);
  if (removed.ok()) return;
  services.log.warning("pictures of a deleted generation are not removed yet",
                       {{"request_id", id}, {"error", removed.error().message}});
}

}  // namespace

asio::awaitable<Response> get_generation(Api& api, http::Request& request) {
  const http::Caller& caller = require(request, Scope::kRead);
  check_query(request, {});
  const std::string id = request.path_parameters.at("id");
  const auto find = [&api, caller, id] { return show(api.services, caller, id); };
  const Shown shown = co_await http::blocking(api.services.blocking, find);
  Response response = shown_answer(api.services, shown);
  if (matches(request.header("If-None-Match"), response.headers["ETag"])) {
    response.status = status::not_modified;
    response.headers.erase("Content-Type");
    response.body.clear();
  }
  co_return response;
}

asio::awaitable<Response> list_generations(Api& api, http::Request& request) {
  const http::Caller& caller = require(request, Scope::kRead);
  const queue::ListQuery asked = list_query(request, caller);
  const auto read = [&api, asked] { return list_page(api.services, asked); };
  const json page = co_await http::blocking(api.services.blocking, read);
  co_return json_answer(page);
}

asio::awaitable<Response> cancel_generation(Api& api, http::Request& request) {
  const http::Caller& caller = require(request, Scope::kGenerate);
  check_query(request, {});
  const std::string id = request.path_parameters.at("id");
  const auto cancel = [&api, caller, id] {
    const Job job = show(api.services, caller, id).job;
    (void)api.services.queue.cancel(id, act_on(job, caller, "generation.cancel")).value_or_throw();
    return show(api.services, caller, id);
  };
  const Shown shown = co_await http::blocking(api.services.blocking, cancel);
  co_return shown_answer(api.services, shown);
}

asio::awaitable<Response> retry_generation(Api& api, http::Request& request) {
  const http::Caller& caller = require(request, Scope::kGenerate);
  check_query(request, {});
  const std::string id = request.path_parameters.at("id");
  const auto retry = [&api, caller, id] {
    const Job job = show(api.services, caller, id).job;
    const auto done = api.services.queue.retry(id, act_on(job, caller, "generation.retry"));
    if (!done.ok() && done.error().code == ErrorCode::kInvalidArgument) {
      const auto now = show(api.services, caller, id).job.status;
      refuse(status::conflict, "not_retryable",
             fmt::format("The generation is {}: only a failed, canceled or expired one can be "
                         "tried again.",
                         name(now)));
    }
    done.value_or_throw();
    return show(api.services, caller, id);
  };
  const Shown shown = co_await http::blocking(api.services.blocking, retry);
  const Showing showing = api.services.showing();
  Response response =
      json_answer(accepted_object(shown.job, showing, shown.moment.place), status::accepted);
  response.set("Location", generation_url(id, showing));
  co_return response;
}

asio::awaitable<Response> delete_generation(Api& api, http::Request& request) {
  const http::Caller& caller = require(request, Scope::kGenerate);
  check_query(request, {});
  const std::string id = request.path_parameters.at("id");
  const auto remove = [&api, caller, id] {
    erase(api.services, caller, id);
    return true;
  };
  co_await http::blocking(api.services.blocking, remove);
  Response response;
  response.status = status::no_content;
  co_return response;
}

}  // namespace limner::gateway::api_v1
