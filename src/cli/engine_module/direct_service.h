// DirectService: the worker of a load-balancing endpoint, whose clients the platform connects to
// it without a queue (docs.runpod.io, serverless/load-balancing).
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <stop_token>
#include <string>

#include "base/error.h"
#include "base/log.h"
#include "gateway/http/blocking.h"
#include "gateway/http/router.h"
#include "gateway/http/server.h"
#include "platform/clock.h"
#include "runpod/control_plane.h"
#include "runpod/job_drawer.h"

namespace limner::cli {

struct DirectOptions {
  std::string address = "0.0.0.0";
  std::uint16_t port = 80;                        // PORT; 0: one that is free
  std::uint16_t health_port = 80;                 // PORT_HEALTH, PORT where that is not set
  std::string health_path = "/ping";              // HEALTH_CHECK_PATH
  std::size_t concurrency = 1;                    // requests drawn at a time
  std::size_t most_waiting = 4;                   // for a place among them; beyond it 503
  std::chrono::milliseconds time_limit{330'000};  // of one request; the platform's
};
// Errors: kInvalidArgument naming the variable.
Result<DirectOptions> read_direct_options(const runpod::Environment& environment);

// POST /generate: a job's input, answered with its output. POST /runsync: {"input"}, answered with
// a status object. GET of the health path: 204 until ready(), 200 while it can draw, 503 when it
// drains or can draw no more. start(), ready() and drain() once each, in this order, by one thread.
class DirectService {
 public:
  // `log` outlives it.
  DirectService(DirectOptions options, Log& log);

  Result<void> start();  // errors as Server::start
  std::string url() const;
  // From now on requests are drawn. Both outlive drain().
  void ready(runpod::JobDrawer& drawer, const runpod::PlatformSettings& settings);
  // Drawing fails again and again for a reason inside, or hangs (worker::Patience): a fresh process
  // is wanted.
  bool broken() const { return hangs_ || failures_ >= kMostFailures; }
  // Refuses new requests, and waits for those that it has; beyond `at_most` they end with 503 at
  // their next step. True: all were finished.
  bool drain(std::chrono::milliseconds at_most);
  // After drain(): a drawing hangs still, so the program has to end by _exit.
  bool left_behind() const { return left_behind_; }

 private:
  static constexpr int kMostFailures = 3;
  using Answer = boost::asio::awaitable<gateway::http::Response>;
  struct Drawing;
  class Place;
  class Watch;

  void add_health(gateway::http::Router& router);
  gateway::http::beast_http::status health() const;
  Answer generate(gateway::http::Request& request);
  Answer run_sync(gateway::http::Request& request);
  boost::asio::awaitable<void> draw(gateway::http::Request& request, Drawing& drawing);
  Result<runpod::Drawn> draw_now(Drawing& drawing, worker::Pulse& pulse, std::stop_token stop);
  void count(const Drawing& drawing);
  bool wait_until_empty(std::chrono::milliseconds at_most) const;

  const DirectOptions options_;
  Log& log_;
  runpod::JobDrawer* drawer_ = nullptr;  // set before ready_, like settings_
  const runpod::PlatformSettings* settings_ = nullptr;
  platform::SystemClock clock_;
  std::atomic<bool> ready_ = false, draining_ = false;
  std::atomic<bool> hangs_ = false;
  bool left_behind_ = false;             // the draining thread's
  std::atomic<int> failures_ = 0;        // inside, one after the other
  std::atomic<std::size_t> inside_ = 0;  // requests drawn and waiting
  std::stop_source over_;                // the time of drain() is up
  gateway::http::Blocking threads_;
  gateway::http::Router router_, health_router_;
  gateway::http::Server server_;
  std::unique_ptr<gateway::http::Server> health_server_;  // null: on the same port
};

}  // namespace limner::cli
