// One look-up of a host's addresses, on a thread of its own.
#pragma once

#include <chrono>
#include <functional>
#include <future>
#include <string>
#include <vector>

#include "platform/http/address.h"

namespace limner::platform::http {

// All addresses of a host name, in the order to try them. Fails with kUnavailable (retryable where
// that may help).
using LookUp = std::function<Result<std::vector<IpAddress>>(const std::string& host)>;

// The system's: getaddrinfo. Blocks for as long as the system's resolver tries.
Result<std::vector<IpAddress>> system_look_up(const std::string& host);

// Starts with the object. An object that goes away first leaves its thread to end by itself.
class NameLookup {
 public:
  NameLookup(LookUp look_up, std::string host);
  bool ready() const;
  Result<std::vector<IpAddress>> take() { return answer_.get(); }  // once, when ready

 private:
  std::future<Result<std::vector<IpAddress>>> answer_;
};

}  // namespace limner::platform::http
