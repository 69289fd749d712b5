// Links of Civitai: which file they mean, and what its hash is.
#pragma once

#include <optional>
#include <string>

#include "base/error.h"
#include "platform/http/download.h"
#include "platform/http/url.h"

namespace limner::cli {

struct RemoteFile {
  std::string url;
  std::string name;    // a plain file name
  std::string sha256;  // "" when it is not known
};

// The version that a link names: ID of `.../api/download/models/ID` or
// `.../models/...?modelVersionId=ID`, on the host of `civitai` or its www. Nothing for other URLs.
std::optional<std::string> civitai_version(const platform::http::Url& url,
                                           const platform::http::Url& civitai);

// The file of the version's description (the API's JSON) that the link's own query (type, format,
// size, fp) asks for, or else its primary one; safetensors only. Errors: kInvalidModel for JSON
// that is not one, kNotFound naming what there is.
Result<RemoteFile> choose_civitai_file(const std::string& description,
                                       const platform::http::Url& link);

// Asks the API and chooses.
Result<RemoteFile> find_civitai_file(const platform::http::Url& link, const std::string& version,
                                     const platform::http::Url& civitai,
                                     const platform::http::NetworkRules& rules);

// What may be a file's name on any disk: letters, digits, "._-"; everything else becomes '_'. Ends
// in .safetensors.
std::string safe_file_name(const std::string& name);

}  // namespace limner::cli
