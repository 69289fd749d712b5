#include "runpod/volume/part_sender.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <thread>
#include <utility>

#include "delivery/crypto.h"

namespace limner::runpod {
namespace {

using delivery::S3Part;

constexpr const char* kContentType = "application/octet-stream";
constexpr std::chrono::seconds kLook{2};

std::uint64_t part_bytes_for(std::uint64_t bytes, std::uint64_t wanted) {
  constexpr std::uint64_t kMebibyte = std::uint64_t{1} << 20;
  const std::uint64_t least = (bytes + delivery::kMostParts - 1) / delivery::kMostParts;
  return std::max(wanted, (least + kMebibyte - 1) / kMebibyte * kMebibyte);
}

}  // namespace

// One file on its way. `next` is by schedule_; each part is touched by the one thread that sends
// it, and the last of them finishes the file.
struct PartSender::Sending {
  explicit Sending(FileToSend its) : file(std::move(its)) {}
  ~Sending() {
    if (descriptor >= 0) close(descriptor);
  }
  Sending(const Sending&) = delete;
  Sending& operator=(const Sending&) = delete;

  bool whole() const { return upload.id.empty(); }  // by one PUT, without parts
  std::uint64_t bytes_of(std::size_t part) const {
    return std::min(part_bytes, file.bytes - part * part_bytes);
  }

  const FileToSend file;
  bool opened = false;  // by schedule_
  int descriptor = -1;
  std::uint64_t part_bytes = 0;
  delivery::S3Upload upload{};
  std::vector<S3Part> parts{};  // number 0: not there yet
  std::size_t next = 0;
  std::atomic<std::size_t> left = 0;
};

struct PartSender::Job {
  Sending* sending;
  std::size_t part;
};

std::optional<RemoteObject> look_at(delivery::S3Client& client, const std::string& key) {
  const auto reply = client.send({.method = "HEAD", .key = key});
  if (!reply.ok() && reply.error().code == ErrorCode::kNotFound) return std::nullopt;
  if (!reply.ok()) throw Failure(reply.error());
  RemoteObject object;
  const std::string_view length = reply->header("content-length");
  const auto [end, error] =
      std::from_chars(length.data(), length.data() + length.size(), object.bytes);
  if (length.empty() || error != std::errc() || end != length.data() + length.size())
    throw Failure(ErrorCode::kIo, fmt::format("the server does not say how long {} is", key));
  object.sha256 = reply->header("x-amz-meta-sha256");
  return object;
}

PartSender::PartSender(std::vector<FileToSend> files, SendOptions options,
                       delivery::S3Client& client, UploadNote& note)
    : options_(std::move(options)), client_(client), multipart_(client), note_(note) {
  for (FileToSend& file : files) {
    total_ += file.bytes;
    files_.push_back(std::make_unique<Sending>(std::move(file)));
  }
}

PartSender::~PartSender() = default;

Sent PartSender::run() {
  {
    std::vector<std::jthread> threads;
    for (int i = 1; i < options_.parallel; ++i) threads.emplace_back([this] { work(); });
    work();
  }
  if (error_) throw Failure(*error_);
  if (options_.stop.stop_requested())
    throw Failure(ErrorCode::kCancelled, "the upload was stopped; run it again to go on");
  return sent_;
}

void PartSender::work() {
  while (true) {
    try {
      const auto job = next();
      if (!job) return;
      send(*job);
    } catch (const Failure& failure) {
      return fail(failure.error());
    } catch (const std::exception& error) {
      return fail({ErrorCode::kInternal, error.what()});
    }
  }
}

void PartSender::fail(const Error& error) {
  failed_ = true;
  const std::scoped_lock lock(state_);
  if (!error_) error_ = error;
}

std::optional<PartSender::Job> PartSender::next() {
  const std::scoped_lock lock(schedule_);
  for (; current_ < files_.size(); ++current_) {
    if (failed_ || options_.stop.stop_requested()) return std::nullopt;
    Sending& sending = *files_[current_];
    if (!std::exchange(sending.opened, true)) open(sending);
    while (sending.next < sending.parts.size() && sending.parts[sending.next].number != 0)
      ++sending.next;
    if (sending.next < sending.parts.size()) return Job{&sending, sending.next++};
  }
  return std::nullopt;
}

void PartSender::open(Sending& sending) {
  const FileToSend& file = sending.file;
  sending.descriptor = ::open(file.file.c_str(), O_RDONLY | O_CLOEXEC);
  if (sending.descriptor < 0) {
    throw Failure(ErrorCode::kIo,
                  fmt::format("cannot read {}: {}", file.file.string(), std::strerror(errno)));
  }
  sending.part_bytes = part_bytes_for(file.bytes, options_.part_bytes);
  if (file.bytes > sending.part_bytes) {
    resume(sending);
  } else {
    sending.part_bytes = std::max<std::uint64_t>(file.bytes, 1);
    sending.parts.resize(1);
    sending.left = 1;
  }
  if (sending.left == 0) finish(sending);
}

// The parts that an earlier run of the same file brought, or a new upload.
void PartSender::resume(Sending& sending) {
  const FileToSend& file = sending.file;
  std::unique_lock lock(state_);
  const auto known = note_.unfinished(file.path);
  lock.unlock();
  std::vector<S3Part> there;
  if (known && known->sha256 == file.sha256) {
    auto listed = multipart_.parts({file.key, known->id});
    if (!listed.ok() && listed.error().code != ErrorCode::kNotFound) throw Failure(listed.error());
    // Without a part there is nothing to keep; some servers list none of uploads that are over.
    if (listed.ok() && !listed->empty()) {
      there = std::move(*listed);
      sending.upload = {file.key, known->id};
      sending.part_bytes = known->part_bytes;
    }
  } else if (known) {
    client_.abort({file.key, known->id}).value_or_throw();
  }
  if (sending.whole()) {
    sending.upload = {file.key,
                      multipart_.begin(file.key, kContentType, file.sha256).value_or_throw()};
    lock.lock();
    note_.set_unfinished(file.path, {sending.upload.id, file.sha256, sending.part_bytes});
    lock.unlock();
  }
  sending.parts.resize((file.bytes + sending.part_bytes - 1) / sending.part_bytes);
  sending.left = sending.parts.size();
  for (S3Part& part : there) {
    const auto index = static_cast<std::size_t>(part.number) - 1;
    if (index >= sending.parts.size() || part.bytes != sending.bytes_of(index)) continue;
    add_progress(part.bytes);
    lock.lock();
    ++sent_.kept_parts;
    sent_.kept_bytes += part.bytes;
    lock.unlock();
    sending.parts[index] = std::move(part);
    --sending.left;
  }
}

void PartSender::send(const Job& job) {
  Sending& sending = *job.sending;
  const FileToSend& file = sending.file;
  std::vector<std::uint8_t> bytes(file.bytes == 0 ? 0 : sending.bytes_of(job.part));
  for (std::size_t got = 0; got < bytes.size();) {
    const ssize_t count = pread(sending.descriptor, bytes.data() + got, bytes.size() - got,
                                static_cast<off_t>(job.part * sending.part_bytes + got));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      throw Failure(ErrorCode::kIo,
                    fmt::format("cannot read {}: {}", file.file.string(),
                                count == 0 ? "it has become shorter" : std::strerror(errno)));
    }
    got += static_cast<std::size_t>(count);
  }
  const int number = static_cast<int>(job.part) + 1;
  if (sending.whole()) {
    client_.put(file.key, kContentType, bytes).value_or_throw();
    sending.parts[job.part] = {number, bytes.size(), ""};
  } else {
    sending.parts[job.part] = multipart_.put(sending.upload, number, bytes).value_or_throw();
  }
  {
    const std::scoped_lock lock(state_);
    ++sent_.parts;
    sent_.bytes += bytes.size();
  }
  add_progress(bytes.size());
  if (--sending.left == 0) finish(sending);
}

