#include "gateway/http/problem.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "contract/request_fields.h"

namespace limner::gateway::http {

namespace {

using beast_http::status;

constexpr std::chrono::seconds kUsualRetry{5}, kLongestRetry{120};

constexpr std::string_view kInternalDetail =
    "Something went wrong inside the service. The request's id is in its log.";

// "not_found" of 404, for a problem without a code of its own.
std::string code_of(status answer) {
  const auto reason = beast_http::obsolete_reason(answer);
  std::string code(reason.data(), reason.size());
  for (char& c : code) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (c < 'a' || c > 'z') c = '_';
  }
  return code;
}

// "[queue] the job has just changed: ask again" as strangers read it: a sentence, without the place
// in our house.
std::string sentence(const std::string& message) {
  std::string text = contract::field_message({ErrorCode::kInternal, message});
  if (text.empty()) return text;
  if (text[0] >= 'a' && text[0] <= 'z') text[0] = static_cast<char>(text[0] - 'a' + 'A');
  if (std::string_view(".!?").find(text.back()) == std::string_view::npos) text += '.';
  return text;
}

}  // namespace

status status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return status::bad_request;
    case ErrorCode::kNotFound:
      return status::not_found;
    case ErrorCode::kInvalidModel:
    case ErrorCode::kUnsupported:
    case ErrorCode::kOutOfMemory:
    case ErrorCode::kBlocked:
      return status::unprocessable_entity;
    case ErrorCode::kCancelled:
      return status::conflict;
    case ErrorCode::kDeadlineExceeded:
      return status::gateway_timeout;
    case ErrorCode::kUnavailable:
      return status::service_unavailable;
    case ErrorCode::kUnauthenticated:
      return status::unauthorized;
    case ErrorCode::kPermissionDenied:
      return status::forbidden;
    case ErrorCode::kIo:
    case ErrorCode::kInternal:
      break;
  }
  return status::internal_server_error;
}

Problem problem_of(const Error& error) {
  Problem problem;
  problem.status = status_of(error.code);
  problem.code = name(error.code);
  problem.detail = error.message;
  // A disk that is full or a database that is locked may be well again in a moment.
  if (error.code == ErrorCode::kIo && error.retryable) problem.status = status::service_unavailable;
  if (error.code == ErrorCode::kIo || error.code == ErrorCode::kInternal)
    problem.detail = kInternalDetail;
  return problem;
}

Problem problem_of(const std::exception_ptr& thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const ProblemFailure& failure) {
    return failure.problem();
  } catch (const Failure& failure) {
    return problem_of(failure.error());
  } catch (...) {
    return problem_of(Error{.code = ErrorCode::kInternal, .message = {}});
  }
}

Response problem_response(const Problem& problem, std::string_view request_id) {
  const auto title = beast_http::obsolete_reason(problem.status);
  const std::string code = problem.code.empty() ? code_of(problem.status) : problem.code;
  nlohmann::ordered_json body = {{"type", "urn:limner:problem:" + code},
                                 {"title", std::string(title.data(), title.size())},
                                 {"status", static_cast<int>(problem.status)},
                                 {"detail", sentence(problem.detail)},
                                 {"instance", "urn:limner:request:" + std::string(request_id)},
                                 {"code", code}};
  if (!problem.fields.empty()) {
    body["errors"] = nlohmann::ordered_json::array();
    for (const FieldProblem& wrong : problem.fields)
      body["errors"].push_back({{"field", wrong.field}, {"message", wrong.message}});
  }
  Response response;
  response.status = problem.status;
  response.set("Content-Type", "application/problem+json");
  response.set("Cache-Control", "no-store");
  const bool wants_retry =
      problem.status == status::too_many_requests || problem.status == status::service_unavailable;
  if (wants_retry || problem.retry_after) {
    const auto wait = std::clamp(problem.retry_after.value_or(kUsualRetry), std::chrono::seconds(1),
                                 kLongestRetry);
    response.set("Retry-After", std::to_string(wait.count()));
  }
  // A message may repeat bytes of a client that are no UTF-8.
  response.body = body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return response;
}

}  // namespace limner::gateway::http
