// Content negotiation: which picture format an Accept header asks for.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "base/error.h"
#include "image/encode.h"

namespace limner::delivery {

std::string_view content_type(image::Format format);  // "image/png"

// The offered format that the header likes best (RFC 9110, section 12.5.1: the most specific range
// that fits a format decides its weight, 0 rules it out); of equals the one offered first. An empty
// header takes anything. Nothing when none is acceptable (406). Errors: kInvalidArgument for a
// header that breaks the grammar.
Result<std::optional<image::Format>> choose_format(std::string_view accept,
                                                   std::span<const image::Format> offered);

// How well the header likes one media type ("application/json"): 0 (not acceptable) to 1000, by the
// same rules and with the same errors.
Result<int> accept_weight(std::string_view accept, std::string_view media_type);

}  // namespace limner::delivery
