// Heads: what stands before a body. Checks of a request's that Beast's parser leaves to us, and the
// text of a response's.
#pragma once

#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "gateway/http/message.h"

namespace limner::gateway::http {

using Parser = beast_http::request_parser<beast_http::string_body>;

// What is wrong with a header that was parsed. Whatever could make a proxy before us and ourselves
// see different ends of the request (RFC 9112, section 11.2) is refused: Content-Length with
// Transfer-Encoding or given twice, any coding but "chunked", no Host or two.
std::optional<Problem> wrong_in(const Parser& parser);

// Of an error of the parser.
Problem parse_problem(const boost::system::error_code& failed);

struct Framing {
  bool http_1_0 = false;
  bool close = false;
  bool chunked = false;
  std::optional<std::uint64_t> length{};
};

// Status line and header, with the fields that are the server's own: Content-Length,
// Transfer-Encoding, Connection, Date. Throws Failure(kInternal) for a field that would break the
// answer (a line end in its value).
std::string response_head(const Response& response, const Framing& framing);

// One chunk of a chunked body; `bytes` is not empty.
std::string chunk(std::string_view bytes);
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";

}  // namespace limner::gateway::http
