#include "gateway/api_v1/operator_routes.h"

#include "gateway/api_v1/answers.h"
#include "gateway/api_v1/generation_object.h"

namespace limner::gateway::api_v1 {
namespace {

namespace asio = boost::asio;
using http::Request;
using http::Response;
using nlohmann::json;

json worker_object(const WorkerView& worker) {
  return {{"name", worker.name},
          {"state", worker.state},
          {"meaning", worker.meaning},
          {"reason", worker.reason},
          {"since", timestamp(worker.since)},
          {"request_id", worker.job.empty() ? json() : json(worker.job)},
          {"model", worker.model.empty() ? json() : json(worker.model)},
          {"progress", {{"step", worker.step}, {"steps", worker.steps}}},
          {"completed", worker.completed},
          {"replaced_threads", worker.replaced_threads}};
}

asio::awaitable<Response> set_paused(Api& api, Request& request, bool paused) {
  using namespace platform::audit_action;
  const http::Caller& caller = require(request, Scope::kAdminister);
  check_query(request, {});
  const auto act = act_by(caller, paused ? kQueuePause : kQueueResume, "queue");
  co_await http::blocking(api.services.blocking, [&api, &act, paused] {
    (paused ? api.services.queue.pause(act) : api.services.queue.resume(act)).value_or_throw();
  });
  co_return json_answer({{"paused", api.services.queue.paused()}});
}

}  // namespace

asio::awaitable<Response> pause_queue(Api& api, Request& request) {
  return set_paused(api, request, true);
}

asio::awaitable<Response> resume_queue(Api& api, Request& request) {
  return set_paused(api, request, false);
}

asio::awaitable<Response> list_workers(Api& api, Request& request) {
  require(request, Scope::kAdminister);
  check_query(request, {});
  json data = json::array();
  if (api.services.workers) {
    for (const WorkerView& worker : api.services.workers()) data.push_back(worker_object(worker));
  }
  co_return json_answer({{"data", std::move(data)}});
}

asio::awaitable<Response> reinitialize_workers(Api& api, Request& request) {
  const http::Caller& caller = require(request, Scope::kAdminister);
  check_query(request, {});
  const std::size_t fresh =
      co_await http::blocking(api.services.blocking, [&api, &caller]() -> std::size_t {
        // Before the act: what cannot be written is not done.
        if (api.services.audit)
          api.services.audit(act_by(caller, "workers.reinitialize", "workers"));
        return api.services.reinitialize ? api.services.reinitialize() : 0;
      });
  co_return json_answer({{"reinitialized", fresh}});
}

}  // namespace limner::gateway::api_v1
