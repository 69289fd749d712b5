#include "gateway/http/connection.h"

#include <fmt/format.h>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <charconv>
#include <utility>

namespace limner::gateway::http {

namespace asio = boost::asio;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;

namespace {

constexpr std::chrono::milliseconds kLinger = std::chrono::seconds(2);
// An unread rest of a body up to this is read away, so that the connection can be used again.
constexpr std::size_t kSkippedBody = 64 << 10;
constexpr std::size_t kBodyPiece = 64 << 10;
// Bodies up to this go out in one piece with their head.
constexpr std::size_t kJoinedBody = 32 << 10;

[[noreturn]] void refuse(Problem problem) {
  throw ProblemFailure(std::move(problem));
}

Problem too_slow() {
  return {.status = beast_http::status::request_timeout,
          .code = "request_timeout",
          .detail = "The request did not come in time."};
}

Problem too_large(std::size_t limit) {
  return {.status = beast_http::status::payload_too_large,
          .code = "body_too_large",
          .detail = fmt::format("The body must be at most {} bytes.", limit)};
}

Response bare_error() {
  Response response;
  response.status = beast_http::status::internal_server_error;
  return response;
}

bool has_no_body(beast_http::status status) {
  return status == beast_http::status::no_content || status == beast_http::status::not_modified;
}

// A HEAD's answer may say the length of a body that was never made.
std::uint64_t body_length(const Response& response) {
  std::uint64_t length = response.body.size();
  const auto said = response.headers[beast_http::field::content_length];
  if (length == 0) std::from_chars(said.data(), said.data() + said.size(), length);
  return length;
}

// RFC 9112, section 2.2: empty lines before a request line are not its beginning.
void skip_empty_lines(std::string& unread) {
  while (unread.starts_with("\r\n")) unread.erase(0, 2);
}

}  // namespace

Connection::Connection(asio::ip::tcp::socket socket, std::string peer, ConnectionContext context)
    : strand_(socket.get_executor()),
      wire_(std::make_shared<Wire>(std::move(socket), context.tls)),
      peer_(std::move(peer)),
      context_(context) {}

void Connection::drain() {
  asio::dispatch(strand_, [self = shared_from_this()] {
    if (self->idle_ && self->wire_->unread().empty()) self->wire_->close();
  });
}

void Connection::abort() {
  asio::dispatch(strand_, [self = shared_from_this()] {
    self->aborted_ = true;
    self->wire_->close();
    self->gone_.request_stop();
    self->cancel_.emit(asio::cancellation_type::terminal);
  });
}

asio::awaitable<void> Connection::run() {
  const auto self = shared_from_this();
  try {
    co_await answer_all();
  } catch (const boost::system::system_error& left) {
    context_.log.debug("a connection ended", {{"peer", peer_}, {"error", left.what()}});
  } catch (const std::exception& failure) {
    context_.log.error("a connection failed", {{"peer", peer_}, {"error", failure.what()}});
  }
  wire_->unwatch();
  wire_->close();
}

asio::awaitable<void> Connection::answer_all() {
  co_await wire_->handshake(context_.options.header_time);
  Next next = Next::kRequest;
  while (next == Next::kRequest) next = co_await answer_one();
  wire_->unwatch();
  if (next == Next::kLinger) {
    co_await wire_->linger(kLinger);
  } else {
    co_await wire_->finish();
  }
}

asio::awaitable<bool> Connection::wait_for_request() {
  const auto until = Clock::now() + context_.options.idle_time;
  skip_empty_lines(wire_->unread());
  idle_ = true;
  while (wire_->unread().empty() && !aborted_ && !context_.draining) {
    if (co_await wire_->more(until) != Wire::More::kBytes) break;
    skip_empty_lines(wire_->unread());
  }
  idle_ = false;
  co_return !wire_->unread().empty() && !aborted_;
}

// Nothing, or why it cannot be read. Throws system_error when the client left in the middle.
asio::awaitable<std::optional<Problem>> Connection::read_header(Request& request) {
  const auto until = Clock::now() + context_.options.header_time;
  parser_.emplace();
  parser_->header_limit(static_cast<std::uint32_t>(context_.options.header_limit));
  parser_->body_limit(boost::none);
  std::string& unread = wire_->unread();
  std::size_t used = 0;
  while (!parser_->is_header_done()) {
    if (!unread.empty()) {
      error_code failed;
      const std::size_t parsed = parser_->put(asio::buffer(unread), failed);
      unread.erase(0, parsed);
      used += parsed;
      if (failed && failed != beast_http::error::need_more) co_return parse_problem(failed);
      const std::size_t so_far = used + (parser_->is_header_done() ? 0 : unread.size());
      if (so_far > context_.options.header_limit)
        co_return parse_problem(beast_http::error::header_limit);
      if (parser_->is_header_done()) break;
    }
    const Wire::More came = co_await wire_->more(until);
    if (came == Wire::More::kTimeout) co_return too_slow();
    if (came == Wire::More::kEnd) throw boost::system::system_error(asio::error::eof);
  }
  fill(request);
  co_return wrong_in(*parser_);
}

void Connection::fill(Request& request) {
  const auto& header = parser_->get();
  request.method = header.method();
  request.target = std::string(header.target());
  // A copy: what follows a chunked body is no part of the header.
  request.headers = header;
}

asio::awaitable<std::string> Connection::read_body(std::size_t limit) {
  limit = std::min(limit, context_.options.body_limit);
  if (parser_->is_done()) co_return std::string();
  body_failed_ = true;  // until it has been read
  if (parser_->content_length().value_or(0) > limit) refuse(too_large(limit));
  parser_->body_limit(limit);
  const auto expected = parser_->get()[beast_http::field::expect];
  if (boost::beast::iequals(expected, "100-continue") && wire_->unread().empty()) {
    co_await wire_->write("HTTP/1.1 100 Continue\r\n\r\n", context_.options.write_stall);
  }
  co_await read_body_bytes(limit);
  body_failed_ = false;
  std::string body = std::move(parser_->get().body());
  watch();
  co_return body;
}

asio::awaitable<void> Connection::read_body_bytes(std::size_t limit) {
  const ServerOptions& options = context_.options;
  const auto end = Clock::now() + options.body_time;
  std::string& unread = wire_->unread();
  for (;;) {
    while (!unread.empty() && !parser_->is_done()) {
      error_code failed;
      const std::size_t used = parser_->put(asio::buffer(unread), failed);
      unread.erase(0, used);
      if (failed == beast_http::error::need_more) break;
      if (failed == beast_http::error::body_limit) refuse(too_large(limit));
      if (failed) refuse(parse_problem(failed));
    }
    if (parser_->is_done()) co_return;
    // Only a chunk's size line and the trailer are ever kept until they are whole.
    if (unread.size() > options.header_limit + kBodyPiece)
      refuse(parse_problem(beast_http::error::header_limit));
    const auto until = std::min(Clock::now() + options.body_stall, end);
    const Wire::More came = co_await wire_->more(until, kBodyPiece);
    if (came == Wire::More::kTimeout) refuse(too_slow());
    if (came == Wire::More::kEnd) {
      client_left();
      refuse({.status = beast_http::status::bad_request,
              .code = "bad_request",
              .detail = "The request ended before its body was complete."});
    }
  }
}

// Whether another request may follow: an unread body that is short is worth reading away.
bool Connection::can_go_on() const {
  if (body_failed_ || context_.draining || !parser_->keep_alive()) return false;
  if (parser_->is_done()) return true;
  return parser_->get().count(beast_http::field::expect) == 0 &&
         parser_->content_length().value_or(kSkippedBody + 1) <= kSkippedBody;
}

asio::awaitable<bool> Connection::skip_body() {
  try {
    co_await read_body(kSkippedBody);
  } catch (const ProblemFailure&) {
    co_return false;
  }
  co_return true;
}

void Connection::watch() {
  wire_->watch([this] { client_left(); });
}

void Connection::client_left() {
  gone_.request_stop();
}

asio::awaitable<Response> Connection::call_handler(Request& request) {
  try {
    co_return co_await asio::co_spawn(
        strand_, context_.handler(request),
        asio::bind_cancellation_slot(cancel_.slot(), asio::use_awaitable));
  } catch (const std::exception& failure) {
    if (!aborted_)
      context_.log.error("a handler threw", {{"route", request.route}, {"error", failure.what()}});
  }
  co_return bare_error();
}

asio::awaitable<Connection::Next> Connection::answer_one() {
  wire_->unwatch();
  parser_.reset();
  gone_ = std::stop_source();
  body_failed_ = false;
  if (!co_await wait_for_request()) co_return Next::kClose;

  Request request;
  request.peer = peer_;
  request.arrived = Clock::now();
  request.gone = gone_.get_token();
  request.cancel = [this] { cancel_.emit(asio::cancellation_type::terminal); };
  request.refusal = co_await read_header(request);
  const bool broken = request.refusal.has_value();
  const bool http_1_0 = !broken && parser_->get().version() < 11;
  const bool head_only = request.method == beast_http::verb::head;
  if (!broken && !parser_->is_done())
    request.read_body = [this](std::size_t limit) { return read_body(limit); };
  if (!broken && parser_->is_done()) watch();

  Response response = co_await call_handler(request);
  if (aborted_) co_return Next::kClose;
  const bool chunked = response.stream && !http_1_0;
  const bool keep_alive = !broken && can_go_on() && (!response.stream || chunked);
  const bool rest_is_read = !broken && parser_->is_done();
  // A stream may last for hours, and needs nothing of the request.
  if (response.stream) request = Request{};
  if (rest_is_read) parser_.reset();
  const Framing framing{.http_1_0 = http_1_0, .close = !keep_alive, .chunked = chunked};
  co_await send(response, head_only, framing);
  if (keep_alive && (rest_is_read || co_await skip_body())) co_return Next::kRequest;
  co_return rest_is_read && wire_->unread().empty() ? Next::kClose : Next::kLinger;
}

std::string Connection::make_head(Response& response, Framing& framing) const {
  try {
    return response_head(response, framing);
  } catch (const Failure& failure) {
    context_.log.error("a handler's answer was broken", {{"error", failure.what()}});
  }
  response = bare_error();
  framing.chunked = false;
  framing.length = 0;
  return response_head(response, framing);
}

asio::awaitable<void> Connection::send(Response& response, bool head_only, Framing framing) {
  const auto stall = context_.options.write_stall;
  const bool empty = has_no_body(response.status);
  if (!response.stream && !empty) framing.length = body_length(response);
  std::string head = make_head(response, framing);
  const bool whole = !response.stream && !empty && !head_only;
  if (whole && response.body.size() <= kJoinedBody) head += response.body;
  co_await wire_->write(head, stall);
  if (whole && response.body.size() > kJoinedBody) co_await wire_->write(response.body, stall);
  if (response.stream && !head_only) co_await send_stream(*response.stream, framing.chunked);
}

asio::awaitable<void> Connection::send_stream(BodyStream& stream, bool chunked) {
  const auto stall = context_.options.write_stall;
  const std::stop_token gone = gone_.get_token();
  const std::stop_callback on_gone(gone,
                                   [this] { cancel_.emit(asio::cancellation_type::terminal); });
  while (!gone.stop_requested()) {
    const std::string bytes = co_await asio::co_spawn(
        strand_, stream.next(), asio::bind_cancellation_slot(cancel_.slot(), asio::use_awaitable));
    if (bytes.empty()) {
      if (chunked) co_await wire_->write(kLastChunk, stall);
      co_return;
    }
    const std::string framed = chunked ? chunk(bytes) : bytes;
    co_await wire_->write(framed, stall);
  }
  throw boost::system::system_error(asio::error::eof);
}

}  // namespace limner::gateway::http
