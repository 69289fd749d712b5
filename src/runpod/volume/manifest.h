// limner-volume.json: every file that belongs on a volume, with its size and hash. It is written
// last, so a volume that has it had everything when it was made.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "base/error.h"

namespace limner::runpod {

inline constexpr const char* kVolumeManifest = "limner-volume.json";
inline constexpr int kVolumeFormat = 1;

struct VolumeFile {
  std::uint64_t bytes = 0;
  std::string sha256{};  // 64 lower-case hexadecimal digits
  std::string source{};  // where it came from, without keys; "": it lay in the folder
  std::string when{};    // it was first taken in, "2026-11-21T18:00:00Z"
};

struct VolumeManifest {
  std::string written{};                       // when, as above
  std::map<std::string, VolumeFile> files{};   // by path below the volume, with '/'
  std::map<std::string, std::string> asked{};  // what set-up was asked for -> the path it is at
};

std::string to_text(const VolumeManifest& manifest);
// Errors: kInvalidArgument naming `file` (no JSON, another format, a path that leads out of the
// volume, a hash that is none).
Result<VolumeManifest> parse_manifest(std::string_view text, const std::string& file);
// DIR/limner-volume.json; kNotFound when there is none.
Result<VolumeManifest> read_manifest(const std::filesystem::path& volume);

// The time now, as VolumeFile::when has it.
std::string utc_now();

// A whole text file; nothing at most of 64 MiB is longer. Errors: kNotFound, kIo.
Result<std::string> read_text(const std::filesystem::path& file);

}  // namespace limner::runpod
