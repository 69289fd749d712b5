#include "cli/engine_module/direct_service.h"

#include <fmt/format.h>

#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <charconv>
#include <memory>
#include <thread>

#include "cli/engine_module/json_service.h"
#include "gateway/http/problem.h"
#include "runpod/endpoint.h"
#include "runpod/job_error.h"

namespace limner::cli {

namespace asio = boost::asio;
namespace http = gateway::http;
using http::beast_http::status;
using http::beast_http::verb;
using nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

constexpr std::size_t kMostBody = std::size_t{30} << 20;  // the platform's
constexpr std::chrono::seconds kRetryAfter{5};
constexpr std::chrono::seconds kStopGrace{10};  // for a drawing to end when it is told to

std::string value(const runpod::Environment& environment, const char* name) {
  const auto found = environment.find(name);
  return found == environment.end() ? std::string() : found->second;
}

// Throws Failure.
std::uint16_t port(const runpod::Environment& environment, const char* name, std::uint16_t usual) {
  const std::string text = value(environment, name);
  if (text.empty()) return usual;
  std::uint16_t number = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), number);
  if (read.ec == std::errc() && read.ptr == text.data() + text.size()) return number;
  throw Failure(ErrorCode::kInvalidArgument,
                fmt::format("{} must be a port, got '{}'", name, text.substr(0, 40)));
}

http::ServerOptions server_options(const DirectOptions& options, std::uint16_t its_port) {
  http::ServerOptions made;
  made.address = options.address;
  made.port = its_port;
  made.body_limit = kMostBody;
  made.connections_per_address = 0;  // all of them are the platform's
  return made;
}

[[noreturn]] void refuse(std::string code, std::string detail) {
  throw http::ProblemFailure({.status = status::service_unavailable,
                              .code = std::move(code),
                              .detail = std::move(detail),
                              .retry_after = kRetryAfter});
}

std::int64_t ms_between(steady_clock::time_point from, steady_clock::time_point to) {
  return std::chrono::duration_cast<milliseconds>(to - from).count();
}

}  // namespace

Result<DirectOptions> read_direct_options(const runpod::Environment& environment) {
  DirectOptions options;
  try {
    options.port = port(environment, "PORT", options.port);
    options.health_port = port(environment, "PORT_HEALTH", options.port);
  } catch (const Failure& failure) {
    return failure.error();
  }
  const std::string path = value(environment, "HEALTH_CHECK_PATH");
  if (!path.empty()) options.health_path = path;
  // What a Router takes as a fixed path.
  const bool plain = path.find_first_of("{}?#% ") == std::string::npos;
  if (options.health_path.front() == '/' && plain) return options;
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("HEALTH_CHECK_PATH must be a path such as /ping, got '{}'",
                           options.health_path.substr(0, 40))};
}

// One request that is drawn.
struct DirectService::Drawing {
  std::string id{};
  json input{};
  Result<runpod::Drawn> result = Error{};
  steady_clock::time_point asked{}, began{}, ended{};
};

// A request's place among those that are drawn or wait to be.
class DirectService::Place {
 public:
  explicit Place(DirectService& service) : service_(service) {
    if (service_.draining_) refuse("unavailable", "this worker is being shut down");
    if (!service_.ready_) refuse("unavailable", "this worker is still loading its model");
    if (service_.broken()) refuse("unavailable", "this worker can draw no more");
    const std::size_t most = service_.options_.concurrency + service_.options_.most_waiting;
    if (service_.inside_.fetch_add(1) < most) return;
    --service_.inside_;
    refuse("overloaded", fmt::format("this worker has {} requests already", most));
  }
  ~Place() { --service_.inside_; }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

 private:
  DirectService& service_;
};

// Looks at a drawing every second: whether its request has any time left, and whether the engine
// is silent for longer than it may. Lives on its connection's strand, but for the pulse.
class DirectService::Watch : public std::enable_shared_from_this<Watch> {
 public:
  Watch(DirectService& service, asio::any_io_executor executor, std::stop_source stop)
      : service_(service),
        timer_(std::move(executor)),
        stop_(std::move(stop)),
        until_(steady_clock::now() + service.options_.time_limit) {}

