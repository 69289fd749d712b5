// Adapters from the web: the URL form of --lora, up to a file on this machine.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "base/error.h"
#include "cli/console.h"

namespace limner::cli {

// Begins with https:// or http://, in any case.
bool is_url(std::string_view text);

struct AdapterUrl {
  std::string url;
  std::string sha256;  // from #sha256=HEX; "" when not given
  std::string weight;  // what follows the last colon, as parse_adapter_scales takes it; "" for none
};

// "https://host/path[#sha256=HEX][:WEIGHT]". A colon of the URL itself is not mistaken for a
// weight's: a weight is a number, or begins with a word and '='. Errors: kInvalidArgument.
Result<AdapterUrl> parse_adapter_url(std::string_view text);

// From the download cache, or fetched into it with a progress bar. Civitai links of both forms are
// understood. Errors as http::download.
Result<std::filesystem::path> fetch_adapter(const AdapterUrl& adapter, const Console& console);

}  // namespace limner::cli
