#include "cli/engine_module/endpoint_server.h"

#include <fmt/format.h>

#include <charconv>

#include "cli/engine_module/json_service.h"
#include "cli/interrupt.h"
#include "delivery/crypto.h"
#include "delivery/webhook_sender.h"
#include "platform/http/address.h"

namespace limner::cli {

namespace asio = boost::asio;
namespace http = gateway::http;
using http::beast_http::status;
using http::beast_http::verb;
using nlohmann::json;
using platform::Millis;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

// Of bodies, as the platform has them.
constexpr std::size_t kMostRun = std::size_t{10} << 20, kMostRunSync = std::size_t{20} << 20;
constexpr std::size_t kMostResult = std::size_t{20} << 20, kMostPartial = std::size_t{1} << 20;
constexpr std::int64_t kUsualWait = 90'000, kLeastWait = 1'000, kLongestWait = 300'000;  // ms
constexpr milliseconds kHold{60'000};  // of a worker's poll, which gives up after 90 s
constexpr milliseconds kWebhookTime{10'000};
constexpr std::int64_t kLongestKeep = std::int64_t{7} * 24 * 3600 * 1000;  // ms
constexpr const char* kPrefix = "/v2/{endpoint}";

std::string address_of(const std::string& host) {
  return host == "localhost" ? "127.0.0.1" : host;
}

bool is_loopback(const std::string& address) {
  const auto parsed = platform::http::parse_address(address);
  const auto loopback = platform::http::parse_address_ranges("127.0.0.0/8, ::1").value_or_throw();
  return parsed && std::any_of(loopback.begin(), loopback.end(),
                               [&](const auto& range) { return range.contains(*parsed); });
}

// Receivers on this machine are what webhooks are tried with at home. From elsewhere nobody may
// reach into this machine through them.
platform::http::NetworkRules webhook_rules(const EndpointServerOptions& options) {
  auto allow = options.egress_allow;
  if (is_loopback(address_of(options.host))) {
    const auto loopback = platform::http::parse_address_ranges("127.0.0.0/8, ::1").value_or_throw();
    allow.insert(allow.end(), loopback.begin(), loopback.end());
  }
  return delivery::webhook_network(std::move(allow));
}

http::ServerOptions server_options(const EndpointServerOptions& options) {
  http::ServerOptions made;
  made.address = address_of(options.host);
  made.port = options.port;
  return made;
}

// A number of the query, `usual` where it has none.
std::int64_t number(const http::Request& request, const char* name, std::int64_t usual,
                    std::int64_t least, std::int64_t most) {
  const auto given = request.query.find(name);
  if (given == request.query.end()) return usual;
  const std::string& text = given->second;
  std::int64_t value = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), value);
  if (read.ec == std::errc() && read.ptr == text.data() + text.size() && value >= least &&
      value <= most) {
    return value;
  }
  throw Failure(ErrorCode::kInvalidArgument, fmt::format("{} must be {} to {}, got '{}'", name,
                                                         least, most, text.substr(0, 40)));
}

const std::string& parameter(const http::Request& request, const char* name) {
  return request.path_parameters.at(name);
}

}  // namespace

EndpointServer::EndpointServer(EndpointServerOptions options, Log& log)
    : options_(std::move(options)),
      address_(address_of(options_.host)),
      log_(log),
      to_clients_(webhook_rules(options_)),
      webhooks_(to_clients_),
      worker_key_(delivery::base64_url(delivery::random_bytes(24))),
      endpoint_({.changed = [this] { bell_.ring(); }}, clock_),
      server_(server_options(options_), json_service(router_, kMostRun, log), log) {
  add_routes();
}

EndpointServer::~EndpointServer() {
  stop();
}

Result<void> EndpointServer::start() {
  if (auto started = server_.start(); !started.ok()) return started;
  courier_ = std::jthread([this](std::stop_token stop) { send_webhooks(std::move(stop)); });
  if (!is_loopback(address_)) {
    log_.warning("whoever reaches this port may use it: the local API asks for no key");
  }
  return {};
}

std::string EndpointServer::url() const {
  std::string host = address_ == "0.0.0.0" ? "127.0.0.1" : address_ == "::" ? "::1" : address_;
  if (host.find(':') != std::string::npos) host = "[" + host + "]";
  return fmt::format("http://{}:{}", host, server_.port());
}

runpod::Environment EndpointServer::worker_environment() const {
  const std::string base = url() + "/v2/local";
  return {{"RUNPOD_WEBHOOK_GET_JOB", base + "/job-take/$ID?gpu=local"},
          {"RUNPOD_WEBHOOK_POST_OUTPUT", base + "/job-done/$RUNPOD_POD_ID/$ID?gpu=local"},
          {"RUNPOD_WEBHOOK_POST_STREAM", base + "/job-stream/$RUNPOD_POD_ID/$ID?gpu=local"},
          {"RUNPOD_WEBHOOK_PING", base + "/ping/$RUNPOD_POD_ID?gpu=local"},
          {"RUNPOD_AI_API_KEY", worker_key_},
          {"RUNPOD_POD_ID", "local"}};
}

