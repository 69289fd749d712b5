#include "gateway/http/server.h"

#include <algorithm>
#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

#include "gateway/http/connection.h"

namespace limner::gateway::http {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

// Throws Failure.
asio::ssl::context make_tls(const ServerOptions& options) {
  asio::ssl::context tls(asio::ssl::context::tls_server);
  tls.set_options(asio::ssl::context::default_workarounds | asio::ssl::context::single_dh_use);
  SSL_CTX_set_min_proto_version(tls.native_handle(), TLS1_2_VERSION);
  SSL_CTX_set_options(tls.native_handle(), SSL_OP_NO_RENEGOTIATION);
  save_memory(tls.native_handle());
  error_code failed;
  tls.use_certificate_chain_file(options.certificate.string(), failed);
  if (failed)
    throw Failure(ErrorCode::kInvalidArgument,
                  "[http] " + options.certificate.string() +
                      " is no certificate in PEM form: " + failed.message());
  tls.use_private_key_file(options.private_key.string(), asio::ssl::context::pem, failed);
  if (failed)
    throw Failure(ErrorCode::kInvalidArgument,
                  "[http] " + options.private_key.string() +
                      " is not the certificate's private key: " + failed.message());
  return tls;
}

// "::ffff:192.0.2.1" is how a port that takes both kinds sees an IPv4 client.
std::string text_of(const asio::ip::address& address) {
  if (address.is_v6() && address.to_v6().is_v4_mapped())
    return asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6()).to_string();
  return address.to_string();
}

}  // namespace

class Server::Listener {
 public:
  Listener(ServerOptions options, Handler handler, Log& log)
      : options_(std::move(options)), handler_(std::move(handler)), log_(log) {}
  ~Listener() { stop(); }

  void start();  // throws Failure
  bool drain(std::chrono::milliseconds deadline);
  void stop();

  std::uint16_t port() const { return port_; }
  std::size_t connections() const {
    const std::scoped_lock lock(mutex_);
    return connections_.size();
  }

 private:
  void listen();
  void run_thread();
  asio::awaitable<void> accept_all();
  void take(tcp::socket socket);
  bool enter(const std::shared_ptr<Connection>& connection, const std::string& peer);
  void leave(const std::shared_ptr<Connection>& connection, const std::string& peer);
  std::vector<std::shared_ptr<Connection>> all() const;
  void stop_accepting();

  const ServerOptions options_;
  const Handler handler_;
  Log& log_;
  asio::io_context io_;
  std::optional<asio::ssl::context> tls_;
  asio::strand<asio::io_context::executor_type> accepting_{io_.get_executor()};
  // Both on `accepting_` once started.
  tcp::acceptor acceptor_{accepting_};
  asio::steady_timer room_{accepting_};  // cancelled when a connection ends

  std::atomic<std::uint16_t> port_ = 0;
  std::atomic<bool> draining_ = false;
  std::atomic<bool> stopped_ = false;

  mutable std::mutex mutex_;
  std::condition_variable ended_;
  std::unordered_set<std::shared_ptr<Connection>> connections_;  // by mutex_
  std::map<std::string, std::size_t> by_address_;                // by mutex_
  std::mutex join_mutex_;
  std::vector<std::thread> threads_;  // by join_mutex_
};

void Server::Listener::listen() {
  error_code failed;
  const auto address = asio::ip::make_address(options_.address, failed);
  if (failed)
    throw Failure(
        ErrorCode::kInvalidArgument,
        "[http] want an IPv4 or IPv6 address to listen on, got '" + options_.address + "'");
  const tcp::endpoint endpoint(address, options_.port);
  acceptor_.open(endpoint.protocol(), failed);
  if (!failed) acceptor_.set_option(tcp::acceptor::reuse_address(true), failed);
  if (!failed && address.is_v6()) acceptor_.set_option(asio::ip::v6_only(false), failed);
  if (!failed) acceptor_.bind(endpoint, failed);
  if (!failed) acceptor_.listen(asio::socket_base::max_listen_connections, failed);
  if (failed)
    throw Failure(ErrorCode::kIo, "[http] cannot listen on " + options_.address + " port " +
                                      std::to_string(options_.port) + ": " + failed.message());
  port_ = acceptor_.local_endpoint().port();
}

void Server::Listener::start() {
  if (options_.certificate.empty() != options_.private_key.empty())
    throw Failure(ErrorCode::kInvalidArgument,
                  "[http] TLS wants both a certificate and its private key");
  if (!options_.certificate.empty()) tls_.emplace(make_tls(options_));
  listen();
  asio::co_spawn(accepting_, accept_all(), asio::detached);
  const std::scoped_lock lock(join_mutex_);
  for (std::size_t i = 0; i < std::max<std::size_t>(options_.threads, 1); ++i)
    threads_.emplace_back([this] { run_thread(); });
}

