// Headers for a collector as OpenTelemetry writes them into one variable.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace limner::platform {

// "api-key=a%20b,x=y" (OTEL_EXPORTER_OTLP_HEADERS: W3C Baggage without properties) as header lines.
// Errors: kInvalidArgument, which tells none of the values.
Result<std::vector<std::string>> parse_otlp_headers(std::string_view text);

}  // namespace limner::platform
