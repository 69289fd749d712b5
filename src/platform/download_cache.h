// DownloadCache: files from URLs kept in a folder, the least recently used out first.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "platform/http/download.h"

namespace limner::platform {

struct CachedFile {
  std::filesystem::path file;
  std::uint64_t bytes = 0;
  std::string sha256;
  bool hit = false;  // it was there already
};

// In the folder: SHA-256-OF-URL.safetensors (or .data), index.json, and a part while one comes.
// Many threads and processes may share a folder: one URL is fetched by one of them while the others
// wait for it, and find it there; when it fails, the next one tries. A file is taken for good as
// long as it is there: a URL is not asked again whether it changed. A file that goes out while
// somebody still maps it stays readable for them.
class DownloadCache {
 public:
  struct Options {
    std::filesystem::path folder;  // made when it is missing
    std::uint64_t max_bytes = std::uint64_t{32} << 30;
    // For tests; otherwise http::download.
    std::function<Result<http::Downloaded>(const http::DownloadRequest&)> download{};
    // What a person should hear: an index that was broken and made anew.
    std::function<void(std::string_view)> warn{};
  };
  explicit DownloadCache(Options options);

  // The file of request.url; request.file is not looked at. With request.sha256, a file of another
  // hash is fetched again. Blocks while somebody else fetches it, up to the request's total timeout
  // or stop. Errors as http::download.
  Result<CachedFile> get(const http::DownloadRequest& request);

 private:
  Options options_;
};

}  // namespace limner::platform
