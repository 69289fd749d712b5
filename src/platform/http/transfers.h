// Transfers: HTTP requests side by side on one thread. The only file that knows the library below.
#pragma once

#include <chrono>
#include <cstddef>
#include <exception>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "platform/http/download.h"
#include "platform/http/url.h"

namespace limner::platform::http {

struct Response {
  Url url;  // that answered
  int status = 0;
  // Names in lower case; a header that comes twice has its values joined with ", ".
  std::map<std::string, std::string, std::less<>> headers{};
  std::string_view header(std::string_view name) const;  // "" when absent
};

// Takes what comes back. What it throws ends the transfer and becomes its outcome. The calls come
// on the thread that is in Transfers::run.
class Receiver {
 public:
  virtual ~Receiver() = default;
  // Before any body; false: the body is not wanted, which ends the transfer well.
  virtual bool on_response(const Response& response) = 0;
  // Bytes as sent (nothing is decompressed); false: no more is wanted, which ends the transfer
  // well.
  virtual bool on_body(std::span<const std::byte> bytes) = 0;
};

struct Outcome {
  Receiver* receiver = nullptr;
  std::exception_ptr failure{};  // null: all came, or the receiver had enough
};

// What goes out, beside the header lines.
struct Send {
  std::string method = "GET";
  std::span<const std::byte> body{};  // not of a GET or HEAD; must outlive the transfer
};

// One hop each: redirects are answers like any other. A name is looked up once; all its addresses
// are held against the rules before the first connection, and each again when its socket is made,
// so a name that changes its address gains nothing. Environment variables for proxies and .netrc
// are not looked at. Used by one thread.
class Transfers {
 public:
  // Keeps a reference to `rules`. Throws Failure(kUnsupported) in a build without libcurl.
  explicit Transfers(const NetworkRules& rules);
  ~Transfers();

  // `headers` are whole lines, "Range: bytes=0-". The receiver must outlive the transfer.
  void start(const Url& url, const std::vector<std::string>& headers, Receiver& receiver,
             const Send& send = {});
  void cancel(Receiver& receiver);  // no outcome will come; nothing when it has none running
  // Moves bytes until something ends or `wait` is over.
  std::vector<Outcome> run(std::chrono::milliseconds wait);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace limner::platform::http
