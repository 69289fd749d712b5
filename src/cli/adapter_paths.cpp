#include "cli/adapter_paths.h"

#include <fmt/format.h>

#include <regex>

#include "cli/civitai.h"
#include "cli/download_settings.h"
#include "platform/download_cache.h"

namespace limner::cli {
namespace {

namespace http = platform::http;

// Larger than any adapter in use; a whole checkpoint is none.
constexpr std::uint64_t kMaxAdapter = std::uint64_t{8} << 30;

bool is_weight(std::string_view text) {
  static const std::regex form(R"([+-]?(\d|\.\d)[0-9.eE+-]*|(unet|te2?|blocks)=[^?&#]*)");
  return text.size() < 500 && std::regex_match(text.begin(), text.end(), form);
}

// Where the weight's colon is: the first one behind the host after which all is a weight.
std::size_t weight_colon(std::string_view text) {
  const auto host = text.find("//");
  auto colon = text.find(':', std::min(text.find_first_of("/?#", host + 2), text.size()));
  while (colon != std::string_view::npos && !is_weight(text.substr(colon + 1))) {
    colon = text.find(':', colon + 1);
  }
  return colon;
}

}  // namespace

bool is_url(std::string_view text) {
  static const std::regex form("https?://", std::regex::icase);
  const std::string_view head = text.substr(0, text.find("//") + 2);
  return head.size() <= 8 && std::regex_match(head.begin(), head.end(), form);
}

Result<AdapterUrl> parse_adapter_url(std::string_view text) {
  AdapterUrl adapter;
  const auto colon = weight_colon(text);
  if (colon != std::string_view::npos) adapter.weight = text.substr(colon + 1);
  text = text.substr(0, colon);
  const auto hash = text.find('#');
  adapter.url = text.substr(0, hash);
  if (hash != std::string_view::npos) {
    const std::string_view fragment = text.substr(hash + 1);
    constexpr std::string_view kKey = "sha256=";
    const std::string_view digits =
        fragment.starts_with(kKey) ? fragment.substr(kKey.size()) : std::string_view();
    if (digits.size() != 64 || digits.find_first_not_of("0123456789abcdefABCDEF") != digits.npos) {
      return Error{ErrorCode::kInvalidArgument,
                   "adapter URL: what follows '#' must be sha256= and 64 hexadecimal digits"};
    }
    adapter.sha256 = digits;
  }
  if (const auto url = http::parse_url(adapter.url); !url.ok()) return url.error();
  return adapter;
}

Result<std::filesystem::path> fetch_adapter(const AdapterUrl& adapter, const Console& console) {
  const auto rules = network_rules();
  if (!rules.ok()) return rules.error();
  const auto civitai = civitai_endpoint();
  if (!civitai.ok()) return civitai.error();
  const auto url = http::parse_url(adapter.url);
  if (!url.ok()) return url.error();

  http::DownloadRequest request{.url = adapter.url, .file = {}, .sha256 = adapter.sha256};
  request.content = http::Content::kSafetensors;
  request.max_bytes = kMaxAdapter;
  request.network = *rules;
  // The page's address changes its meaning with its query; the API's answer says which file it is.
  if (const auto version = civitai_version(*url, *civitai);
      version && url->target.starts_with("/models/")) {
    const auto file = find_civitai_file(*url, *version, *civitai, *rules);
    if (!file.ok()) return file.error();
    request.url = file->url;
    if (request.sha256.empty()) request.sha256 = file->sha256;
  }
  platform::DownloadCache cache(
      {.folder = download_cache_folder(),
       .download =
           [&](const http::DownloadRequest& r) { return download_shown(r, "adapter", console); },
       .warn = [&](std::string_view text) { console.warning(text); }});
  const auto file = cache.get(request);
  if (!file.ok()) return file.error();
  return file->file;
}

}  // namespace limner::cli
