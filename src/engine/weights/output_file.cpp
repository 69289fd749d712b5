#include "engine/weights/output_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <vector>

#include "base/atomic_file.h"
#include "engine/weights/json.h"

namespace limner::engine::weights {
namespace {

namespace fs = std::filesystem;

// Lost at most by an interruption; a second's work for most disks.
constexpr std::uint64_t kBetweenSafePoints = 64u << 20;

fs::path journal_of(const fs::path& partial) {
  return partial.string() + ".json";
}

// Whether the name still leads to the open file.
bool is_same_file(int descriptor, const fs::path& path) {
  struct stat open_file = {}, named = {};
  return ::fstat(descriptor, &open_file) == 0 && ::stat(path.c_str(), &named) == 0 &&
         open_file.st_dev == named.st_dev && open_file.st_ino == named.st_ino;
}

}  // namespace

OutputFile::OutputFile(fs::path target, std::string where, std::string key)
    : target_(std::move(target)), where_(std::move(where)), key_(std::move(key)) {
  static std::atomic<unsigned> counter = 0;
  path_ = target_;
  path_ += key_.empty() ? fmt::format(".partial-{}-{}", ::getpid(), counter++) : ".partial";
  open();
  if (key_.empty()) return;
  lock();
  keep_safe_part();
}

OutputFile::~OutputFile() {
  if (key_.empty() && !path_.empty()) ::unlink(path_.c_str());
  if (descriptor_ >= 0) ::close(descriptor_);
}

void OutputFile::open() {
  const int how = key_.empty() ? O_EXCL : 0;
  descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | how, 0644);
  if (descriptor_ < 0) fail("cannot be created");
}

void OutputFile::lock() {
  while (true) {
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
      throw Failure(ErrorCode::kUnavailable,
                    fmt::format("{}: is being written by another process", where_));
    }
    // Who held it until now may have put it in place.
    if (is_same_file(descriptor_, path_)) return;
    ::close(descriptor_);
    open();
  }
}

void OutputFile::keep_safe_part() {
  std::uint64_t bytes = 0;
  std::string sha256;
  try {
    const nlohmann::json journal = read_json(journal_of(path_), "journal");
    if (journal.at("key") == key_) {
      bytes = journal.at("bytes");
      sha256 = journal.at("sha256");
    }
  } catch (const std::exception&) {
    bytes = 0;  // no journal, or a damaged one: everything is written again
  }
  std::vector<std::byte> chunk(1u << 20);
  Sha256 hash;
  std::uint64_t at = 0;
  while (at < bytes) {
    const ssize_t got =
        ::pread(descriptor_, chunk.data(), std::min<std::uint64_t>(chunk.size(), bytes - at),
                static_cast<off_t>(at));
    if (got <= 0) break;
    hash.update(std::span(chunk).first(static_cast<std::size_t>(got)));
    at += static_cast<std::uint64_t>(got);
  }
  Sha256 until_here = hash;
  if (at == bytes && bytes > 0 && to_hex(until_here.finish()) == sha256) {
    kept_ = written_ = safe_ = bytes;
    hash_ = hash;
  }
  if (::ftruncate(descriptor_, static_cast<off_t>(kept_)) != 0 ||
      ::lseek(descriptor_, static_cast<off_t>(kept_), SEEK_SET) < 0)
    fail("cannot be written");
}

void OutputFile::put(std::span<const std::byte> bytes) {
  hash_.update(bytes);
  written_ += bytes.size();
  while (!bytes.empty()) {
    // One call takes at most 2 GiB on Linux; smaller pieces also let a signal through.
    const ssize_t written =
        ::write(descriptor_, bytes.data(), std::min<std::size_t>(bytes.size(), 64u << 20));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("cannot be written");
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void OutputFile::safe_point() {
  if (key_.empty() || written_ - safe_ < kBetweenSafePoints) return;
  if (::fdatasync(descriptor_) != 0) fail("cannot be written");
  Sha256 until_here = hash_;
  const nlohmann::json journal = {
      {"key", key_}, {"bytes", written_}, {"sha256", to_hex(until_here.finish())}};
  write_atomically(journal_of(path_), journal.dump());
  safe_ = written_;
}

std::string OutputFile::finish() {
  if (::fsync(descriptor_) != 0) fail("cannot be written");
  if (::rename(path_.c_str(), target_.c_str()) != 0) fail("cannot be put in place");
  if (!key_.empty()) ::unlink(journal_of(path_).c_str());
  path_.clear();
  if (::close(std::exchange(descriptor_, -1)) != 0) fail("cannot be written");
  sync_folder(target_.parent_path());
  return to_hex(hash_.finish());
}

void OutputFile::fail(const char* what) const {
  const int code = errno;
  throw Failure(ErrorCode::kIo, fmt::format("{}: {} ({})", where_, what, std::strerror(code)));
}

}  // namespace limner::engine::weights
