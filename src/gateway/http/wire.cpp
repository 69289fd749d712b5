#include "gateway/http/wire.h"

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <utility>

namespace limner::gateway::http {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {

constexpr std::size_t kWritePiece = 64 << 10;

}  // namespace

Wire::Wire(asio::ip::tcp::socket socket, SSL_CTX* tls)
    : socket_(std::move(socket)), arrived_(socket_.get_executor()), stall_(socket_.get_executor()) {
  if (tls) tls_.emplace(socket_, tls);
}

asio::awaitable<void> Wire::handshake(std::chrono::milliseconds limit) {
  if (!tls_) co_return;
  stall_.expires_after(limit);
  stall_.async_wait([self = shared_from_this()](const error_code& stopped) {
    if (!stopped) self->close();
  });
  co_await tls_->handshake();
  stall_.cancel();
}

void Wire::start_reading(std::size_t piece) {
  if (reading_ || ended_) return;
  reading_ = true;
  if (incoming_.size() != piece) std::vector<char>(piece).swap(incoming_);
  auto done = [self = shared_from_this()](const error_code& failed, std::size_t bytes) {
    self->on_read(failed, bytes);
  };
  if (tls_) {
    tls_->read_some(asio::buffer(incoming_), std::move(done));
  } else {
    socket_.async_read_some(asio::buffer(incoming_), std::move(done));
  }
}

void Wire::on_read(const error_code& failed, std::size_t bytes) {
  reading_ = false;
  unread_.append(incoming_.data(), bytes);
  if (failed) ended_ = true;
  arrived_.cancel();
  if (!on_end_) return;
  if (ended_) {
    std::exchange(on_end_, nullptr)();
  } else if (unread_.size() < kReadAhead) {
    start_reading(kPiece);
  }
}

asio::awaitable<Wire::More> Wire::more(Time until, std::size_t piece) {
  const std::size_t before = unread_.size();
  start_reading(piece);
  while (reading_ && unread_.size() == before) {
    if (std::chrono::steady_clock::now() >= until) co_return More::kTimeout;
    arrived_.expires_at(until);
    error_code ignored;
    co_await arrived_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  }
  co_return unread_.size() > before ? More::kBytes : More::kEnd;
}

void Wire::watch(std::function<void()> on_end) {
  if (ended_) return on_end();
  on_end_ = std::move(on_end);
  if (unread_.size() < kReadAhead) start_reading(kPiece);
}

asio::awaitable<void> Wire::write(std::string_view bytes, std::chrono::milliseconds limit) {
  while (!bytes.empty()) {
    const std::string_view piece = bytes.substr(0, kWritePiece);
    bytes.remove_prefix(piece.size());
    stall_.expires_after(limit);
    stall_.async_wait([self = shared_from_this()](const error_code& stopped) {
      if (!stopped) self->close();
    });
    if (tls_) {
      co_await tls_->write(piece);
    } else {
      co_await asio::async_write(socket_, asio::buffer(piece.data(), piece.size()),
                                 asio::use_awaitable);
    }
    stall_.cancel();
  }
}

asio::awaitable<void> Wire::linger(std::chrono::milliseconds limit) {
  const Time until = std::chrono::steady_clock::now() + limit;
  if (!tls_) {
    error_code ignored;
    socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  }
  for (;;) {
    unread_.clear();
    if (co_await more(until, kWritePiece) != More::kBytes) break;
  }
  co_await finish();
}

asio::awaitable<void> Wire::finish() {
  if (tls_ && socket_.is_open() && !ended_) {
    stall_.expires_after(std::chrono::seconds(1));
    stall_.async_wait([self = shared_from_this()](const error_code& stopped) {
      if (!stopped) self->close();
    });
    try {
      co_await tls_->shutdown();
    } catch (const boost::system::system_error&) {
      // The client has left without waiting for it.
    }
    stall_.cancel();
  }
  close();
}

void Wire::close() {
  error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_both, ignored);
  socket_.close(ignored);
  arrived_.cancel();
  stall_.cancel();
}

}  // namespace limner::gateway::http
