#include "platform/http/exchange.h"

#include <fmt/format.h>

#include <algorithm>

namespace limner::platform::http {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::size_t kMostIdle = 16;
constexpr milliseconds kLookAtStop{200};

class Collector final : public Receiver {
 public:
  explicit Collector(std::uint64_t most) : most_(most) {}

  bool on_response(const Response& response) override {
    reply.status = response.status;
    reply.headers = response.headers;
    return true;
  }

  bool on_body(std::span<const std::byte> bytes) override {
    const auto room = static_cast<std::size_t>(most_ - reply.body.size());
    const auto taken = bytes.first(std::min(room, bytes.size()));
    const auto* begin = reinterpret_cast<const std::uint8_t*>(taken.data());
    reply.body.insert(reply.body.end(), begin, begin + taken.size());
    reply.cut = taken.size() < bytes.size();
    return !reply.cut;
  }

  Reply reply{};

 private:
  const std::uint64_t most_;
};

// curl would add a type of its own, and wait for a 100 that many servers never send.
std::vector<std::string> header_lines(const Request& request) {
  std::vector<std::string> lines = request.headers;
  lines.emplace_back("Expect:");
  const bool typed = std::any_of(lines.begin(), lines.end(), [](const std::string& line) {
    return line.starts_with("Content-Type:") || line.starts_with("content-type:");
  });
  if (!typed) lines.emplace_back("Content-Type:");
  return lines;
}

// Throws what ended it otherwise than well.
void wait_for(Transfers& transfers, Receiver& receiver, const Request& request) {
  const auto deadline = steady_clock::now() + request.timeout;
  while (true) {
    const auto left = std::chrono::duration_cast<milliseconds>(deadline - steady_clock::now());
    for (const Outcome& outcome : transfers.run(std::clamp(left, milliseconds(0), kLookAtStop))) {
      if (outcome.failure) std::rethrow_exception(outcome.failure);
      return;
    }
    if (request.stop.stop_requested()) {
      transfers.cancel(receiver);
      throw Failure(ErrorCode::kCancelled, fmt::format("[http] {}: stopped", request.url.shown()));
    }
    if (left.count() <= 0) {
      transfers.cancel(receiver);
      throw Failure(Error{ErrorCode::kDeadlineExceeded,
                          fmt::format("[http] {}: no whole answer within {} ms",
                                      request.url.shown(), request.timeout.count()),
                          true});
    }
  }
}

}  // namespace

std::string_view Reply::header(std::string_view name) const {
  const auto place = headers.find(name);
  return place == headers.end() ? std::string_view() : place->second;
}

std::string_view Reply::text() const {
  return {reinterpret_cast<const char*>(body.data()), body.size()};
}

std::unique_ptr<Transfers> WebExchange::borrow() {
  {
    const std::scoped_lock lock(mutex_);
    if (!idle_.empty()) {
      auto transfers = std::move(idle_.back());
      idle_.pop_back();
      return transfers;
    }
  }
  return std::make_unique<Transfers>(rules_);
}

Result<Reply> WebExchange::send(const Request& request) {
  try {
    auto transfers = borrow();
    Collector collector(request.max_reply);
    transfers->start(request.url, header_lines(request), collector,
                     {.method = request.method, .body = std::as_bytes(request.body)});
    wait_for(*transfers, collector, request);
    const std::scoped_lock lock(mutex_);
    if (idle_.size() < kMostIdle) idle_.push_back(std::move(transfers));
    return std::move(collector.reply);
  } catch (const Failure& failure) {
    return failure.error();
  }
}

NetworkRules trusted_network() {
  NetworkRules rules;
  rules.allow = parse_address_ranges("0.0.0.0/0, ::/0").value_or_throw();
  return rules;
}

}  // namespace limner::platform::http
