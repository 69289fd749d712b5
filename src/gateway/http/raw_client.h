// RawClient: a socket that sends exactly the bytes it is told to: for tests.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace limner::gateway::http {

class RawClient {
 public:
  // Connects to 127.0.0.1. Throws std::system_error.
  explicit RawClient(std::uint16_t port);
  ~RawClient();
  RawClient(RawClient&& other) noexcept;
  RawClient& operator=(RawClient&&) = delete;

  void send(std::string_view bytes);  // what a server that has closed does not take is lost
  void shutdown_sending();
  void reset();  // closes with RST

  // Until the server closes; what came so far if `limit` passes first.
  std::string read_all(std::chrono::milliseconds limit = std::chrono::seconds(10));
  // Until `text` has come, and all that came up to there.
  std::string read_to(std::string_view text,
                      std::chrono::milliseconds limit = std::chrono::seconds(10));
  bool closed(std::chrono::milliseconds limit);  // the server has closed within `limit`

 private:
  bool receive(std::chrono::steady_clock::time_point until);  // false at the end or `until`

  int socket_ = -1;
  bool ended_ = false;
  std::string received_;
};

// An answer taken apart.
struct ParsedAnswer {
  int status = 0;
  std::string head{}, body{};                      // chunks joined
  std::string field(std::string_view name) const;  // "" when absent; names in any case
};

// All answers in `bytes`, which begin with the first one; `heads` says which of them have no body
// because they answer HEAD. Fails the test where the framing is broken.
std::vector<ParsedAnswer> parse_answers(std::string_view bytes, std::size_t heads = 0);

}  // namespace limner::gateway::http
