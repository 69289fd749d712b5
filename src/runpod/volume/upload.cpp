#include "runpod/volume/upload.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

#include "base/file_hash.h"
#include "delivery/crypto.h"
#include "platform/file_lock.h"
#include "runpod/volume/manifest.h"
#include "runpod/volume/places.h"

namespace limner::runpod {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kListed = 1000;
constexpr const char* kSetUp = "run `limner volume setup` on it first";

[[noreturn]] void refuse(const std::string& why) {
  throw Failure(ErrorCode::kInvalidArgument, why);
}

class Upload {
 public:
  Upload(const UploadRequest& request, delivery::S3Client& client)
      : request_(request),
        client_(client),
        manifest_key_(request.prefix + kVolumeManifest),
        note_(request.volume, request.target + '/' + request.prefix) {}

  UploadReport run() {
    manifest_ = read_local();
    read_remote();
    compare();
    find_others();
    if (request_.dry_run || is_done()) return std::move(report_);
    bring();
    return std::move(report_);
  }

 private:
  VolumeManifest read_local() {
    auto manifest = read_manifest(request_.volume);
    if (!manifest.ok() && manifest.error().code == ErrorCode::kNotFound)
      refuse(fmt::format("{} has no {}: {}", request_.volume.string(), kVolumeManifest, kSetUp));
    VolumeManifest read = std::move(manifest).value_or_throw();
    const auto files = volume_files(request_.volume).value_or_throw();
    for (const std::string& path : files) {
      if (!read.files.contains(path))
        refuse(fmt::format("{} is not in {}: {}", path, kVolumeManifest, kSetUp));
    }
    text_ = read_text(request_.volume / kVolumeManifest).value_or_throw();
    return read;
  }

  void read_remote() {
    const auto text = client_.get(manifest_key_);
    if (!text.ok() && text.error().code != ErrorCode::kNotFound) throw Failure(text.error());
    if (!text.ok()) return;
    remote_text_.emplace(text->begin(), text->end());
    // One that cannot be read tells nothing, and everything is compared by the server's own sums.
    auto remote = parse_manifest(*remote_text_, manifest_key_);
    if (remote.ok()) remote_ = std::move(*remote);
  }

  // What the bucket has at a path, as far as anybody has written it down. A manifest there is newer
  // than any note: it is removed before the note's first change.
  std::string arrived(const std::string& path) const {
    if (!remote_text_) return note_.arrived(path);
    const auto found = remote_.files.find(path);
    return found == remote_.files.end() ? "" : found->second.sha256;
  }

  void compare() {
    std::vector<const std::pair<const std::string, VolumeFile>*> files;
    std::uint64_t total = 0;
    for (const auto& file : manifest_.files) {
      files.push_back(&file);
      total += file.second.bytes;
    }
    std::mutex mutex;  // of what follows
    std::uint64_t done = 0;
    const auto read = [&](std::uint64_t bytes) {
      const std::scoped_lock lock(mutex);
      if (request_.send.stop.stop_requested())
        throw Failure(ErrorCode::kCancelled, "the upload was stopped; nothing was sent");
      request_.comparing(done = std::min(done + bytes, total), total);
    };
    each(files.size(), [&](std::size_t i) {
      const auto& [path, file] = *files[i];
      const fs::path local = request_.volume / path;
      std::error_code ignored;  // check_local tells
      const auto modified = fs::last_write_time(local, ignored);
      check_local(path, file, read);
      const bool there = is_there(path, file);
      const std::scoped_lock lock(mutex);
      if (there) {
        ++report_.unchanged;
        known_[path] = file.sha256;
      } else {
        to_send_.push_back(
            {path, local, request_.prefix + path, file.bytes, file.sha256, modified});
      }
    });
    std::sort(to_send_.begin(), to_send_.end(),
              [](const FileToSend& a, const FileToSend& b) { return a.path < b.path; });
    for (const FileToSend& file : to_send_) {
      report_.changed.push_back(file.path);
      report_.changed_bytes += file.bytes;
    }
  }

