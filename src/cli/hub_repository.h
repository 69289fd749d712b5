// Repositories of a model hub in the diffusers layout: which files make the model.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "platform/http/download.h"
#include "platform/http/url.h"

namespace limner::cli {

struct HubName {
  std::string repository;  // "owner/name"
  std::string revision = "main";
};

// "owner/name" or "owner/name@revision"; letters, digits and "._-" ('/' too in a revision).
Result<HubName> parse_hub_name(const std::string& text);

struct HubFile {
  std::string path;  // inside the repository
  std::uint64_t bytes = 0;
  std::string sha256;  // of large files; "" for small ones, which the hub gives none of
};

struct HubRepository {
  std::string commit;  // one state of the repository, whatever is pushed meanwhile
  std::vector<HubFile> files;
};

// From the API's JSON. Errors: kInvalidModel for what is no such JSON, or for a path that would
// lead out of the folder it is put in.
Result<HubRepository> parse_hub_repository(const std::string& answer);

// The files of a diffusers model: model_index.json, what is said of its licence, and of each
// component that the index names its configs and its safetensors weights: those of `variant` where
// a component has them, else the plain ones. Errors: kNotFound for a variant that no component has,
// kUnsupported for a component that has pickles only, kInvalidModel for a broken index.
Result<std::vector<HubFile>> choose_hub_files(const HubRepository& repository,
                                              const std::string& model_index,
                                              const std::string& variant);

// endpoint/owner/name/resolve/COMMIT/PATH
std::string hub_file_url(const platform::http::Url& endpoint, const HubName& name,
                         const std::string& commit, const std::string& path);
// endpoint/api/models/owner/name/revision/REVISION?blobs=true
std::string hub_api_url(const platform::http::Url& endpoint, const HubName& name);

}  // namespace limner::cli
