// Text from outside made fit for a one-line message.
#pragma once

#include <string>
#include <string_view>

namespace limner {

// Quotes around it, control characters and broken UTF-8 as '?', and the middle of what is longer
// than 160 bytes left out.
std::string quote(std::string_view text);

}  // namespace limner
