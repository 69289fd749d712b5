#include "platform/http/client.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace limner::platform::http {
namespace {

bool is_redirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

void check_header(const HostHeader& header) {
  const auto plain = [](std::string_view text) {
    return std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
  };
  if (!plain(header.value) || !plain(header.name) || header.name.find(':') != std::string::npos) {
    throw Failure(
        ErrorCode::kInvalidArgument,
        fmt::format("[download] the {} header for {} holds a character that no header may",
                    plain(header.name) ? header.name : "extra", header.authority));
  }
}

}  // namespace

std::string_view Response::header(std::string_view name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? std::string_view() : std::string_view(found->second);
}

// The way of one GET: stands between the transfers and its receiver.
class Client::Hops : public Receiver {
 public:
  Hops(const NetworkRules& rules, Url url, std::vector<std::string> headers, Receiver& receiver)
      : rules_(rules), url_(std::move(url)), headers_(std::move(headers)), receiver_(receiver) {}

  bool on_response(const Response& response) override {
    if (!is_redirect(response.status)) return receiver_.on_response(response);
    if (++redirects_ > rules_.redirects) {
      throw Failure(ErrorCode::kUnavailable,
                    fmt::format("[download] {} redirects further after {} redirects",
                                response.url.shown(), rules_.redirects));
    }
    auto next = resolve(response.url, response.header("location"));
    if (!next.ok()) {
      throw Failure(
          ErrorCode::kPermissionDenied,
          fmt::format("{} (to which {} redirects)", next.error().message, response.url.shown()));
    }
    if (response.url.https && !next->https) {
      throw Failure(ErrorCode::kPermissionDenied,
                    fmt::format("[download] {} redirects to {}, which is not https",
                                response.url.shown(), next->shown()));
    }
    next_ = std::move(*next);
    return false;
  }

  bool on_body(std::span<const std::byte> bytes) override { return receiver_.on_body(bytes); }

  // Whether the transfer that ended was a redirect; then url() is the next hop's.
  bool advance() {
    if (!next_) return false;
    url_ = std::move(*next_);
    next_.reset();
    return true;
  }

  const Url& url() const { return url_; }
  Receiver& receiver() const { return receiver_; }

  std::vector<std::string> header_lines() const {
    // A server that compresses anyway is refused by whoever reads the answer.
    std::vector<std::string> lines = {"Accept: */*", "Accept-Encoding: identity"};
    lines.insert(lines.end(), headers_.begin(), headers_.end());
    for (const HostHeader& header : rules_.headers) {
      if (url_.https && header.authority == url_.authority()) {
        lines.push_back(header.name + ": " + header.value);
      }
    }
    return lines;
  }

 private:
  const NetworkRules& rules_;
  Url url_;
  std::vector<std::string> headers_;
  Receiver& receiver_;
  std::optional<Url> next_{};
  int redirects_ = 0;
};

Client::Client(const NetworkRules& rules) : rules_(rules), transfers_(rules) {
  for (const HostHeader& header : rules.headers) check_header(header);
}

Client::~Client() = default;

void Client::start(const Url& url, const std::vector<std::string>& headers, Receiver& receiver) {
  send(running_.emplace_back(rules_, url, headers, receiver));
}

void Client::send(Hops& hops) {
  transfers_.start(hops.url(), hops.header_lines(), hops);
}

void Client::cancel(Receiver& receiver) {
  for (auto it = running_.begin(); it != running_.end(); ++it) {
    if (&it->receiver() != &receiver) continue;
    transfers_.cancel(*it);
    running_.erase(it);
    return;
  }
}

std::vector<Outcome> Client::run(std::chrono::milliseconds wait) {
  std::vector<Outcome> outcomes;
  for (Outcome& outcome : transfers_.run(wait)) {
    const auto hops = std::find_if(running_.begin(), running_.end(),
                                   [&](Hops& each) { return &each == outcome.receiver; });
    if (!outcome.failure && hops->advance()) {
      send(*hops);
      continue;
    }
    outcomes.push_back({&hops->receiver(), std::move(outcome.failure)});
    running_.erase(hops);
  }
  return outcomes;
}

}  // namespace limner::platform::http
