#include "gateway/http/head.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <boost/beast/core/string.hpp>
#include <ctime>

#include "base/error.h"

namespace limner::gateway::http {

namespace {

using beast_http::field;

Problem bad_request(std::string detail) {
  return {.status = beast_http::status::bad_request,
          .code = "bad_request",
          .detail = std::move(detail)};
}

std::string_view view(boost::beast::string_view text) {
  return {text.data(), text.size()};
}

bool is_host_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("-._~:[]%").find(c) != std::string_view::npos;
}

std::optional<Problem> wrong_host(const Parser& parser) {
  const auto& header = parser.get();
  const std::size_t count = header.count(field::host);
  if (count > 1) return bad_request("The request has more than one Host.");
  if (count == 0 && header.version() >= 11) return bad_request("The request has no Host.");
  const std::string_view host = view(header[field::host]);
  if (!std::all_of(host.begin(), host.end(), is_host_character))
    return bad_request("The request's Host is not a name or an address.");
  return std::nullopt;
}

bool is_servers_own(field name) {
  return name == field::content_length || name == field::transfer_encoding ||
         name == field::connection || name == field::date;
}

bool breaks_lines(std::string_view text) {
  return text.find_first_of(std::string_view("\r\n\0", 3)) != std::string_view::npos;
}

std::string date() {
  return fmt::format("{:%a, %d %b %Y %H:%M:%S} GMT", fmt::gmtime(std::time(nullptr)));
}

}  // namespace

std::optional<Problem> wrong_in(const Parser& parser) {
  const auto& header = parser.get();
  const std::size_t codings = header.count(field::transfer_encoding);
  const std::size_t lengths = header.count(field::content_length);
  if (codings > 0 && lengths > 0)
    return bad_request("The request has both Content-Length and Transfer-Encoding.");
  if (lengths > 1 || view(header[field::content_length]).find(',') != std::string_view::npos)
    return bad_request("The request has more than one Content-Length.");
  if (codings > 1 ||
      (codings == 1 && !boost::beast::iequals(header[field::transfer_encoding], "chunked")))
    return bad_request("The request's Transfer-Encoding is not 'chunked'.");
  if (codings > 0 && header.version() < 11)
    return bad_request("A request of HTTP/1.0 has a Transfer-Encoding.");
  return wrong_host(parser);
}

Problem parse_problem(const boost::system::error_code& failed) {
  using beast_http::error;
  if (failed == error::header_limit)
    return {.status = beast_http::status::request_header_fields_too_large,
            .code = "header_too_large",
            .detail = "The request's header is too large."};
  // Of a line that is not well-formed too, so not a 505.
  if (failed == error::bad_version)
    return bad_request("The request's first line does not end in HTTP/1.0 or HTTP/1.1.");
  return bad_request(fmt::format("The request is not well-formed: {}.", failed.message()));
}

std::string response_head(const Response& response, const Framing& framing) {
  const auto reason = beast_http::obsolete_reason(response.status);
  std::string head = fmt::format("HTTP/1.1 {} {}\r\nDate: {}\r\n",
                                 static_cast<int>(response.status), view(reason), date());
  for (const auto& given : response.headers) {
    if (is_servers_own(given.name())) continue;
    const std::string_view name = view(given.name_string()), value = view(given.value());
    if (breaks_lines(name) || breaks_lines(value))
      throw Failure(ErrorCode::kInternal, fmt::format("[http] a line end in the field {}", name));
    head.append(name).append(": ").append(value).append("\r\n");
  }
  if (framing.chunked) head += "Transfer-Encoding: chunked\r\n";
  if (framing.length) head += fmt::format("Content-Length: {}\r\n", *framing.length);
  if (framing.close) {
    head += "Connection: close\r\n";
  } else if (framing.http_1_0) {
    head += "Connection: keep-alive\r\n";
  }
  return head += "\r\n";
}

std::string chunk(std::string_view bytes) {
  return fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes);
}

}  // namespace limner::gateway::http