  void begin() {
    timer_.expires_after(std::chrono::seconds(1));
    timer_.async_wait([self = shared_from_this()](const boost::system::error_code& ended) {
      if (ended || self->over_) return;
      self->look();
      self->begin();
    });
  }
  void end() {
    over_ = true;
    timer_.cancel();
  }
  bool late() const { return late_; }
  worker::Pulse& pulse() { return pulse_; }

 private:
  void look() {
    const auto now = steady_clock::now();
    if (now >= until_) {
      late_ = true;
      stop_.request_stop();
    }
    const worker::Pulse::Beat beat = pulse_.read();
    if (beat.limit.count() == 0 || beat.number != seen_beat_) {
      seen_beat_ = beat.number;
      seen_since_ = now;
    } else if (now - seen_since_ > beat.limit && !service_.hangs_.exchange(true)) {
      service_.log_.error("a drawing hangs; this worker ends");
    }
  }

  DirectService& service_;
  asio::steady_timer timer_;
  std::stop_source stop_;
  const steady_clock::time_point until_;
  bool over_ = false, late_ = false;
  worker::Pulse pulse_;
  std::uint64_t seen_beat_ = 0;
  steady_clock::time_point seen_since_ = steady_clock::now();
};

DirectService::DirectService(DirectOptions options, Log& log)
    : options_(std::move(options)),
      log_(log),
      threads_(options_.concurrency),
      server_(server_options(options_, options_.port), json_service(router_, kMostBody, log), log) {
  router_.add(verb::post, "/generate",
              [this](http::Request& request) { return generate(request); });
  router_.add(verb::post, "/runsync", [this](http::Request& request) { return run_sync(request); });
  if (options_.health_port == options_.port) {
    add_health(router_);
  } else {
    add_health(health_router_);
    health_server_ =
        std::make_unique<http::Server>(server_options(options_, options_.health_port),
                                       json_service(health_router_, kMostBody, log), log);
  }
}

Result<void> DirectService::start() {
  if (health_server_) {
    if (auto started = health_server_->start(); !started.ok()) return started;
  }
  return server_.start();
}

std::string DirectService::url() const {
  return fmt::format("http://{}:{}", options_.address, server_.port());
}

void DirectService::ready(runpod::JobDrawer& drawer, const runpod::PlatformSettings& settings) {
  drawer_ = &drawer;
  settings_ = &settings;
  ready_ = true;
}

bool DirectService::wait_until_empty(milliseconds at_most) const {
  const auto until = steady_clock::now() + at_most;
  while (inside_ > 0 && steady_clock::now() < until) {
    std::this_thread::sleep_for(milliseconds(20));
  }
  return inside_ == 0;
}

bool DirectService::drain(milliseconds at_most) {
  draining_ = true;
  // The health path goes on telling that nothing more should come.
  const bool finished = wait_until_empty(at_most);
  over_.request_stop();
  // Closing the server waits for all who are inside.
  left_behind_ = !wait_until_empty(kStopGrace);
  if (left_behind_) return false;
  server_.drain(std::chrono::seconds(30));
  if (health_server_) health_server_->stop();
  return finished;
}

// ---- health

status DirectService::health() const {
  if (draining_ || broken()) return status::service_unavailable;
  return ready_ ? status::ok : status::no_content;
}

namespace {

boost::asio::awaitable<http::Response> answer_health(status now) {
  if (now == status::no_content) co_return empty_answer(now);
  http::Response response = json_answer({{"status", now == status::ok ? "ready" : "unavailable"}});
  response.status = now;
  co_return response;
}

}  // namespace

void DirectService::add_health(http::Router& router) {
  router.add(verb::get, options_.health_path,
             [this](http::Request&) { return answer_health(health()); });
}

// ---- drawing

