#include "platform/download_cache.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <span>
#include <thread>

#include "base/file_hash.h"
#include "base/sha256.h"
#include "platform/cache_index.h"
#include "platform/http/url.h"

namespace limner::platform {
namespace {

namespace fs = std::filesystem;

std::string file_name(const http::Url& url, http::Content content) {
  const std::string text = url.text();
  return sha256_hex(std::as_bytes(std::span<const char>(text))) +
         (content == http::Content::kSafetensors ? ".safetensors" : ".data");
}

// Held by the one that fetches the file. Its lock file goes with it.
class Turn {
 public:
  Turn(fs::path path, const http::DownloadRequest& request) : path_(std::move(path)) {
    const auto end = std::chrono::steady_clock::now() + request.network.total_timeout;
    while (!(lock_ = FileLock::try_lock(path_))) {
      if (request.stop.stop_requested()) {
        throw Failure(ErrorCode::kCancelled,
                      "[download] stopped while waiting for another download");
      }
      if (std::chrono::steady_clock::now() >= end) {
        throw Failure({ErrorCode::kDeadlineExceeded,
                       "[download] another download of the same file is not done in time", true});
      }
      // flock cannot wait for a stop token as well.
      std::this_thread::sleep_for(std::chrono::milliseconds(25));
    }
  }
  ~Turn() { unlink(path_.c_str()); }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  fs::path path_;
  std::optional<FileLock> lock_;
};

std::string lower_hex(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'F') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

CachedFile get_or_throw(const DownloadCache::Options& options, http::DownloadRequest request) {
  const http::Url url = http::parse_url(request.url).value_or_throw();
  const std::string name = file_name(url, request.content);
  fs::create_directories(options.folder);
  request.file = options.folder / name;
  request.max_bytes = std::min(request.max_bytes, options.max_bytes);

  const Turn turn(options.folder / (name + ".lock"), request);
  std::string known;  // the hash of the file that is there
  bool there = false;
  {
    CacheIndex index(options.folder, options.warn);
    if (const CacheEntry* entry = index.find(name)) {
      there = true;
      known = entry->sha256;
    }
  }
  // Outside the index's lock: hashing a large file takes seconds.
  if (there && known.empty()) known = file_sha256(request.file).value_or_throw();
  const bool hit = there && (request.sha256.empty() || known == lower_hex(request.sha256));
  http::Downloaded done{.file = request.file, .bytes = 0, .sha256 = known, .etag = {}};
  if (!hit) {
    const auto fetched = options.download ? options.download(request) : http::download(request);
    if (!fetched.ok()) throw Failure(fetched.error());
    done = *fetched;
  }
  CacheIndex index(options.folder, options.warn);
  const CacheEntry* entry = index.find(name);
  if (entry == nullptr) throw Failure(ErrorCode::kIo, "[download] the cached file went away");
  const std::uint64_t bytes = entry->bytes;
  index.put(name, {bytes, done.sha256, url.shown()});
  index.evict(options.max_bytes, name);
  index.save();
  return {request.file, bytes, done.sha256, hit};
}

}  // namespace

DownloadCache::DownloadCache(Options options) : options_(std::move(options)) {}

Result<CachedFile> DownloadCache::get(const http::DownloadRequest& request) {
  try {
    return get_or_throw(options_, request);
  } catch (const Failure& failure) {
    return failure.error();
  } catch (const fs::filesystem_error& error) {
    return Error{ErrorCode::kIo, fmt::format("[download] {}", error.what())};
  }
}

}  // namespace limner::platform
