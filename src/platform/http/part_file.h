// PartFile: the half-way form of a download, FILE.part, and the note of what is there of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <list>
#include <optional>
#include <span>
#include <string>

#include "platform/file_lock.h"
#include "platform/http/transfers.h"
#include "platform/http/url.h"

namespace limner::platform::http {

// Which version of the file a server holds.
struct Identity {
  std::optional<std::uint64_t> length{};
  std::string etag, last_modified;

  // What If-Range takes: a strong ETag, else the date; "" when there is neither.
  std::string validator() const;
  // Whether `other`, as far as it says, is the same version.
  bool agrees_with(const Identity& other) const;
};
Identity identity_of(const Response& response);

// Bytes [next, end) of the file are missing. What lies before `next` is there.
struct Segment {
  std::uint64_t next = 0;
  std::uint64_t end = 0;
  bool taken = false;  // somebody is fetching it
  std::uint64_t missing() const { return end - next; }
};

// Owned by one thread; locked against every other, in this process or another. All functions throw
// Failure(kIo) when the disk fails. A part that cannot be continued is removed when the object
// goes.
class PartFile {
 public:
  // Continues what FILE.part.json tells of, when it is of the same URL. Throws
  // Failure(kUnavailable) when somebody else is writing it, kNotFound when there is no such folder.
  PartFile(std::filesystem::path file, const Url& url);
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;
  ~PartFile();

  // Something is there and a server can be asked whether it is still right.
  bool resumable() const;
  const Identity& identity() const { return identity_; }
  // In file order, without those that are full.
  std::list<Segment>& segments() { return segments_; }
  std::uint64_t done() const;
  bool complete() const { return begun_ && segments_.empty(); }

  void begin(const Identity& identity);  // empty, with one segment
  void discard();                        // back to nothing
  // Writes at segment.next and moves it; `bytes` fit in the segment.
  void write(Segment& segment, std::span<const std::byte> bytes);
  // Joins the segment behind to `segment` when nobody has taken it. False when there is none such.
  bool extend(Segment& segment);
  // Halves a segment; gives the later half, which nobody has taken.
  Segment& split(Segment& segment);
  // Nobody fetches it any longer; a full one leaves the list.
  void release(Segment& segment);
  // The length turned out to be what is there.
  void end_here(Segment& segment);

  // Flushes the data and then the note; without `force` only after enough new bytes.
  void checkpoint(bool force);
  const std::filesystem::path& path() const { return part_; }
  // Flushes and renames to FILE.
  void publish();

 private:
  void load();
  void save() const;

  std::filesystem::path file_, part_, note_;
  std::string url_key_;
  std::optional<FileLock> lock_;
  Identity identity_;
  std::list<Segment> segments_;
  bool begun_ = false;
  bool published_ = false;
  std::uint64_t unsaved_ = 0;
};

}  // namespace limner::platform::http
