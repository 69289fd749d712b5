// What a handler gets and gives: a whole request, and a response that is whole or a stream.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/beast/http/fields.hpp>
#include <boost/beast/http/status.hpp>
#include <boost/beast/http/verb.hpp>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "contract/job.h"
#include "contract/validate.h"
#include "platform/accounts/account.h"

namespace limner::gateway::http {

namespace beast_http = boost::beast::http;

// Who asks, once the key has been looked at (middleware).
struct Caller {
  std::string account{};
  std::string key_id{};
  contract::Tier tier = contract::Tier::kRelax;
  bool may_generate = false, may_read = false, may_administer = false;
  platform::AccountLimits limits{};
};

// Errors leave a handler as this exception or as a Result's Error that the handler throws with
// Failure; the error-shape middleware makes RFC 9457 of both. `fields` are all wrong ones at once.
using FieldProblem = contract::FieldError;

struct Problem {
  beast_http::status status = beast_http::status::internal_server_error;
  std::string code{};    // stable, snake_case: "invalid_argument", "idempotency_key_reused"
  std::string detail{};  // one sentence
  std::vector<FieldProblem> fields{};
  std::optional<std::chrono::seconds> retry_after{};
};

struct Request {
  beast_http::verb method = beast_http::verb::get;
  std::string target{};                                  // as it came: "/v1/generations?limit=2"
  std::string path{};                                    // without the query, percent-escapes kept
  std::map<std::string, std::string> query;              // decoded; a name given twice is a 400
  std::map<std::string, std::string> path_parameters{};  // {id} of the route, decoded
  beast_http::fields headers{};
  std::string body{};

  std::string route{};         // the pattern that matched: "/v1/generations/{id}"; for metrics
  bool open = false;           // the route wants no key
  std::size_t body_limit = 0;  // of the route; 0: the usual one
  std::string peer{};          // the client's address, behind trusted proxies too
  std::string id{};            // X-Request-ID: echoed or made
  std::string traceparent{};
  std::chrono::steady_clock::time_point arrived{};
  std::optional<Caller> caller{};
  std::stop_token gone{};  // asked when the client has left, or the server stops at once

  // Reads the body, which is still on its way; the middleware calls it, once, when everything else
  // has let the request pass. Absent where `body` is complete. Throws ProblemFailure: 413, 400,
  // 408.
  std::function<boost::asio::awaitable<std::string>(std::size_t limit)> read_body{};
  // Fields of the answer whatever becomes of it, errors included.
  beast_http::fields answer_fields{};
  // Why no handler can have it (not well-formed, no such route); the answer is this one.
  std::optional<Problem> refusal{};
  // Ends the handler's present wait, or its next one, with operation_aborted (Asio's terminal
  // cancellation). Absent where there is no server.
  std::function<void()> cancel{};

  std::string_view header(std::string_view name) const {
    const auto value = headers[{name.data(), name.size()}];
    return {value.data(), value.size()};
  }
};

// The body of a response that is made while it is sent (server-sent events). `next` gives the bytes
// to send, waits until there are some, and gives "" at the end. Called by one coroutine at a time;
// destroyed when the client has left.
class BodyStream {
 public:
  virtual ~BodyStream() = default;
  virtual boost::asio::awaitable<std::string> next() = 0;
};

struct Response {
  beast_http::status status = beast_http::status::ok;
  beast_http::fields headers{};
  std::string body{};                    // sent whole with Content-Length
  std::unique_ptr<BodyStream> stream{};  // if there is one, sent chunked in place of `body`

  Response& set(std::string_view name, std::string_view value) {
    headers.set({name.data(), name.size()}, {value.data(), value.size()});
    return *this;
  }
};

// A handler is a coroutine. What blocks (database, disk, key hashing) goes through `Blocking`, so
// that the few threads that move bytes never wait.
using Handler = std::function<boost::asio::awaitable<Response>(Request&)>;

// A middleware does something before and after the rest of the list.
using Middleware = std::function<boost::asio::awaitable<Response>(Request&, const Handler& next)>;

class ProblemFailure : public std::runtime_error {
 public:
  explicit ProblemFailure(Problem problem)
      : std::runtime_error(problem.detail), problem_(std::move(problem)) {}
  const Problem& problem() const { return problem_; }

 private:
  Problem problem_;
};

}  // namespace limner::gateway::http
