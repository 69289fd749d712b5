// Server: HTTP/1.1 on one port. It turns bytes into Requests, has each answered by one handler, and
// sends the answers; what an answer is lies behind the handler (service.h).
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "base/error.h"
#include "base/log.h"
#include "gateway/http/message.h"

namespace limner::gateway::http {

struct ServerOptions {
  std::string address = "127.0.0.1";  // IPv4 or IPv6; "::" takes both kinds
  std::uint16_t port = 0;             // 0: any that is free; Server::port() says which
  std::size_t threads = 2;            // that move bytes
  // Both or none, PEM. With them the port speaks TLS 1.2 or later, and nothing else.
  std::filesystem::path certificate{}, private_key{};

  std::size_t header_limit = 16 << 10;  // bytes of request line and header; beyond it 431
  std::size_t body_limit = std::size_t{32} << 20;  // beyond it 413
  std::size_t connections = 4096;                  // more wait in the system's backlog
  std::size_t connections_per_address = 1024;      // more are closed at once; 0: no limit

  // Waits, each ended by closing the connection (by 408 first, where a request had begun).
  std::chrono::milliseconds header_time = std::chrono::seconds(10);  // first to last byte of it
  std::chrono::milliseconds body_time = std::chrono::minutes(2);     // all of a body
  std::chrono::milliseconds body_stall = std::chrono::seconds(15);   // between two pieces of it
  std::chrono::milliseconds idle_time = std::chrono::seconds(75);    // between two requests
  std::chrono::milliseconds write_stall = std::chrono::seconds(30);  // for 64 KiB of an answer
};

// Starts with start(), on threads of its own. Safe to call from many threads.
//
// A handler is called on the connection's strand, one at a time for each connection, and its
// coroutine goes on there after every co_await. While it runs, the connection is watched: when the
// client leaves, Request::gone is asked, and a BodyStream that waits in next() is cancelled
// (Asio's terminal cancellation) and destroyed. A client that has only shut down its sending side
// looks the same; it is still sent the answer of a handler that gives one.
//
// No more than one request of a connection is answered at a time; those that follow wait, and their
// bytes stay in the system's buffers.
class Server {
 public:
  // `handler` and `log` outlive the server. The handler should not throw; where it does, the answer
  // is a bare 500.
  Server(ServerOptions options, Handler handler, Log& log);
  ~Server();  // stops at once
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Binds, listens and begins to answer. Errors: kInvalidArgument (address, certificate, key), kIo
  // (the port is taken, no permission).
  Result<void> start();
  std::uint16_t port() const;  // the one that was bound
  std::size_t connections() const;

  // Stops accepting, closes idle connections, and lets what is under way come to its end. Returns
  // when all has, or at the deadline, after which stop() ends what is left: true if nothing was
  // left. A connection that had a request answered meanwhile is told `Connection: close`.
  bool drain(std::chrono::milliseconds deadline);
  // Closes every connection at once, asks every Request::gone, and returns when all handlers have
  // returned. Also ends a drain() that waits in another thread. May be called again.
  void stop();

 private:
  class Listener;
  std::unique_ptr<Listener> listener_;
};

}  // namespace limner::gateway::http