void EndpointServer::stop() {
  closed_ = true;
  bell_.ring();
  if (courier_.joinable()) {
    courier_.request_stop();
    courier_.join();
  }
  server_.drain(std::chrono::seconds(2));
}

// ---- routes

void EndpointServer::add(verb method, const std::string& path, Call call, std::size_t body_limit) {
  const auto handler = [this, call](http::Request& request) { return (this->*call)(request); };
  router_.add(method, kPrefix + path, handler, {.body_limit = body_limit});
}

void EndpointServer::add_routes() {
  router_.add(verb::get, "/", [this](http::Request& request) { return about(request); });
  const auto client = [this](verb method, const std::string& path, Call call,
                             std::size_t limit = 0) {
    const auto handler = [this, call](http::Request& request) { return (this->*call)(request); };
    add(method, path, call, limit);
    router_.add(method, path, handler, {.body_limit = limit});
  };
  client(verb::post, "/run", &EndpointServer::run, kMostRun);
  client(verb::post, "/runsync", &EndpointServer::run_sync, kMostRunSync);
  for (const verb method : {verb::get, verb::post}) {
    client(method, "/status/{job}", &EndpointServer::status);
    client(method, "/stream/{job}", &EndpointServer::stream);
  }
  client(verb::post, "/cancel/{job}", &EndpointServer::cancel);
  client(verb::post, "/retry/{job}", &EndpointServer::retry);
  client(verb::post, "/purge-queue", &EndpointServer::purge);
  client(verb::get, "/health", &EndpointServer::health);
  add(verb::get, "/job-take/{worker}", &EndpointServer::take);
  add(verb::get, "/job-take-batch/{worker}", &EndpointServer::take);
  add(verb::get, "/job-stop/{worker}", &EndpointServer::jobs_to_stop);
  add(verb::post, "/job-done/{worker}/{job}", &EndpointServer::done, kMostResult);
  add(verb::post, "/job-stream/{worker}/{job}", &EndpointServer::partial, kMostPartial);
  add(verb::get, "/ping/{worker}", &EndpointServer::ping);
}

asio::awaitable<void> EndpointServer::wait(const std::function<bool()>& there, milliseconds at_most,
                                           std::stop_token gone) {
  const std::stop_callback on_gone(gone, [this] { bell_.ring(); });
  const auto until = steady_clock::now() + at_most;
  while (true) {
    const std::uint64_t heard = bell_.rings();
    // A job must not be given to who has left.
    if (gone.stop_requested() || there() || closed_ || steady_clock::now() >= until) co_return;
    auto next = until;
    if (const auto due = endpoint_.next_due()) {
      next = std::min(next, steady_clock::now() + (*due - clock_.now()));
    }
    co_await bell_.wait(heard, next);
  }
}

// ---- clients

EndpointServer::Answer EndpointServer::about(http::Request& request) {
  const json body = {
      {"limner", LIMNER_VERSION},
      {"what", "a RunPod endpoint at home; every call is also under /v2/ANY-NAME"},
      {"calls",
       {"POST /run", "POST /runsync?wait=MS", "GET /status/JOB?ttl=MS", "GET /stream/JOB",
        "POST /cancel/JOB", "POST /retry/JOB", "POST /purge-queue", "GET /health"}},
      {"try",
       fmt::format("curl {}/runsync -d '{{\"input\": {{\"prompt\": \"a red circle\"}}}}'", url())},
      {"python", fmt::format("RUNPOD_ENDPOINT_BASE_URL={}/v2", url())}};
  co_return json_answer(body);
}

EndpointServer::Answer EndpointServer::run(http::Request& request) {
  if (InterruptGuard::requested()) {
    throw Failure(ErrorCode::kUnavailable, "the worker is being shut down");
  }
  auto wanted = runpod::read_run_request(json_body(request), to_clients_).value_or_throw();
  const std::string id = endpoint_.submit(std::move(wanted), false);
  const json body = {{"id", id}, {"status", "IN_QUEUE"}};
  co_return json_answer(body);
}

EndpointServer::Answer EndpointServer::run_sync(http::Request& request) {
  if (InterruptGuard::requested()) {
    throw Failure(ErrorCode::kUnavailable, "the worker is being shut down");
  }
  const milliseconds at_most(number(request, "wait", kUsualWait, kLeastWait, kLongestWait));
  auto wanted = runpod::read_run_request(json_body(request), to_clients_).value_or_throw();
  const std::string id = endpoint_.submit(std::move(wanted), true);
  const std::function<bool()> ended = [&] {
    const auto over = endpoint_.ended(id);
    return !over.ok() || *over;
  };
  co_await wait(ended, at_most, request.gone);
  co_return json_answer(endpoint_.status(id).value_or_throw());
}