  void check_local(const std::string& path, const VolumeFile& file,
                   const std::function<void(std::uint64_t)>& read) const {
    const fs::path local = request_.volume / path;
    std::error_code error;
    const auto bytes = fs::file_size(local, error);
    const bool same = !error && bytes == file.bytes && file_sha256(local, [&] {
                                                         read(std::uint64_t{1} << 20);
                                                       }).value_or_throw() == file.sha256;
    if (same) return;
    refuse(fmt::format("{} is not what {} says: `limner volume check --volume {}` tells more",
                       local.string(), kVolumeManifest, request_.volume.string()));
  }

  bool is_there(const std::string& path, const VolumeFile& file) const {
    const auto object = look_at(client_, request_.prefix + path);
    if (!object || object->bytes != file.bytes) return false;
    return (object->sha256.empty() ? arrived(path) : object->sha256) == file.sha256;
  }

  void find_others() {
    if (!request_.remove_others) return;
    for (const char* folder : kVolumeFolders) {
      std::string after;
      do {
        const auto page =
            client_.list(request_.prefix + folder + '/', after, kListed).value_or_throw();
        for (const delivery::S3Object& object : page.objects) {
          const std::string path = object.key.substr(request_.prefix.size());
          if (!manifest_.files.contains(path)) report_.removed.push_back(object.key);
        }
        after = page.next;
      } while (!after.empty());
    }
  }

  bool is_done() const {
    return to_send_.empty() && report_.removed.empty() && remote_text_ == text_;
  }

  void bring() {
    note_.begin(known_);
    client_.remove(manifest_key_).value_or_throw();
    if (!to_send_.empty()) {
      PartSender sender(to_send_, request_.send, client_, note_);
      report_.sent = sender.run();
    }
    for (const std::string& key : report_.removed) client_.remove(key).value_or_throw();
    client_.put(manifest_key_, "application/json", delivery::bytes_of(text_)).value_or_throw();
    note_.remove();
  }

  // work(0) to work(count - 1), several at once; the first failure ends it and is thrown.
  void each(std::size_t count, const std::function<void(std::size_t)>& work) const {
    std::atomic<std::size_t> next = 0;
    std::mutex mutex;
    std::optional<Error> error;  // by mutex
    const auto loop = [&] {
      for (std::size_t i = next++; i < count; i = next++) {
        try {
          work(i);
        } catch (const std::exception& thrown) {
          next = count;
          const auto* failure = dynamic_cast<const Failure*>(&thrown);
          const std::scoped_lock lock(mutex);
          if (!error) error = failure ? failure->error() : Error{ErrorCode::kIo, thrown.what()};
        }
      }
    };
    {
      std::vector<std::jthread> threads;
      for (int i = 1; i < request_.send.parallel; ++i) threads.emplace_back(loop);
      loop();
    }
    if (error) throw Failure(*error);
  }

  const UploadRequest& request_;
  delivery::S3Client& client_;
  const std::string manifest_key_;
  UploadNote note_;
  VolumeManifest manifest_, remote_;
  std::string text_;                        // of the manifest
  std::optional<std::string> remote_text_;  // nothing: there is none
  std::map<std::string, std::string> known_;
  std::vector<FileToSend> to_send_;
  UploadReport report_;
};

}  // namespace

Result<UploadReport> upload_volume(const UploadRequest& request, delivery::S3Client& client) {
  try {
    const auto lock = platform::FileLock::try_lock(request.volume / kVolumeLock);
    if (!lock) {
      throw Failure(ErrorCode::kUnavailable, fmt::format("another `limner volume` is at work on {}",
                                                         request.volume.string()));
    }
    return Upload(request, client).run();
  } catch (const Failure& failure) {
    return failure.error();
  } catch (const fs::filesystem_error& error) {
    return Error{ErrorCode::kIo, error.what()};
  }
}

}  // namespace limner::runpod
