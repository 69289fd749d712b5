#include "platform/http/part_file.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "base/sha256.h"

namespace limner::platform::http {
namespace {

namespace fs = std::filesystem;

// A power cut costs at most this much of a download.
constexpr std::uint64_t kCheckpointBytes = std::uint64_t{32} << 20;
constexpr std::uint64_t kUnknown = std::numeric_limits<std::uint64_t>::max();

[[noreturn]] void fail(const fs::path& path, const char* step) {
  throw Failure(ErrorCode::kIo, fmt::format("[download] cannot write {}: {}: {}", path.string(),
                                            step, std::strerror(errno)));
}

// The segments of a note, when they make sense for a file of this length.
std::optional<std::list<Segment>> read_segments(const nlohmann::json& missing,
                                                std::uint64_t length) {
  std::list<Segment> segments;
  std::uint64_t before = 0;
  for (const auto& pair : missing) {
    const Segment segment{pair.at(0).get<std::uint64_t>(), pair.at(1).get<std::uint64_t>()};
    if (segment.next < before || segment.next >= segment.end || segment.end > length) {
      return std::nullopt;
    }
    before = segment.end;
    segments.push_back(segment);
  }
  return segments;
}

}  // namespace

std::string Identity::validator() const {
  return !etag.empty() && !etag.starts_with("W/") ? etag : last_modified;
}

bool Identity::agrees_with(const Identity& other) const {
  const auto same = [](const std::string& a, const std::string& b) {
    return a.empty() || b.empty() || a == b;
  };
  return same(etag, other.etag) && same(last_modified, other.last_modified) &&
         (!length || !other.length || *length == *other.length);
}

Identity identity_of(const Response& response) {
  Identity identity{.etag = std::string(response.header("etag")),
                    .last_modified = std::string(response.header("last-modified"))};
  // Of a chunked answer Content-Length says nothing.
  const auto digits = response.header("content-length");
  std::uint64_t length = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), length);
  if (response.status == 200 && response.header("transfer-encoding").empty() && !digits.empty() &&
      error == std::errc() && end == digits.data() + digits.size()) {
    identity.length = length;
  }
  return identity;
}

PartFile::PartFile(fs::path file, const Url& url)
    : file_(std::move(file)), part_(file_.string() + ".part"), note_(part_.string() + ".json") {
  const std::string text = url.text();
  url_key_ = sha256_hex(std::as_bytes(std::span<const char>(text)));
  lock_ = FileLock::try_lock(part_);
  if (!lock_) {
    throw Failure({ErrorCode::kUnavailable,
                   fmt::format("[download] {} is being downloaded already", file_.string()), true});
  }
  load();
}

PartFile::~PartFile() {
  if (published_ || resumable()) return;
  unlink(note_.c_str());
  unlink(part_.c_str());
}

void PartFile::load() {
  std::ifstream in(note_);
  const auto note = nlohmann::json::parse(in, nullptr, false);
  // A note that does not fit is no error: the download begins anew.
  try {
    if (note.is_discarded() || note.at("url_sha256") != url_key_) return;
    const auto length = note.at("length").get<std::uint64_t>();
    auto segments = read_segments(note.at("missing"), length);
    if (!segments || fs::file_size(part_) != length) return;
    identity_ = {length, note.at("etag").get<std::string>(),
                 note.at("last_modified").get<std::string>()};
    segments_ = std::move(*segments);
    begun_ = true;
  } catch (const nlohmann::json::exception&) {
    return;
  }
}

void PartFile::save() const {
  nlohmann::json missing = nlohmann::json::array();
  for (const Segment& segment : segments_) {
    if (segment.missing() > 0) missing.push_back({segment.next, segment.end});
  }
  const nlohmann::json note = {{"url_sha256", url_key_},
                               {"length", *identity_.length},
                               {"etag", identity_.etag},
                               {"last_modified", identity_.last_modified},
                               {"missing", missing}};
  write_atomically(note_, note.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

bool PartFile::resumable() const {
  return begun_ && identity_.length && !identity_.validator().empty() && done() > 0;
}

std::uint64_t PartFile::done() const {
  if (!begun_) return 0;
  if (!identity_.length) return segments_.front().next;
  std::uint64_t done = *identity_.length;
  for (const Segment& segment : segments_) done -= segment.missing();
  return done;
}

void PartFile::begin(const Identity& identity) {
  discard();
  identity_ = identity;
  begun_ = true;
  if (identity.length &&
      ftruncate(lock_->descriptor(), static_cast<off_t>(*identity.length)) != 0) {
    fail(part_, "reserving its length");
  }
  const std::uint64_t end = identity.length.value_or(kUnknown);
  if (end > 0) segments_.push_back({0, end});
}

void PartFile::discard() {
  unlink(note_.c_str());
  if (ftruncate(lock_->descriptor(), 0) != 0) fail(part_, "emptying it");
  identity_ = {};
  segments_.clear();
  begun_ = false;
  unsaved_ = 0;
}

void PartFile::write(Segment& segment, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t done =
        pwrite(lock_->descriptor(), bytes.data(), bytes.size(), static_cast<off_t>(segment.next));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail(part_, "writing");
    segment.next += static_cast<std::uint64_t>(done);
    unsaved_ += static_cast<std::uint64_t>(done);
    bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
}

bool PartFile::extend(Segment& segment) {
  for (auto it = segments_.begin(); it != segments_.end(); ++it) {
    if (it->next != segment.end || it->taken || &*it == &segment) continue;
    segment.end = it->end;
    segments_.erase(it);
    return true;
  }
  return false;
}

Segment& PartFile::split(Segment& segment) {
  const auto place = std::find_if(segments_.begin(), segments_.end(),
                                  [&](const Segment& each) { return &each == &segment; });
  const std::uint64_t middle = segment.next + segment.missing() / 2;
  const auto later = segments_.insert(std::next(place), Segment{middle, segment.end});
  segment.end = middle;
  return *later;
}

void PartFile::release(Segment& segment) {
  segment.taken = false;
  std::erase_if(segments_, [](const Segment& each) { return each.missing() == 0 && !each.taken; });
}

void PartFile::end_here(Segment& segment) {
  identity_.length = segment.next;
  segment.end = segment.next;
}

void PartFile::checkpoint(bool force) {
  if (!resumable() || unsaved_ == 0 || (!force && unsaved_ < kCheckpointBytes)) return;
  if (fdatasync(lock_->descriptor()) != 0) fail(part_, "flushing to the disk");
  save();
  unsaved_ = 0;
}

void PartFile::publish() {
  if (fsync(lock_->descriptor()) != 0) fail(part_, "flushing to the disk");
  if (std::rename(part_.c_str(), file_.c_str()) != 0) fail(file_, "renaming");
  published_ = true;
  unlink(note_.c_str());
  sync_folder(file_.parent_path());
}

}  // namespace limner::platform::http
