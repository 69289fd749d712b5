// Client: GETs that follow redirects one checked hop at a time and give each host its own headers
// only.
#pragma once

#include <chrono>
#include <list>
#include <string>
#include <vector>

#include "platform/http/transfers.h"

namespace limner::platform::http {

// As Transfers, and: a receiver sees no redirect, only the answer at the end of the way
// (Response::url says where that was). From https no redirect leads to http. A
// NetworkRules::headers line goes out over https to its own host alone. Used by one thread.
class Client {
 public:
  // Keeps a reference to `rules`. Throws Failure(kInvalidArgument) for a header line that would
  // break the request, kUnsupported in a build without libcurl.
  explicit Client(const NetworkRules& rules);
  ~Client();

  void start(const Url& url, const std::vector<std::string>& headers, Receiver& receiver);
  void cancel(Receiver& receiver);
  std::vector<Outcome> run(std::chrono::milliseconds wait);

 private:
  class Hops;
  void send(Hops& hops);

  const NetworkRules& rules_;
  std::list<Hops> running_;
  Transfers transfers_;  // last: its transfers point into running_, and end first
};

}  // namespace limner::platform::http