Result<runpod::Drawn> DirectService::draw_now(Drawing& drawing, worker::Pulse& pulse,
                                              std::stop_token stop) {
  drawing.began = steady_clock::now();
  if (stop.stop_requested()) return Error{ErrorCode::kCancelled, "the request was stopped"};
  runpod::DrawerHooks hooks;
  hooks.pulse = &pulse;
  return drawer_->draw(drawing.id, drawing.input, hooks, std::move(stop));
}

asio::awaitable<void> DirectService::draw(http::Request& request, Drawing& drawing) {
  drawing.asked = steady_clock::now();
  std::stop_source stop;
  const std::stop_callback on_gone(request.gone, [&stop] { stop.request_stop(); });
  const std::stop_callback on_over(over_.get_token(), [&stop] { stop.request_stop(); });
  const auto executor = co_await asio::this_coro::executor;
  const auto watch = std::make_shared<Watch>(*this, executor, stop);
  watch->begin();
  auto work = [this, &drawing, watch, token = stop.get_token()] {
    return draw_now(drawing, watch->pulse(), token);
  };
  drawing.result = co_await http::blocking(threads_, std::move(work));
  watch->end();
  drawing.ended = steady_clock::now();
  count(drawing);
  const bool stopped = !drawing.result.ok() && drawing.result.error().code == ErrorCode::kCancelled;
  if (stopped && watch->late()) {
    drawing.result = Error{ErrorCode::kDeadlineExceeded,
                           "the pictures were not ready in the time that a request has"};
  } else if (stopped && over_.stop_requested()) {
    drawing.result =
        Error{ErrorCode::kUnavailable,
              "the worker was shut down before the request was finished; send it again", true};
  }
}

void DirectService::count(const Drawing& drawing) {
  const bool drawn = drawing.result.ok();
  const ErrorCode code = drawn ? ErrorCode::kCancelled : drawing.result.error().code;
  log_.info("a request ended",
            {{"request_id", drawing.id},
             {"outcome", drawn ? "completed" : name(code)},
             {"seconds", static_cast<double>(ms_between(drawing.began, drawing.ended)) / 1e3}});
  if (drawn) {
    failures_ = 0;
  } else if (code == ErrorCode::kInternal && ++failures_ == kMostFailures) {
    log_.error("drawing fails again and again; this worker ends",
               {{"error", drawing.result.error().message}});
  }
}

DirectService::Answer DirectService::generate(http::Request& request) {
  const Place place(*this);
  Drawing drawing;
  drawing.id = runpod::new_job_id(true);
  drawing.input = json_body(request);
  co_await draw(request, drawing);
  if (drawing.result.ok()) co_return json_answer(drawing.result->output);
  const Error& error = drawing.result.error();
  http::Response response =
      json_answer(runpod::error_object(error, *settings_, drawer_->state(), clock_.wall()));
  response.status = http::status_of(error.code);
  if (response.status == status::service_unavailable) {
    response.set("Retry-After", std::to_string(kRetryAfter.count()));
  }
  co_return response;
}

DirectService::Answer DirectService::run_sync(http::Request& request) {
  const Place place(*this);
  Drawing drawing;
  drawing.id = runpod::new_job_id(true);
  const json body = json_body(request);
  if (!body.is_object() || !body.contains("input") || body["input"].is_null()) {
    throw Failure(ErrorCode::kInvalidArgument, "input is wanted: {\"input\": {...}}");
  }
  drawing.input = body["input"];
  co_await draw(request, drawing);
  json answer = {{"id", drawing.id},
                 {"delayTime", ms_between(drawing.asked, drawing.began)},
                 {"executionTime", ms_between(drawing.began, drawing.ended)}};
  if (drawing.result.ok()) {
    answer["status"] = "COMPLETED";
    answer["output"] = std::move(drawing.result->output);
  } else if (drawing.result.error().code == ErrorCode::kUnavailable) {
    throw Failure(drawing.result.error());  // so that the platform's own retry sees it
  } else {
    answer["status"] = "FAILED";
    answer["error"] = runpod::error_text(drawing.result.error(), *settings_, drawer_->state(),
                                         platform::SystemClock().wall());
  }
  co_return json_answer(answer);
}

}  // namespace limner::cli
