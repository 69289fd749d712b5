// Service: everything that `limner serve` runs in one process, wired from its configuration.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/error.h"
#include "platform/accounts/key_store.h"
#include "platform/config/service_config.h"
#include "platform/log_sink.h"

namespace limner::cli {

// Made, started, drained and destroyed by one thread.
class Service {
 public:
  // Opens the data folder, which no other process may be using, and everything in it. `log` must
  // outlive the service. Errors name the part that could not be opened, and why.
  static Result<std::unique_ptr<Service>> open(platform::ServiceConfig config,
                                               platform::LogSink& log);
  ~Service();  // stops at once; what is under way is taken up again at the next start

  // The first key of this data folder, where this is its first start: to be shown once.
  const std::optional<platform::NewKey>& first_key() const;

  // Listens, and draws what is queued. Errors: kIo (the port is taken), kInvalidArgument.
  Result<void> start();
  std::uint16_t port() const;
  std::string url() const;  // "http://127.0.0.1:8420"

  // Takes no new requests and finishes what is being drawn, or, after `deadline`, hands it back to
  // the queue. True when nothing had to be handed back.
  bool drain(std::chrono::milliseconds deadline);

 private:
  struct Parts;
  explicit Service(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace limner::cli
