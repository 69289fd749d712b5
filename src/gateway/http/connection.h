// Connection: one client's requests, one after the other.
#pragma once

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "base/log.h"
#include "gateway/http/head.h"
#include "gateway/http/message.h"
#include "gateway/http/server.h"
#include "gateway/http/wire.h"

namespace limner::gateway::http {

// What all connections of a server share; outlives them.
struct ConnectionContext {
  const ServerOptions& options;
  const Handler& handler;
  Log& log;
  SSL_CTX* tls = nullptr;  // null: plain HTTP
  std::atomic<bool>& draining;
};

// Lives on its socket's strand; run() keeps it alive.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(boost::asio::ip::tcp::socket socket, std::string peer, ConnectionContext context);

  // Until the client or the server ends it. Throws nothing.
  boost::asio::awaitable<void> run();

  // From any thread. Ends the connection if it waits for a request, else after the present one.
  void drain();
  // From any thread. Closes at once; the handler's Request::gone is asked.
  void abort();

 private:
  enum class Next { kRequest, kClose, kLinger };

  boost::asio::awaitable<void> answer_all();
  boost::asio::awaitable<Next> answer_one();
  boost::asio::awaitable<bool> wait_for_request();
  boost::asio::awaitable<std::optional<Problem>> read_header(Request& request);
  boost::asio::awaitable<std::string> read_body(std::size_t limit);
  boost::asio::awaitable<void> read_body_bytes(std::size_t limit);
  boost::asio::awaitable<bool> skip_body();
  bool can_go_on() const;
  boost::asio::awaitable<Response> call_handler(Request& request);
  std::string make_head(Response& response, Framing& framing) const;
  boost::asio::awaitable<void> send(Response& response, bool head_only, Framing framing);
  boost::asio::awaitable<void> send_stream(BodyStream& stream, bool chunked);
  void fill(Request& request);
  void watch();
  void client_left();

  const boost::asio::any_io_executor strand_;
  const std::shared_ptr<Wire> wire_;
  const std::string peer_;
  const ConnectionContext context_;

  bool idle_ = true;  // waits for a request's first byte
  bool aborted_ = false;
  // Of the present request.
  std::optional<Parser> parser_;
  bool body_failed_ = false;
  std::stop_source gone_;
  boost::asio::cancellation_signal cancel_;  // of the handler, then of the stream
};

}  // namespace limner::gateway::http
