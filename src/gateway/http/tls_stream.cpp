#include "gateway/http/tls_stream.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <sys/socket.h>

#include <boost/asio/post.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <new>
#include <optional>
#include <utility>

namespace limner::gateway::http {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

bool is_transient(int number) {
  return number == EAGAIN || number == EWOULDBLOCK || number == EINTR;
}

// --- a BIO (OpenSSL's end of a connection) over a socket of Asio's. A closed one has no
// descriptor, so that a late call meets EBADF and not somebody else's connection.

int descriptor_of(BIO* bio) {
  return static_cast<tcp::socket*>(BIO_get_data(bio))->native_handle();
}

int bio_write(BIO* bio, const char* bytes, int count) {
  BIO_clear_retry_flags(bio);
  const ssize_t sent = ::send(descriptor_of(bio), bytes, static_cast<std::size_t>(count),
                              MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent < 0 && is_transient(errno)) BIO_set_retry_write(bio);
  return static_cast<int>(sent);
}

int bio_read(BIO* bio, char* into, int count) {
  BIO_clear_retry_flags(bio);
  const ssize_t got =
      ::recv(descriptor_of(bio), into, static_cast<std::size_t>(count), MSG_DONTWAIT);
  if (got < 0 && is_transient(errno)) BIO_set_retry_read(bio);
  return static_cast<int>(got);
}

long bio_control(BIO*, int command, long, void*) {
  return command == BIO_CTRL_FLUSH ? 1 : 0;  // there is nothing to flush, and no other command
}

BIO_METHOD* make_method() {
  BIO_METHOD* method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "asio socket");
  if (method == nullptr) throw std::bad_alloc();
  BIO_meth_set_write(method, bio_write);
  BIO_meth_set_read(method, bio_read);
  BIO_meth_set_ctrl(method, bio_control);
  return method;
}

BIO* make_bio(tcp::socket& socket) {
  static const std::unique_ptr<BIO_METHOD, decltype(&BIO_meth_free)> method(make_method(),
                                                                            BIO_meth_free);
  BIO* const bio = BIO_new(method.get());
  if (bio == nullptr) throw std::bad_alloc();
  BIO_set_data(bio, &socket);
  BIO_set_init(bio, 1);
  return bio;
}

// --- what a call of OpenSSL's came to

struct Outcome {
  bool done = false;
  std::optional<tcp::socket::wait_type> wait{};  // for this, and call again
  error_code failed{};
};

Outcome outcome_of(SSL* ssl, int result) {
  const int number = errno;
  switch (SSL_get_error(ssl, result)) {
    case SSL_ERROR_NONE:
      return {.done = true};
    case SSL_ERROR_WANT_READ:
      return {.wait = tcp::socket::wait_read};
    case SSL_ERROR_WANT_WRITE:
      return {.wait = tcp::socket::wait_write};
    case SSL_ERROR_ZERO_RETURN:
      return {.failed = asio::error::eof};
    case SSL_ERROR_SYSCALL:
      if (number == 0) return {.failed = asio::error::eof};
      return {.failed = error_code(number, boost::system::system_category())};
    default:
      break;
  }
  const unsigned long error = ERR_get_error();
  // The client left without a goodbye.
  if (ERR_GET_REASON(error) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
    return {.failed = asio::error::eof};
  return {.failed = error_code(static_cast<int>(error), asio::error::get_ssl_category())};
}

template <typename Call>
Outcome call_once(SSL* ssl, const Call& call) {
  // OpenSSL looks at what earlier calls of this thread, of other connections, have left there.
  ERR_clear_error();
  errno = 0;
  return outcome_of(ssl, call());
}

}  // namespace

void save_memory(SSL_CTX* context) {
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
}

TlsStream::TlsStream(tcp::socket& socket, SSL_CTX* context)
    : socket_(socket), ssl_(SSL_new(context), SSL_free) {
  if (!ssl_) throw std::bad_alloc();
  BIO* const bio = make_bio(socket);
  SSL_set_bio(ssl_.get(), bio, bio);  // which now owns it
}

asio::awaitable<void> TlsStream::drive(std::function<int()> call) {
  for (;;) {
    const Outcome outcome = call_once(ssl_.get(), call);
    if (outcome.done) co_return;
    if (outcome.failed) throw boost::system::system_error(outcome.failed, "TLS");
    co_await socket_.async_wait(*outcome.wait, asio::use_awaitable);
  }
}

asio::awaitable<void> TlsStream::handshake() {
  std::function<int()> accept = [this] { return SSL_accept(ssl_.get()); };
  co_await drive(std::move(accept));
}

asio::awaitable<void> TlsStream::write(std::string_view bytes) {
  while (!bytes.empty()) {
    std::size_t written = 0;
    std::function<int()> some = [this, bytes, &written] {
      return SSL_write_ex(ssl_.get(), bytes.data(), bytes.size(), &written);
    };
    co_await drive(std::move(some));
    bytes.remove_prefix(written);
  }
}

asio::awaitable<void> TlsStream::shutdown() {
  std::function<int()> goodbye = [this] {
    const int said = SSL_shutdown(ssl_.get());
    return said == 0 ? SSL_shutdown(ssl_.get()) : said;  // 0: ours is sent, theirs is to come
  };
  co_await drive(std::move(goodbye));
}

void TlsStream::read_some(asio::mutable_buffer into, Done done) {
  asio::post(socket_.get_executor(), [this, into, done = std::move(done)]() mutable {
    go_on_reading(into, std::move(done));
  });
}

void TlsStream::go_on_reading(asio::mutable_buffer into, Done done) {
  std::size_t got = 0;
  const Outcome outcome = call_once(
      ssl_.get(), [&] { return SSL_read_ex(ssl_.get(), into.data(), into.size(), &got); });
  if (!outcome.wait) return done(outcome.failed, got);
  socket_.async_wait(*outcome.wait,
                     [this, into, done = std::move(done)](const error_code& failed) mutable {
                       if (failed) return done(failed, 0);
                       go_on_reading(into, std::move(done));
                     });
}

}  // namespace limner::gateway::http
