#include "gateway/api_v1/answers.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/json.h"
#include "base/quote.h"
#include "base/suggest.h"
#include "contract/json_fields.h"
#include "delivery/crypto.h"

namespace limner::gateway::api_v1 {
namespace {

using http::beast_http::status;
using nlohmann::json;

std::string_view trimmed(std::string_view text) {
  while (text.starts_with(' ') || text.starts_with('\t')) text.remove_prefix(1);
  while (text.ends_with(' ') || text.ends_with('\t')) text.remove_suffix(1);
  return text;
}

std::string_view opaque(std::string_view etag) {
  if (etag.starts_with("W/")) etag.remove_prefix(2);
  return etag;
}

}  // namespace

http::Response json_answer(const json& object, status code) {
  http::Response response;
  response.status = code;
  response.set("Content-Type", "application/json");
  response.set("Cache-Control", "no-store");
  response.body = object.dump(-1, ' ', false, json::error_handler_t::replace);
  return response;
}

void refuse(status code, std::string error, std::string detail) {
  throw http::ProblemFailure(
      {.status = code, .code = std::move(error), .detail = std::move(detail)});
}

void refuse_field(std::string field, std::string message) {
  std::string detail = fmt::format("{} {}.", field, message);
  throw http::ProblemFailure({.status = status::bad_request,
                              .code = "invalid_argument",
                              .detail = std::move(detail),
                              .fields = {{std::move(field), std::move(message)}}});
}

const http::Caller& require(const http::Request& request, Scope scope) {
  if (!request.caller) {
    refuse(status::unauthorized, "unauthenticated",
           "This needs an API key: send it as `Authorization: Bearer <key>`.");
  }
  const http::Caller& caller = *request.caller;
  const bool may = scope == Scope::kGenerate ? caller.may_generate
                   : scope == Scope::kRead   ? caller.may_read || caller.may_generate
                                             : caller.may_administer;
  if (!may) {
    refuse(status::forbidden, "permission_denied",
           fmt::format("This key lacks the scope `{}`.", scope == Scope::kGenerate ? "generate"
                                                         : scope == Scope::kRead   ? "read"
                                                                                   : "admin"));
  }
  return caller;
}

platform::AuditAct act_by(const http::Caller& caller, std::string_view action, std::string subject,
                          std::string detail) {
  return {.actor = caller.key_id,
          .action = std::string(action),
          .subject = std::move(subject),
          .detail = std::move(detail)};
}

void check_query(const http::Request& request, const std::vector<std::string>& known) {
  for (const auto& [name, value] : request.query) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    refuse_field(quote(name), fmt::format("is no parameter of this address{}",
                                          did_you_mean(name.substr(0, 64), known)));
  }
}

std::optional<std::string> query(const http::Request& request, const std::string& name) {
  const auto found = request.query.find(name);
  return found == request.query.end() ? std::nullopt : std::optional(found->second);
}

std::int64_t query_number(const http::Request& request, const std::string& name,
                          std::int64_t fallback, std::int64_t lowest, std::int64_t highest) {
  const auto text = query(request, name);
  if (!text) return fallback;
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc() || end != text->data() + text->size() || value < lowest ||
      value > highest) {
    refuse_field(name, fmt::format("must be a whole number from {} to {}, got {}", lowest, highest,
                                   quote(*text)));
  }
  return value;
}

std::string cursor_of(char kind, std::int64_t sequence) {
  return delivery::base64_url(delivery::bytes_of(fmt::format("{}{}", kind, sequence)));
}

std::optional<std::int64_t> query_cursor(const http::Request& request, char kind) {
  const auto cursor = query(request, "cursor");
  if (!cursor) return std::nullopt;
  const auto bytes = delivery::from_base64_url(*cursor);
  const std::string text = bytes ? std::string(bytes->begin(), bytes->end()) : "";
  std::int64_t sequence = 0;
  if (text.starts_with(kind)) {
    const char* const end = text.data() + text.size();
    const auto read = std::from_chars(text.data() + 1, end, sequence);
    if (read.ec != std::errc() || read.ptr != end) sequence = 0;
  }
  if (sequence < 1) refuse_field("cursor", "must be the next_cursor of an earlier page");
  return sequence;
}

bool matches(std::string_view if_none_match, std::string_view etag) {
  while (!if_none_match.empty()) {
    const auto comma = std::min(if_none_match.find(','), if_none_match.size());
    const std::string_view one = trimmed(if_none_match.substr(0, comma));
    if (one == "*" || opaque(one) == opaque(etag)) return true;
    if_none_match.remove_prefix(std::min(comma + 1, if_none_match.size()));
  }
  return false;
}

nlohmann::json parse_object(std::string_view body, std::size_t most_bytes) {
  using http::beast_http::status;
  if (body.size() > most_bytes) {
    throw http::ProblemFailure({.status = status::payload_too_large,
                                .code = "body_too_large",
                                .detail = fmt::format("The body must be at most {} bytes, got {}.",
                                                      most_bytes, body.size())});
  }
  auto parsed = parse_json(body, {.bytes = most_bytes, .depth = 32, .values = 20'000});
  if (!parsed.ok()) {
    throw http::ProblemFailure(
        {.status = status::bad_request,
         .code = "invalid_json",
         .detail = fmt::format("The body cannot be read: {}.", parsed.error().message)});
  }
  if (!parsed->is_object()) {
    throw http::ProblemFailure({.status = status::bad_request,
                                .code = "invalid_json",
                                .detail = fmt::format("The body must be a JSON object, got {}.",
                                                      contract::json_kind(*parsed))});
  }
  return std::move(*parsed);
}

}  // namespace limner::gateway::api_v1
