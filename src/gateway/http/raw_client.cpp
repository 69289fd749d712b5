#include "gateway/http/raw_client.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <system_error>
#include <utility>

namespace limner::gateway::http {

RawClient::RawClient(std::uint16_t port) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    throw std::system_error(errno, std::generic_category(), "connect");
}

RawClient::~RawClient() {
  if (socket_ >= 0) ::close(socket_);
}

RawClient::RawClient(RawClient&& other) noexcept
    : socket_(std::exchange(other.socket_, -1)),
      ended_(other.ended_),
      received_(std::move(other.received_)) {}

void RawClient::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const auto sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return;
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
}

void RawClient::shutdown_sending() {
  ::shutdown(socket_, SHUT_WR);
}

void RawClient::reset() {
  const linger now{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(socket_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  ::close(std::exchange(socket_, -1));
}

bool RawClient::receive(std::chrono::steady_clock::time_point until) {
  using namespace std::chrono;
  const auto left = duration_cast<milliseconds>(until - steady_clock::now()).count();
  pollfd waiting{.fd = socket_, .events = POLLIN, .revents = 0};
  if (ended_ || left < 0 || ::poll(&waiting, 1, static_cast<int>(left)) <= 0) return false;
  char bytes[65536];
  const auto count = ::recv(socket_, bytes, sizeof bytes, 0);
  if (count <= 0) {
    ended_ = true;
    return false;
  }
  received_.append(bytes, static_cast<std::size_t>(count));
  return true;
}

std::string RawClient::read_all(std::chrono::milliseconds limit) {
  const auto until = std::chrono::steady_clock::now() + limit;
  while (receive(until)) {
  }
  EXPECT_TRUE(ended_) << "the server did not close; it sent: " << received_;
  return std::exchange(received_, {});
}

std::string RawClient::read_to(std::string_view text, std::chrono::milliseconds limit) {
  const auto until = std::chrono::steady_clock::now() + limit;
  std::size_t found = 0;
  while ((found = received_.find(text)) == std::string::npos && receive(until)) {
  }
  if (found == std::string::npos) {
    ADD_FAILURE() << "no '" << text << "' in: " << received_;
    return std::exchange(received_, {});
  }
  std::string read = received_.substr(0, found + text.size());
  received_.erase(0, read.size());
  return read;
}

bool RawClient::closed(std::chrono::milliseconds limit) {
  const auto until = std::chrono::steady_clock::now() + limit;
  while (receive(until)) {
  }
  return ended_;
}

namespace {

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
}

bool same_name(std::string_view left, std::string_view right) {
  return std::equal(left.begin(), left.end(), right.begin(), right.end(),
                    [](char a, char b) { return lower(a) == lower(b); });
}

std::string take_chunks(std::string_view& bytes) {
  std::string body;
  for (;;) {
    const std::size_t line = bytes.find("\r\n");
    if (line == std::string_view::npos) {
      ADD_FAILURE() << "a chunked body ends early";
      return body;
    }
    const std::size_t size = std::stoul(std::string(bytes.substr(0, line)), nullptr, 16);
    body += bytes.substr(line + 2, size);
    EXPECT_EQ(bytes.substr(std::min(line + 2 + size, bytes.size()), 2), "\r\n");
    bytes.remove_prefix(std::min(line + 4 + size, bytes.size()));
    if (size == 0) return body;
  }
}

}  // namespace

std::string ParsedAnswer::field(std::string_view name) const {
  std::string_view rest = head;
  for (;;) {
    const std::size_t end = rest.find("\r\n");
    if (end == std::string_view::npos) return {};
    const std::string_view line = rest.substr(0, end);
    const std::size_t colon = line.find(": ");
    if (colon != std::string_view::npos && same_name(line.substr(0, colon), name))
      return std::string(line.substr(colon + 2));
    rest.remove_prefix(end + 2);
  }
}

std::vector<ParsedAnswer> parse_answers(std::string_view bytes, std::size_t heads) {
  std::vector<ParsedAnswer> answers;
  while (!bytes.empty()) {
    const std::size_t end = bytes.find("\r\n\r\n");
    if (!bytes.starts_with("HTTP/1.1 ") || end == std::string_view::npos) {
      ADD_FAILURE() << "no answer: " << bytes;
      return answers;
    }
    ParsedAnswer answer{.status = std::stoi(std::string(bytes.substr(9, 3))),
                        .head = std::string(bytes.substr(0, end + 2))};
    bytes.remove_prefix(end + 4);
    if (answers.size() >= heads && !answer.field("Transfer-Encoding").empty()) {
      answer.body = take_chunks(bytes);
    } else if (const std::string length = answer.field("Content-Length");
               answers.size() >= heads && !length.empty()) {
      const std::size_t size = std::stoul(length);
      EXPECT_LE(size, bytes.size()) << "a body ends early";
      answer.body = bytes.substr(0, size);
      bytes.remove_prefix(std::min(size, bytes.size()));
    }
    answers.push_back(std::move(answer));
  }
  return answers;
}

}  // namespace limner::gateway::http
