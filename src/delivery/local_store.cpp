#include "delivery/local_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <system_error>
#include <utility>

#include "base/sha256.h"
#include "delivery/crypto.h"

namespace limner::delivery {
namespace {

namespace fs = std::filesystem;

Error error_of(const fs::path& path, const std::system_error& failed) {
  const int number = failed.code().value();
  const std::string message = fmt::format("[store] {}: {}", path.string(), failed.what());
  switch (number) {
    case ENOSPC:
    case EDQUOT:
      return {ErrorCode::kUnavailable, fmt::format("[store] the disk is full: {}", message), true};
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return {ErrorCode::kUnavailable, message, true};
    case ENOENT:
      return {ErrorCode::kNotFound, message};
    default:
      return {ErrorCode::kIo, message};
  }
}

Error not_found(const ObjectKey& key) {
  return {ErrorCode::kNotFound, fmt::format("[store] there is no object {}", key.text())};
}

Time time_of(const struct stat& status) {
  return Time(
      std::chrono::duration_cast<Time::duration>(std::chrono::seconds(status.st_mtim.tv_sec) +
                                                 std::chrono::nanoseconds(status.st_mtim.tv_nsec)));
}

// Entries' names in order; none where the folder is not there.
std::vector<std::string> names_in(const fs::path& folder, bool folders) {
  std::vector<std::string> names;
  std::error_code missing;
  for (const auto& entry : fs::directory_iterator(folder, missing)) {
    std::error_code gone;
    if (entry.is_directory(gone) == folders) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// A file open for reading.
class Reader {
 public:
  explicit Reader(const fs::path& path) : descriptor_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (descriptor_ < 0) fail("opening");
    if (fstat(descriptor_, &status_) != 0) {
      const int number = errno;
      ::close(descriptor_);
      errno = number;
      fail("looking at it");
    }
  }
  ~Reader() { ::close(descriptor_); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  std::uint64_t size() const { return static_cast<std::uint64_t>(status_.st_size); }

  std::vector<std::uint8_t> read(std::uint64_t first, std::uint64_t length) const {
    std::vector<std::uint8_t> bytes(length);
    std::size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t got = pread(descriptor_, bytes.data() + done, bytes.size() - done,
                                static_cast<off_t>(first + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) fail("reading");
      if (got == 0) break;
      done += static_cast<std::size_t>(got);
    }
    bytes.resize(done);
    return bytes;
  }

 private:
  [[noreturn]] static void fail(const char* step) {
    throw std::system_error(errno, std::generic_category(), step);
  }
  int descriptor_;
  struct stat status_{};
};

}  // namespace

LocalStore::LocalStore(fs::path root, std::string public_url, const UrlSigner& signer,
                       FileSystem& files, const platform::Clock& clock)
    : root_(std::move(root)),
      public_url_(std::move(public_url)),
      signer_(signer),
      files_(files),
      clock_(clock) {}

Result<std::unique_ptr<LocalStore>> LocalStore::open(const fs::path& root, std::string public_url,
                                                     const UrlSigner& signer, FileSystem& files,
                                                     const platform::Clock& clock) {
  try {
    files.make_folders(fs::absolute(root) / ".tmp");
  } catch (const std::system_error& failed) {
    return error_of(root, failed);
  }
  return std::unique_ptr<LocalStore>(
      new LocalStore(fs::absolute(root), std::move(public_url), signer, files, clock));
}

fs::path LocalStore::path_of(const ObjectKey& key) const {
  return root_ / key.text();
}

// One that no other put uses, of this process or of an earlier one with its number.
fs::path LocalStore::temporary_name() const {
  static std::atomic<unsigned> count = 0;
  return root_ / ".tmp" / fmt::format("{}-{}-{}", getpid(), count++, to_hex(random_bytes(8)));
}

void LocalStore::write_temporary(const fs::path& path, std::span<const std::uint8_t> bytes,
                                 Time time) {
  int descriptor = files_.create(path);
  try {
    files_.write(descriptor, bytes);
    files_.set_time(descriptor, time);
    files_.sync(descriptor);
    const int last = std::exchange(descriptor, -1);
    files_.close(last);
  } catch (const std::system_error&) {
    // The first error is the one to tell.
    if (descriptor >= 0) ::close(descriptor);
    throw;
  }
}

void LocalStore::publish(const fs::path& temporary, const fs::path& path) {
  const std::scoped_lock lock(names_);
  files_.make_folders(path.parent_path());
  files_.rename(temporary, path);
  files_.sync_folder(path.parent_path());
}

Result<StoredObject> LocalStore::put(const Place& place, std::span<const std::uint8_t> bytes) {
  if (const auto checked = check_account(place.account); !checked) return checked.error();
  if (const auto checked = check_extension(place.extension); !checked) return checked.error();
  const ObjectKey key{place.retention, place.account, sha256_hex(bytes), place.extension};
  const fs::path path = path_of(key);
  const Time time = Time(clock_.wall());
  try {
    const fs::path temporary = temporary_name();
    try {
      write_temporary(temporary, bytes, time);
      publish(temporary, path);
    } catch (const std::system_error&) {
      unlink(temporary.c_str());
      throw;
    }
  } catch (const std::system_error& failed) {
    return error_of(path, failed);
  } catch (const Failure& failure) {
    return failure.error();
  }
  return StoredObject{key, bytes.size(), time};
}

Result<std::vector<std::uint8_t>> LocalStore::get(const ObjectKey& key, ByteRange range) {
  try {
    const Reader reader(path_of(key));
    if (range.first > 0 && range.first >= reader.size()) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("[store] want a range inside the {} bytes of {}, got one from {}",
                               reader.size(), key.text(), range.first)};
    }
    auto bytes = reader.read(range.first, std::min(range.length, reader.size() - range.first));
    if (range.whole() && sha256_hex(bytes) != key.sha256) {
      return Error{ErrorCode::kIo,
                   fmt::format("[store] the bytes of {} are not what its name says: the file is "
                               "damaged",
                               key.text())};
    }
    return bytes;
  } catch (const std::system_error& failed) {
    if (failed.code().value() == ENOENT) return not_found(key);
    return error_of(path_of(key), failed);
  }
}

Result<StoredObject> LocalStore::head(const ObjectKey& key) {
  struct stat status{};
  if (stat(path_of(key).c_str(), &status) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return not_found(key);
    return error_of(path_of(key),
                    std::system_error(errno, std::generic_category(), "looking at it"));
  }
  return StoredObject{key, static_cast<std::uint64_t>(status.st_size), time_of(status)};
}

Result<std::string> LocalStore::sign(const SignRequest& request) {
  return public_url_ + signer_.sign({.path = std::string(kPath) + request.key.text(),
                                     .expires_at = Time(clock_.wall()) + request.lifetime,
                                     .download_name = request.download_name});
}

Result<bool> LocalStore::remove(const ObjectKey& key, Time stored_before) {
  const std::scoped_lock lock(names_);
  const auto there = head(key);
  if (!there && there.error().code == ErrorCode::kNotFound) return false;
  if (!there) return there.error();
  if (there->stored_at >= stored_before) return false;
  try {
    files_.remove(path_of(key));
    files_.sync_folder(path_of(key).parent_path());
  } catch (const std::system_error& failed) {
    if (failed.code().value() == ENOENT) return false;  // another process was faster
    return error_of(path_of(key), failed);
  }
  return true;
}

Result<ListPage> LocalStore::list(const ListRequest& request) {
  ObjectKey after;
  if (!request.after.empty()) {
    auto parsed = parse_object_key(request.after);
    if (!parsed) return parsed.error();
    after = *parsed;
  }
  const fs::path top = root_ / name(request.retention);
  const std::string after_folder = after.sha256.substr(0, 2);
  const std::string after_file = after.sha256 + "." + after.extension;
  ListPage page;
  for (const std::string& account : names_in(top, true)) {
    if (account < after.account) continue;
    if (!request.account.empty() && account != request.account) continue;
    const bool resumed = account == after.account;
    for (const std::string& folder : names_in(top / account, true)) {
      if (resumed && folder < after_folder) continue;
      for (const std::string& file : names_in(top / account / folder, false)) {
        if (resumed && folder == after_folder && file <= after_file) continue;
        const auto key = parse_object_key(
            fmt::format("{}/{}/{}/{}", name(request.retention), account, folder, file));
        if (!key) continue;  // not ours
        const auto object = head(*key);
        if (!object || object->stored_at >= request.stored_before) continue;
        if (page.objects.size() >= std::max<std::size_t>(request.limit, 1)) {
          page.next = page.objects.back().key.text();
          return page;
        }
        page.objects.push_back(*object);
      }
    }
  }
  return page;
}

Result<std::size_t> LocalStore::remove_leftovers(Time started_before) {
  std::size_t removed = 0;
  for (const std::string& file : names_in(root_ / ".tmp", false)) {
    const fs::path path = root_ / ".tmp" / file;
    struct stat status{};
    if (stat(path.c_str(), &status) != 0 || time_of(status) >= started_before) continue;
    try {
      files_.remove(path);
      ++removed;
    } catch (const std::system_error& failed) {
      if (failed.code().value() != ENOENT) return error_of(path, failed);
    }
  }
  return removed;
}

}  // namespace limner::delivery
