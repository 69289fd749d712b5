#include "gateway/api_v1/create_generation.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/this_coro.hpp>
#include <random>

#include "delivery/object_key.h"
#include "gateway/api_v1/answers.h"
#include "gateway/api_v1/wish.h"

namespace limner::gateway::api_v1 {
namespace {

namespace asio = boost::asio;
using contract::Job;
using contract::JobStatus;
using http::Response;
using http::beast_http::status;
using queue::Submitted;
using Steady = std::chrono::steady_clock;

// Of 53 bits, which a JavaScript client reads without loss (validate() takes the upper 52).
std::uint64_t random_seed() {
  thread_local std::random_device device;
  return ((static_cast<std::uint64_t>(device()) << 32) | device()) >> 11;
}

GenerationBody read_body(const ApiV1Services& services, const http::Request& request) {
  const auto catalog = services.catalog.catalog();
  const auto templates = services.templates == nullptr ? nullptr : services.templates->current();
  return read_generation_body(request.body, {.catalog = *catalog,
                                             .templates = templates.get(),
                                             .network = services.network,
                                             .limits = services.body,
                                             .random_seed = random_seed()});
}

std::optional<image::Format> named_format(const GenerationBody& body) {
  if (!body.names_format) return std::nullopt;
  return image::format_from_name(body.request.output.format).value_or_throw();
}

Job make_job(const http::Caller& caller, const GenerationBody& body) {
  Job job;
  job.account = caller.account;
  job.key_id = caller.key_id;
  job.tier = caller.tier;
  job.model = body.request.model;
  job.job_class = body.job_class;
  job.work = body.work;
  job.request = contract::to_text(body.request);
  return job;
}

[[noreturn]] void refuse_submission(const Submitted& submitted) {
  if (submitted.kind == Submitted::Kind::kConflict) {
    refuse(status::unprocessable_entity, "idempotency_key_reused",
           "This Idempotency-Key was sent before with another body.");
  }
  const queue::Refusal& refusal = *submitted.refusal;
  throw http::ProblemFailure(
      {.status = refusal.account_limit ? status::too_many_requests : status::service_unavailable,
       .code = refusal.account_limit ? "too_many_queued" : "queue_full",
       .detail = refusal.error.message,
       .retry_after = refusal.retry_after});
}

// An accepted job, or the one that a replayed key stands for.
struct Accepted {
  Job job;
  std::optional<queue::QueuePlace> place;
  bool replayed = false;
};

// Blocks until the job is on the disk. A replay costs nothing and is never refused.
Accepted submit(const ApiV1Services& services, const http::Caller& caller, Job job,
                std::int64_t images, const std::optional<queue::Idempotency>& idempotency) {
  const bool known = idempotency && services.store.replay(*idempotency).value_or_throw();
  if (services.refuse && !known) {
    if (auto problem = services.refuse(caller, images)) {
      throw http::ProblemFailure(std::move(*problem));
    }
  }
  const auto written = services.queue.submit(job, idempotency);
  const bool accepted = written.ok() && written->kind == Submitted::Kind::kAccepted;
  if (!accepted && !known && services.not_queued) services.not_queued(caller, images);
  if (!written.ok()) throw Failure(written.error());
  const Submitted& submitted = *written;
  const bool replayed = submitted.kind == Submitted::Kind::kReplayed;
  if (!replayed && submitted.kind != Submitted::Kind::kAccepted) refuse_submission(submitted);
  if (replayed) {
    auto first = services.queue.find(submitted.id).value_or_throw();
    if (!first) {
      refuse(status::gone, "generation_deleted",
             "The generation that this Idempotency-Key stands for was deleted.");
    }
    job = std::move(*first);
  }
  job.id = submitted.id;
  auto place = services.queue.place(job.id);
  return {std::move(job), place, replayed};
}

Response accepted_answer(Api& api, const Accepted& accepted, bool keyed) {
  const Showing showing = api.services.showing();
  Response response =
      json_answer(accepted_object(accepted.job, showing, accepted.place), status::accepted);
  if (accepted.replayed) {
    if (auto first = api.answers.recall(accepted.job.id)) response.body = std::move(*first);
  } else if (keyed) {
    api.answers.remember(accepted.job.id, response.body);
  }
  response.set("Location", generation_url(accepted.job.id, showing));
  return response;
}

Response picture_answer(const ApiV1Services& services, const Job& job) {
  if (job.error) throw Failure(*job.error);
  if (job.status == JobStatus::kBlocked) {
    throw Failure(ErrorCode::kBlocked, "The picture was blocked by a safety rule.");
  }
  if (job.status != JobStatus::kCompleted) {
    refuse(status::conflict, std::string(name(job.status)),
           fmt::format("The generation is {}: there is no picture.", name(job.status)));
  }
  const auto result = contract::job_result_from_text(job.result).value_or_throw();
  if (result.images.empty()) throw Failure(ErrorCode::kInternal, "[api] a result without images");
  const contract::Artifact& first = result.images.front();
  const auto key = delivery::parse_object_key(first.image.key).value_or_throw();
  const auto bytes = services.artifacts.get(key).value_or_throw();
  Response response;
  response.set("Content-Type", delivery::content_type(key.extension));
  response.set("Cache-Control", "no-store");
  response.set("Vary", "Accept");
  response.set("Location", generation_url(job.id, services.showing()));
  response.set("X-Seed", std::to_string(first.seed));
  response.body.assign(bytes.begin(), bytes.end());
  return response;
}

bool is_terminal_event(const Subscription::Event& event) {
  const auto named = contract::status_named(event->type);
  return named && contract::is_terminal(*named);
}

// Waits for the job's end, at most until `until`, for the client or for the service to stop. The
// row as it is then.
asio::awaitable<Job> wait_for_end(Api& api, std::string id, Steady::time_point until,
                                  std::stop_token gone) {
  const ApiV1Services& services = api.services;
  const auto executor = co_await asio::this_coro::executor;
  const auto subscription = services.hub.subscribe(id, executor);
  const std::stop_callback on_gone(gone, [&] { subscription->wake(); });
  while (true) {
    const auto find = [&services, id] {
      auto job = services.queue.find(id).value_or_throw();
      if (!job) refuse(status::gone, "generation_deleted", "The generation was deleted.");
      return std::move(*job);
    };
    Job job = co_await http::blocking(services.blocking, find);
    bool again = contract::is_terminal(job.status);
    if (again) co_return job;
    while (!again) {
      if (gone.stop_requested() || subscription->closed() || Steady::now() >= until) co_return job;
      co_await subscription->wait(until);
      const auto events = subscription->take();
      again = std::any_of(events.begin(), events.end(), is_terminal_event);
    }
  }
}

// A client that waits for its answer on the connection.
struct Waiter {
  Wish wish;
  bool keyed = false;
  // Nobody will ever ask for the result when this client leaves: there is no key with which it
  // could come back, and no webhook.
  bool nobody_else = false;
};

asio::awaitable<Response> answer_with_result(Api& api, http::Request& request, Accepted accepted,
                                             Waiter waiter) {
  const ApiV1Services& services = api.services;
  const Wish& wish = waiter.wish;
  const auto wait = std::min(wish.wait.value_or(services.picture_wait), services.longest_wait);
  Job job = co_await wait_for_end(api, accepted.job.id, Steady::now() + wait, request.gone);
  const bool ended = contract::is_terminal(job.status);
  if (!ended && request.gone.stop_requested() && waiter.nobody_else) {
    const auto cancel = [&services, id = job.id] { return services.queue.cancel(id); };
    const auto canceled = co_await http::blocking(services.blocking, cancel);
    if (!canceled.ok()) {
      services.log.warning("a job whose client left could not be canceled",
                           {{"request_id", job.id}, {"error", canceled.error().message}});
    }
  }
  Response response;
  if (ended && wish.picture) {
    const auto fetch = [&services, job] { return picture_answer(services, job); };
    response = co_await http::blocking(services.blocking, fetch);
  } else if (ended) {
    response = json_answer(generation_object(job, services.showing()));
  } else {
    response = accepted_answer(api, accepted, waiter.keyed);
  }
  if (wish.wait) response.set("Preference-Applied", fmt::format("wait={}", wait.count()));
  co_return response;
}

}  // namespace

asio::awaitable<Response> create_generation(Api& api, http::Request& request) {
  const ApiV1Services& services = api.services;
  const http::Caller& caller = require(request, Scope::kGenerate);
  check_query(request, {});
  GenerationBody body = read_body(services, request);
  const Wish wish = read_wish(request, named_format(body));
  if (wish.picture) body.request.output.format = image::extension(*wish.picture).substr(1);
  if (body.request.output.format == "jpg") body.request.output.format = "jpeg";
  body.request.traceparent = request.traceparent;
  const auto idempotency = idempotency_of(request, caller, body.fingerprint);
  const auto claim = idempotency ? api.answers.claim(*idempotency) : nullptr;
  const std::int64_t images = body.request.picture.num_images;
  const auto accept = [&services, caller, job = make_job(caller, body), images, idempotency] {
    return submit(services, caller, job, images, idempotency);
  };
  Accepted accepted = co_await http::blocking(services.blocking, accept);
  const bool replayed = accepted.replayed;
  const bool waits = wish.picture || (wish.wait && wish.wait->count() > 0);
  Response response;
  if (waits) {
    const Waiter waiter{.wish = wish,
                        .keyed = idempotency.has_value(),
                        .nobody_else = !idempotency && body.request.webhook.url.empty()};
    response = co_await answer_with_result(api, request, std::move(accepted), waiter);
  } else {
    response = accepted_answer(api, accepted, idempotency.has_value());
  }
  if (replayed) response.set("Idempotency-Replayed", "true");
  co_return response;
}

}  // namespace limner::gateway::api_v1
