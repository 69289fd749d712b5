#include "worker/adapter_resolver.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/file_hash.h"

namespace limner::worker {
namespace {

Error about(std::size_t index, Error error) {
  error.message = fmt::format("loras[{}]: {}", index, error.message);
  return error;
}

}  // namespace

AdapterResolver::AdapterResolver(AdapterResolverOptions options)
    : options_(std::move(options)), folders_(options_.folders), downloads_(options_.downloads) {}

bool AdapterResolver::needs_time(const std::vector<contract::AdapterChoice>& choices) {
  return std::ranges::any_of(choices, [](const contract::AdapterChoice& choice) {
    return !choice.url.empty() || !choice.sha256.empty();
  });
}

Result<std::filesystem::path> AdapterResolver::file_of(const contract::AdapterChoice& choice,
                                                       std::stop_token stop) {
  if (!choice.url.empty()) {
    platform::http::DownloadRequest request;
    request.url = choice.url;
    request.sha256 = choice.sha256;
    request.content = platform::http::Content::kSafetensors;
    request.max_bytes = options_.most_bytes;
    request.network = options_.network;
    request.network.total_timeout = std::min(request.network.total_timeout, options_.timeout);
    request.stop = std::move(stop);
    const auto got = downloads_.get(request);
    if (!got.ok()) return got.error();
    return got->file;
  }
  auto file = folders_.find(choice.name);
  if (!file.ok() || choice.sha256.empty()) return file;
  const auto hash = file_sha256(*file);
  if (!hash.ok()) return hash.error();
  if (*hash == choice.sha256) return file;
  return Error{ErrorCode::kInvalidModel,
               fmt::format("adapter {} has the SHA-256 {}, and {} was asked for", choice.name,
                           *hash, choice.sha256)};
}

Result<std::vector<engine::PictureAdapter>> AdapterResolver::resolve(
    const std::vector<contract::AdapterChoice>& choices, std::stop_token stop) {
  std::vector<engine::PictureAdapter> adapters;
  for (std::size_t index = 0; index < choices.size(); ++index) {
    if (!std::isfinite(choices[index].weight)) {
      return about(index, {ErrorCode::kInvalidArgument, "the weight is not a finite number"});
    }
    auto file = file_of(choices[index], stop);
    if (!file.ok()) return about(index, file.error());
    adapters.push_back(
        {std::move(*file), engine::lora::AdapterScales::all(choices[index].weight), false});
  }
  return adapters;
}

}  // namespace limner::worker
