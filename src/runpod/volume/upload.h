// A volume's folder to an S3 bucket: for `limner volume upload`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "delivery/s3_client.h"
#include "runpod/volume/part_sender.h"

namespace limner::runpod {

inline constexpr const char* kVolumeLock = ".limner-volume.lock";

struct UploadRequest {
  std::filesystem::path volume{};
  std::string target{};  // names server and bucket
  std::string prefix{};  // of the keys: "" or ends with '/'
  bool dry_run = false;  // looks and sends nothing
  // Also removes what the bucket has in the volume's four folders and `volume` has not.
  bool remove_others = false;
  SendOptions send{};  // its progress is that of what is sent
  // Bytes that are read to compare them, of all; as SendOptions::progress.
  std::function<void(std::uint64_t done, std::uint64_t total)> comparing = [](auto, auto) {};
};

struct UploadReport {
  std::vector<std::string> changed{};  // paths that were sent, or would be
  std::vector<std::string> removed{};  // keys, the same
  std::size_t unchanged = 0;
  std::uint64_t changed_bytes = 0;
  Sent sent{};
};

// Sends what limner-volume.json names and the bucket has not, told by size and SHA-256 (the one
// beside the object where the server keeps one, else that of the bucket's own limner-volume.json
// or of the note of an earlier run), never by time. The bucket's limner-volume.json is removed
// before the first change and put last: a volume that has it is whole. Errors: kInvalidArgument for
// a folder that is not what its limner-volume.json says, kUnavailable while another run works on
// it, kCancelled, and what S3Client says; whatever has arrived is not sent again by the next run.
Result<UploadReport> upload_volume(const UploadRequest& request, delivery::S3Client& client);

}  // namespace limner::runpod
