// TlsStream: TLS on a socket, in as little memory as OpenSSL needs. Asio's own stream keeps 70 KiB
// of buffers for each connection that waits; here bytes go from the socket into OpenSSL and back.
#pragma once

#include <openssl/ssl.h>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <cstddef>
#include <functional>
#include <memory>
#include <string_view>

namespace limner::gateway::http {

// What every connection of a context should have: buffers given back while nothing is on the way,
// writes that may go on from another address, no list of sessions (tickets hold them).
void save_memory(SSL_CTX* context);

// Used on the socket's strand alone; one reads and one writes at a time. Errors are
// boost::system::system_error; boost::asio::error::eof where the client said goodbye or left.
class TlsStream {
 public:
  // Both outlive it. What was begun ends when the socket is closed.
  TlsStream(boost::asio::ip::tcp::socket& socket, SSL_CTX* context);

  boost::asio::awaitable<void> handshake();
  boost::asio::awaitable<void> write(std::string_view bytes);
  // Says goodbye and waits for the client's.
  boost::asio::awaitable<void> shutdown();

  // Calls `done` once, never from inside the call, with how many bytes came. `into` and whatever
  // else `done` needs stay until then.
  using Done = std::function<void(const boost::system::error_code&, std::size_t)>;
  void read_some(boost::asio::mutable_buffer into, Done done);

 private:
  // Calls one of OpenSSL's functions again and again, until it is done with it.
  boost::asio::awaitable<void> drive(std::function<int()> call);
  void go_on_reading(boost::asio::mutable_buffer into, Done done);

  boost::asio::ip::tcp::socket& socket_;
  std::unique_ptr<SSL, decltype(&SSL_free)> ssl_;
};

}  // namespace limner::gateway::http