void Server::Listener::run_thread() {
  for (;;) {
    try {
      io_.run();
      return;
    } catch (const std::exception& failure) {
      log_.error("a thread of the HTTP server caught an error", {{"error", failure.what()}});
    }
  }
}

asio::awaitable<void> Server::Listener::accept_all() {
  while (!draining_) {
    error_code failed;
    if (connections() >= options_.connections) {
      room_.expires_after(std::chrono::seconds(1));
      co_await room_.async_wait(asio::redirect_error(asio::use_awaitable, failed));
      continue;
    }
    const asio::any_io_executor strand = asio::make_strand(io_);
    tcp::socket socket =
        co_await acceptor_.async_accept(strand, asio::redirect_error(asio::use_awaitable, failed));
    if (draining_) break;
    if (!failed) {
      take(std::move(socket));
    } else if (failed != asio::error::connection_aborted) {
      // No file descriptors, most likely: the next one may find some.
      log_.warning("a connection could not be accepted", {{"error", failed.message()}});
      room_.expires_after(std::chrono::milliseconds(100));
      co_await room_.async_wait(asio::redirect_error(asio::use_awaitable, failed));
    }
  }
  error_code ignored;
  acceptor_.close(ignored);
}

void Server::Listener::take(tcp::socket socket) {
  error_code failed;
  const auto remote = socket.remote_endpoint(failed);
  if (failed) return;  // it has left already
  socket.set_option(tcp::no_delay(true), failed);
  const std::string peer = text_of(remote.address());
  const auto strand = socket.get_executor();
  auto connection = std::make_shared<Connection>(
      std::move(socket), peer,
      ConnectionContext{options_, handler_, log_, tls_ ? tls_->native_handle() : nullptr,
                        draining_});
  if (!enter(connection, peer)) return;
  asio::co_spawn(strand, connection->run(),
                 [this, connection, peer](const std::exception_ptr&) { leave(connection, peer); });
}

bool Server::Listener::enter(const std::shared_ptr<Connection>& connection,
                             const std::string& peer) {
  const std::scoped_lock lock(mutex_);
  if (draining_) return false;
  const std::size_t most = options_.connections_per_address;
  std::size_t& count = by_address_[peer];
  if (most != 0 && count >= most) return false;
  ++count;
  connections_.insert(connection);
  return true;
}

void Server::Listener::leave(const std::shared_ptr<Connection>& connection,
                             const std::string& peer) {
  {
    const std::scoped_lock lock(mutex_);
    connections_.erase(connection);
    const auto count = by_address_.find(peer);
    if (--count->second == 0) by_address_.erase(count);
    ended_.notify_all();
  }
  if (connections() + 1 >= options_.connections) asio::post(accepting_, [this] { room_.cancel(); });
}

std::vector<std::shared_ptr<Connection>> Server::Listener::all() const {
  const std::scoped_lock lock(mutex_);
  return {connections_.begin(), connections_.end()};
}

void Server::Listener::stop_accepting() {
  {
    const std::scoped_lock lock(mutex_);  // after which enter() lets nobody in
    if (draining_.exchange(true)) return;
  }
  asio::post(accepting_, [this] {
    error_code ignored;
    acceptor_.close(ignored);
    room_.cancel();
  });
}

bool Server::Listener::drain(std::chrono::milliseconds deadline) {
  stop_accepting();
  for (const auto& connection : all()) connection->drain();
  std::unique_lock lock(mutex_);
  const bool empty =
      ended_.wait_for(lock, deadline, [&] { return connections_.empty() || stopped_; });
  lock.unlock();
  const bool left = !empty || stopped_;
  stop();
  return !left;
}

void Server::Listener::stop() {
  stopped_ = true;
  stop_accepting();
  for (const auto& connection : all()) connection->abort();
  {
    const std::scoped_lock lock(mutex_);
    ended_.notify_all();
  }
  const std::scoped_lock lock(join_mutex_);
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

Server::Server(ServerOptions options, Handler handler, Log& log)
    : listener_(std::make_unique<Listener>(std::move(options), std::move(handler), log)) {}

Server::~Server() = default;

Result<void> Server::start() {
  try {
    listener_->start();
    return {};
  } catch (const Failure& failure) {
    return failure.error();
  }
}

std::uint16_t Server::port() const {
  return listener_->port();
}
std::size_t Server::connections() const {
  return listener_->connections();
}
bool Server::drain(std::chrono::milliseconds deadline) {
  return listener_->drain(deadline);
}
void Server::stop() {
  listener_->stop();
}

}  // namespace limner::gateway::http