void PartSender::finish(Sending& sending) {
  const FileToSend& file = sending.file;
  std::error_code error;
  const auto modified = std::filesystem::last_write_time(file.file, error);
  if (error || modified != file.modified || std::filesystem::file_size(file.file) != file.bytes) {
    if (!sending.whole()) static_cast<void>(client_.abort(sending.upload));
    throw Failure(ErrorCode::kInvalidArgument,
                  fmt::format("{} was changed while it was sent; run `limner volume setup`, then "
                              "the upload again",
                              file.file.string()));
  }
  if (!sending.whole()) {
    const auto done = multipart_.complete(sending.upload, sending.parts);
    if (!done.ok()) settle(sending, done.error());
    const auto there = look_at(client_, file.key);
    if (!there || there->bytes != file.bytes) {
      throw Failure(ErrorCode::kIo, fmt::format("the server has {} bytes of {} where {} were sent",
                                                there ? there->bytes : 0, file.key, file.bytes));
    }
  }
  const std::scoped_lock lock(state_);
  note_.set_arrived(file.path, file.sha256);
  close(std::exchange(sending.descriptor, -1));
}

// A gateway may stop waiting while the server behind it still puts a large file together; and an
// answer that was lost leads to a second try that finds no upload any more. The upload is over when
// the server knows no part of it; finish() looks at what it has become.
void PartSender::settle(const Sending& sending, const Error& error) {
  const bool may_be_done = error.code == ErrorCode::kNotFound || error.retryable;
  const auto end = std::chrono::steady_clock::now() + options_.patience;
  while (may_be_done && std::chrono::steady_clock::now() < end && !options_.stop.stop_requested()) {
    const auto parts = multipart_.parts(sending.upload);
    const bool gone = parts.ok() ? parts->empty() : parts.error().code == ErrorCode::kNotFound;
    if (gone) return;
    if (!parts.ok() && !parts.error().retryable) break;
    std::this_thread::sleep_for(kLook);
  }
  throw Failure(error);
}

void PartSender::add_progress(std::uint64_t bytes) {
  const std::scoped_lock lock(state_);
  done_ += bytes;
  options_.progress(done_, total_);
}

}  // namespace limner::runpod
