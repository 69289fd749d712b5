// Percent-encoding (RFC 3986): all but letters, digits, '-', '.', '_' and '~' become %XX.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace limner::delivery {

// `kept`: further characters to leave as they are, such as "/" in a path.
std::string percent_encode(std::string_view text, std::string_view kept = "");
// Nothing for a '%' that two hexadecimal digits do not follow. '+' stays '+'.
std::optional<std::string> percent_decode(std::string_view text);

// The Content-Disposition under which a browser saves a file as `name` (RFC 6266): safe whatever
// `name` holds.
std::string attachment(std::string_view name);

}  // namespace limner::delivery
