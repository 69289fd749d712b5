// PartSender: files to an S3 bucket, in parts and several at once, going on where an earlier run
// was ended.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "delivery/s3_multipart.h"
#include "runpod/volume/upload_note.h"

namespace limner::runpod {

struct FileToSend {
  std::string path{};  // for the note
  std::filesystem::path file{};
  std::string key{};
  std::uint64_t bytes = 0;
  std::string sha256{};
  std::filesystem::file_time_type modified{};  // before it was hashed
};

struct SendOptions {
  std::uint64_t part_bytes = std::uint64_t{16} << 20;  // at least; more where 10,000 are too few
  int parallel = 6;                                    // parts at once, of one file or several
  // How long a server that did not answer in time may take to put a large file together.
  std::chrono::milliseconds patience = std::chrono::minutes(10);
  // Bytes that are there, of all; from any thread, one at a time.
  std::function<void(std::uint64_t done, std::uint64_t total)> progress = [](auto, auto) {};
  std::stop_token stop{};
};

struct Sent {
  std::uint64_t parts = 0, bytes = 0;            // over the wire in this run
  std::uint64_t kept_parts = 0, kept_bytes = 0;  // from an earlier one
};

// What a bucket says of an object.
struct RemoteObject {
  std::uint64_t bytes = 0;
  std::string sha256{};  // x-amz-meta-sha256; "" where the server keeps no such thing
};
// Nothing when there is no such object. Throws Failure.
std::optional<RemoteObject> look_at(delivery::S3Client& client, const std::string& key);

// Throws Failure: what S3Client says, kInvalidArgument for a file that changes meanwhile,
// kCancelled. What has arrived stays, and is in the note.
class PartSender {
 public:
  PartSender(std::vector<FileToSend> files, SendOptions options, delivery::S3Client& client,
             UploadNote& note);
  ~PartSender();
  Sent run();

 private:
  struct Sending;
  struct Job;
  std::optional<Job> next();
  void open(Sending& sending);
  void resume(Sending& sending);
  void send(const Job& job);
  void finish(Sending& sending);
  void settle(const Sending& sending, const Error& error);
  void work();
  void fail(const Error& error);
  void add_progress(std::uint64_t bytes);

  const SendOptions options_;
  delivery::S3Client& client_;
  delivery::S3Multipart multipart_;
  std::vector<std::unique_ptr<Sending>> files_;
  std::uint64_t total_ = 0;

  std::mutex schedule_;  // who sends what next
  std::size_t current_ = 0;
  std::mutex state_;  // all below
  UploadNote& note_;
  std::optional<Error> error_;
  std::uint64_t done_ = 0;
  Sent sent_;
  std::atomic<bool> failed_ = false;
};

}  // namespace limner::runpod
