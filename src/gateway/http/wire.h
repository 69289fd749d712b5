// Wire: the bytes of one connection, plain or through TLS, with a limit on every wait.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/http/tls_stream.h"

namespace limner::gateway::http {

// Used on the socket's strand alone; one coroutine reads and one writes at a time. A read goes on
// while nobody waits for it, which is how a client is seen to leave.
class Wire : public std::enable_shared_from_this<Wire> {
 public:
  using Time = std::chrono::steady_clock::time_point;
  enum class More { kBytes, kEnd, kTimeout };

  // `tls` is null for plain HTTP, and outlives the wire.
  Wire(boost::asio::ip::tcp::socket socket, SSL_CTX* tls);

  // Nothing to do for plain HTTP. Throws boost::system::system_error.
  boost::asio::awaitable<void> handshake(std::chrono::milliseconds limit);

  // What came and was not used; who uses a part of it erases it.
  std::string& unread() { return unread_; }
  // Waits for more of it. `piece` is how many bytes to ask the system for at once.
  boost::asio::awaitable<More> more(Time until, std::size_t piece = kPiece);

  // Reads on into unread(), up to a limit, and calls `on_end`, once, when the client has left.
  void watch(std::function<void()> on_end);
  void unwatch() { on_end_ = nullptr; }

  // Throws boost::system::system_error when the client has left, or takes too little: `limit` is
  // for each 64 KiB.
  boost::asio::awaitable<void> write(std::string_view bytes, std::chrono::milliseconds limit);

  // Tells the client that nothing more comes, reads away what it still sends for `limit` at most,
  // so that it gets to see the answer (RFC 9112, section 9.6), and closes.
  boost::asio::awaitable<void> linger(std::chrono::milliseconds limit);
  boost::asio::awaitable<void> finish();  // closes, with TLS's goodbye
  void close();                           // at once

  static constexpr std::size_t kPiece = 2 << 10;  // enough for nearly every request
  static constexpr std::size_t kReadAhead = 16 << 10;

 private:
  void start_reading(std::size_t piece);
  void on_read(const boost::system::error_code& failed, std::size_t bytes);

  boost::asio::ip::tcp::socket socket_;
  std::optional<TlsStream> tls_;
  boost::asio::steady_timer arrived_;  // cancelled when a read has ended
  boost::asio::steady_timer stall_;
  std::vector<char> incoming_;  // of the read that is under way
  std::string unread_;
  bool reading_ = false;
  bool ended_ = false;
  std::function<void()> on_end_;
};

}  // namespace limner::gateway::http
