// One HTTP request and its whole answer in memory: for APIs, object stores and webhooks.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "platform/http/download.h"
#include "platform/http/transfers.h"
#include "platform/http/url.h"

namespace limner::platform::http {

struct Request {
  std::string method = "GET";  // GET, HEAD, POST, PUT, DELETE
  Url url{};
  std::vector<std::string> headers{};  // whole lines, "Content-Type: image/png"
  std::span<const std::uint8_t> body{};
  std::uint64_t max_reply = std::uint64_t{1} << 20;              // bytes of body that are kept
  std::chrono::milliseconds timeout = std::chrono::seconds(30);  // for all of it
  std::stop_token stop{};
};

struct Reply {
  int status = 0;
  std::map<std::string, std::string, std::less<>> headers{};  // names in lower case
  std::vector<std::uint8_t> body{};
  bool cut = false;  // there was more body than max_reply

  std::string_view header(std::string_view name) const;  // "" when absent
  std::string_view text() const;                         // the body
};

// Safe to call from many threads.
class Exchange {
 public:
  virtual ~Exchange() = default;
  // Any answer is a Reply, redirects and errors too: none is followed or tried again. Errors:
  // kUnavailable and kDeadlineExceeded (retryable), kPermissionDenied (an address, port or
  // certificate that is not allowed), kCancelled, kUnsupported (built without libcurl).
  virtual Result<Reply> send(const Request& request) = 0;
};

// Over the network by `rules` (addresses, certificates, connect and stall times). Connections are
// kept and used again.
class WebExchange final : public Exchange {
 public:
  explicit WebExchange(NetworkRules rules) : rules_(std::move(rules)) {}
  Result<Reply> send(const Request& request) override;

 private:
  std::unique_ptr<Transfers> borrow();

  const NetworkRules rules_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Transfers>> idle_;  // by mutex_; each with its open connections
};

// For servers that whoever runs this machine has named himself: any address and port, plain http
// too.
NetworkRules trusted_network();

}  // namespace limner::platform::http
