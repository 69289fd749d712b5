// EndpointServer: a RunPod endpoint at home: runpod::Endpoint behind HTTP, for its clients and for
// its worker, with the calls and paths that the platform has.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "cli/engine_module/bell.h"
#include "gateway/http/router.h"
#include "gateway/http/server.h"
#include "platform/clock.h"
#include "platform/http/exchange.h"
#include "runpod/control_plane.h"
#include "runpod/endpoint.h"

namespace limner::cli {

struct EndpointServerOptions {
  std::string host = "localhost";                            // or an address
  std::uint16_t port = 8000;                                 // 0: one that is free
  std::vector<platform::http::AddressRange> egress_allow{};  // whom webhooks may reach besides
};

// start() once, stop() once. Its client wants no key; its worker has one of its own.
class EndpointServer {
 public:
  EndpointServer(EndpointServerOptions options, Log& log);
  ~EndpointServer();

  Result<void> start();  // errors as Server::start
  std::string url() const;
  // What the platform would set for the worker of this endpoint.
  runpod::Environment worker_environment() const;
  // Ends all waiting, sends the webhooks that are due once more, and closes the port.
  void stop();

 private:
  using Answer = boost::asio::awaitable<gateway::http::Response>;
  using Call = Answer (EndpointServer::*)(gateway::http::Request&);

  void add_routes();
  void add(gateway::http::beast_http::verb verb, const std::string& path, Call call,
           std::size_t body_limit = 0);
  void check_worker(const gateway::http::Request& request) const;
  boost::asio::awaitable<void> wait(const std::function<bool()>& there,
                                    std::chrono::milliseconds at_most, std::stop_token gone);
  void send_webhooks(std::stop_token stop);
  void send(runpod::ClientWebhook webhook);

  // Clients.
  Answer about(gateway::http::Request& request);
  Answer run(gateway::http::Request& request);
  Answer run_sync(gateway::http::Request& request);
  Answer status(gateway::http::Request& request);
  Answer stream(gateway::http::Request& request);
  Answer cancel(gateway::http::Request& request);
  Answer retry(gateway::http::Request& request);
  Answer purge(gateway::http::Request& request);
  Answer health(gateway::http::Request& request);
  // The worker.
  Answer take(gateway::http::Request& request);
  Answer jobs_to_stop(gateway::http::Request& request);
  Answer done(gateway::http::Request& request);
  Answer partial(gateway::http::Request& request);
  Answer ping(gateway::http::Request& request);

  const EndpointServerOptions options_;
  const std::string address_;
  Log& log_;
  const platform::http::NetworkRules to_clients_;
  platform::http::WebExchange webhooks_;
  const std::string worker_key_;
  platform::SystemClock clock_;
  Bell bell_;
  std::atomic<bool> closed_ = false;
  runpod::Endpoint endpoint_;
  gateway::http::Router router_;
  gateway::http::Server server_;
  std::jthread courier_;
};

}  // namespace limner::cli
