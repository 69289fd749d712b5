// AdapterResolver: from the adapters that a request names to files on this machine.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <stop_token>
#include <vector>

#include "base/error.h"
#include "contract/job_request.h"
#include "engine/engine.h"
#include "engine/lora/adapter_folders.h"
#include "platform/download_cache.h"

namespace limner::worker {

struct AdapterResolverOptions {
  std::vector<std::filesystem::path> folders{};       // that names are looked for in
  platform::DownloadCache::Options downloads{};       // where those from URLs are kept
  platform::http::NetworkRules network{};             // whom they may be fetched from
  std::uint64_t most_bytes = std::uint64_t{4} << 30;  // of one download
  std::chrono::milliseconds timeout = std::chrono::minutes(10);
};

// Any thread may call.
class AdapterResolver {
 public:
  explicit AdapterResolver(AdapterResolverOptions options);

  // Whether resolve() may take long: a download, or a hash over a file.
  static bool needs_time(const std::vector<contract::AdapterChoice>& choices);
  // A name is looked for in the folders and nowhere else; a URL in the cache of downloads, or
  // fetched. Errors name the adapter ("loras[1]"): as AdapterFolders::find and http::download;
  // kInvalidModel where the file is not the one that `sha256` names.
  Result<std::vector<engine::PictureAdapter>> resolve(
      const std::vector<contract::AdapterChoice>& choices, std::stop_token stop);

 private:
  Result<std::filesystem::path> file_of(const contract::AdapterChoice& choice,
                                        std::stop_token stop);

  const AdapterResolverOptions options_;
  const engine::lora::AdapterFolders folders_;
  platform::DownloadCache downloads_;
};

}  // namespace limner::worker
