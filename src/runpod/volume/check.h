// Whether a volume is as it should be, and where not, why and what to do: for `limner volume
// check`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "runpod/volume/manifest.h"
#include "runpod/volume/mounts.h"

namespace limner::runpod {

struct Finding {
  enum class Kind {
    kMissing,
    kMisplaced,    // there, and where no worker looks
    kHalfWritten,  // cut off, or left by something that was interrupted
    kDamaged,      // other bytes than the manifest's, or no such file at all
    kUnreadable,
    kHidden,  // by a mount
    kUnused,  // of a form that no worker reads
  };
  Kind kind{};
  std::string path{};     // below the volume; "": the volume
  std::string message{};  // what is wrong, a sentence that follows the path
  std::string advice{};   // what to do
};
const char* name(Finding::Kind kind);  // "missing", "misplaced", "half_written", ...

struct VolumeReport {
  std::vector<Finding> problems{};
  std::vector<Finding> notes{};  // worth knowing; nothing is wrong
  std::uint64_t files = 0;       // of the manifest
  std::uint64_t bytes = 0;
};

struct CheckRequest {
  std::filesystem::path volume{};
  bool quick = false;  // sizes and headers alone, no hashes
  // Where images are built with models, such as /app/models.
  std::vector<std::filesystem::path> image_folders{};
  std::vector<Mount> mounts{};
  // Called for every mebibyte that is hashed; may throw Failure, to stop.
  std::function<void(std::uint64_t done, std::uint64_t total)> progress = [](auto, auto) {};
};

// Reads and changes nothing. A volume that is not there or broken is no failure but a finding.
// Fails with what `progress` throws.
Result<VolumeReport> check_volume(const CheckRequest& request);

// The parts of it; each throws Failure or filesystem_error. A path that one of them has named is in
// `named`, so that one damage makes one finding.
struct Findings {
  VolumeReport report{};
  std::set<std::string> named{};
  void problem(Finding finding);
  void note(Finding finding);
};
void check_mounts(const CheckRequest& request, const VolumeManifest& manifest, Findings& out);
void compare_files(const CheckRequest& request, const VolumeManifest& manifest, Findings& out);
void check_places(const CheckRequest& request, const VolumeManifest& manifest, Findings& out);

}  // namespace limner::runpod