EndpointServer::Answer EndpointServer::status(http::Request& request) {
  std::optional<Millis> keep;
  const std::int64_t ttl = number(request, "ttl", -1, 0, kLongestKeep);
  if (ttl >= 0) keep = Millis(ttl);
  co_return json_answer(endpoint_.status(parameter(request, "job"), keep).value_or_throw());
}

EndpointServer::Answer EndpointServer::stream(http::Request& request) {
  co_return json_answer(endpoint_.stream(parameter(request, "job")).value_or_throw());
}

EndpointServer::Answer EndpointServer::cancel(http::Request& request) {
  co_return json_answer(endpoint_.cancel(parameter(request, "job")).value_or_throw());
}

EndpointServer::Answer EndpointServer::retry(http::Request& request) {
  co_return json_answer(endpoint_.retry(parameter(request, "job")).value_or_throw());
}

EndpointServer::Answer EndpointServer::purge(http::Request&) {
  co_return json_answer(endpoint_.purge_queue());
}

EndpointServer::Answer EndpointServer::health(http::Request&) {
  co_return json_answer(endpoint_.health());
}

// ---- the worker

void EndpointServer::check_worker(const http::Request& request) const {
  if (request.header("Authorization") == worker_key_) return;
  throw Failure(ErrorCode::kUnauthenticated, "this call is for the endpoint's own worker");
}

EndpointServer::Answer EndpointServer::take(http::Request& request) {
  check_worker(request);
  const bool batch = request.path.find("/job-take-batch/") != std::string::npos;
  const auto most = batch ? number(request, "batch_size", 1, 1, 1'000) : 1;
  std::vector<json> jobs;
  const std::function<bool()> taken = [&] {
    jobs = endpoint_.take(parameter(request, "worker"), static_cast<std::size_t>(most));
    return !jobs.empty();
  };
  co_await wait(taken, kHold, request.gone);
  if (jobs.empty()) co_return empty_answer(status::no_content);
  co_return json_answer(batch ? json(jobs) : jobs.front());
}

EndpointServer::Answer EndpointServer::jobs_to_stop(http::Request& request) {
  check_worker(request);
  std::vector<std::string> ids;
  const std::function<bool()> found = [&] {
    ids = endpoint_.jobs_to_stop(parameter(request, "worker"));
    return !ids.empty();
  };
  co_await wait(found, kHold, request.gone);
  if (ids.empty()) co_return empty_answer(status::no_content);
  const json body = {{"jobsToStop", ids}};
  co_return json_answer(body);
}

EndpointServer::Answer EndpointServer::done(http::Request& request) {
  check_worker(request);
  endpoint_.done(parameter(request, "worker"), parameter(request, "job"), json_body(request))
      .value_or_throw();
  co_return json_answer(json::object());
}

EndpointServer::Answer EndpointServer::partial(http::Request& request) {
  check_worker(request);
  endpoint_.partial(parameter(request, "worker"), parameter(request, "job"), json_body(request))
      .value_or_throw();
  co_return json_answer(json::object());
}

EndpointServer::Answer EndpointServer::ping(http::Request& request) {
  check_worker(request);
  const auto said = request.query.find("status");
  endpoint_.ping(parameter(request, "worker"),
                 said == request.query.end() || said->second != "unhealthy");
  co_return json_answer(json::object());
}

// ---- webhooks

void EndpointServer::send_webhooks(std::stop_token stop) {
  while (true) {
    const bool last = stop.stop_requested();
    const std::uint64_t heard = bell_.rings();
    for (runpod::ClientWebhook& webhook : endpoint_.take_webhooks()) send(std::move(webhook));
    if (last) return;
    const auto next = endpoint_.next_webhook();
    const auto wait = next ? *next - clock_.now() : milliseconds(std::chrono::hours(1));
    bell_.wait(heard, steady_clock::now() + wait, stop);
  }
}

void EndpointServer::send(runpod::ClientWebhook webhook) {
  std::string problem;
  try {
    platform::http::Request request;
    request.method = "POST";
    request.url = platform::http::parse_url(webhook.url).value_or_throw();
    request.headers = {"Content-Type: application/json", "User-Agent: limner/" LIMNER_VERSION};
    request.body = delivery::bytes_of(webhook.body);
    request.timeout = kWebhookTime;
    const auto reply = webhooks_.send(request);
    if (reply.ok() && reply->status >= 200 && reply->status < 300) return;
    problem = reply.ok() ? fmt::format("HTTP {}", reply->status) : reply.error().message;
  } catch (const std::exception& failure) {
    problem = failure.what();
  }
  log_.warning("a webhook did not arrive", {{"try", webhook.tries + 1}, {"error", problem}});
  endpoint_.put_back(std::move(webhook));
}

}  // namespace limner::cli
