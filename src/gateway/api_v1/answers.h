// Small things that every handler needs: JSON answers, scopes, query parameters.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/http/message.h"
#include "platform/audit/audit_log.h"

namespace limner::gateway::api_v1 {

http::Response json_answer(const nlohmann::json& object,
                           http::beast_http::status status = http::beast_http::status::ok);

// A body of at most `most_bytes`, strictly: no duplicate keys, no comments, 32 levels at most, an
// object at the top. Throws ProblemFailure: 400, or 413.
nlohmann::json parse_object(std::string_view body, std::size_t most_bytes);

// Throws the failure that becomes the answer.
[[noreturn]] void refuse(http::beast_http::status status, std::string code, std::string detail);
[[noreturn]] void refuse_field(std::string field, std::string message);  // 400

enum class Scope { kGenerate, kRead, kAdminister };
// Who asks, if his key may do that. Throws: 401 without a key, 403 without the scope.
const http::Caller& require(const http::Request& request, Scope scope);

// An act of the caller's, as the audit log has it.
platform::AuditAct act_by(const http::Caller& caller, std::string_view action, std::string subject,
                          std::string detail = {});

// Throws 400 when the query names anything else than `known`.
void check_query(const http::Request& request, const std::vector<std::string>& known);
std::optional<std::string> query(const http::Request& request, const std::string& name);
// A whole number in the query from `lowest` to `highest`. Throws 400.
std::int64_t query_number(const http::Request& request, const std::string& name,
                          std::int64_t fallback, std::int64_t lowest, std::int64_t highest);

// A page's end as a client gets it, in `next_cursor`; `kind` tells the lists apart. That it is a
// number is nobody's business.
std::string cursor_of(char kind, std::int64_t sequence);
// What `cursor` in the query brings back; nothing: it is not there. Throws 400 for one that is not
// of this list.
std::optional<std::int64_t> query_cursor(const http::Request& request, char kind);

// Whether `etag` is among those of If-None-Match, by weak comparison (RFC 9110, section 13.1.2).
bool matches(std::string_view if_none_match, std::string_view etag);

}  // namespace limner::gateway::api_v1
