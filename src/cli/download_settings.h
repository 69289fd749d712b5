// What this machine's environment says about downloads.
#pragma once

#include <filesystem>
#include <string>

#include "base/error.h"
#include "cli/console.h"
#include "platform/http/download.h"
#include "platform/http/url.h"

namespace limner::cli {

// HF_ENDPOINT (https://huggingface.co) and CIVITAI_ENDPOINT (https://civitai.com), without a path.
Result<platform::http::Url> hub_endpoint();
Result<platform::http::Url> civitai_endpoint();

// LIMNER_EGRESS_ALLOW, certificates from SSL_CERT_FILE or CURL_CA_BUNDLE, and HF_TOKEN and
// CIVITAI_API_KEY as headers for those two hosts. Errors: kInvalidArgument naming the variable.
Result<platform::http::NetworkRules> network_rules();

// Where files from URLs are kept: $LIMNER_CACHE/downloads, else $XDG_CACHE_HOME/limner/downloads,
// else ~/.cache/limner/downloads.
std::filesystem::path download_cache_folder();

// Downloads with a progress bar (`label`); Ctrl-C ends it with kCancelled, and what is there is
// kept for the next time.
Result<platform::http::Downloaded> download_shown(platform::http::DownloadRequest request,
                                                  const std::string& label, const Console& console);

}  // namespace limner::cli
