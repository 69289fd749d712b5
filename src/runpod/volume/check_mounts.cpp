#include <fmt/format.h>

#include <algorithm>

#include "runpod/volume/check.h"

namespace limner::runpod {
namespace {

namespace fs = std::filesystem;
using Kind = Finding::Kind;

// "" when `path` is `folder` itself; nothing when it is not below it.
std::optional<std::string> below(const fs::path& path, const fs::path& folder) {
  const fs::path relative = path.lexically_relative(folder);
  if (relative.empty() || *relative.begin() == "..") return std::nullopt;
  return relative == "." ? "" : relative.generic_string();
}

std::string described(const Mount& mount) {
  return fmt::format("{} from {}", mount.type, mount.source);
}

// The places where the platform mounts volumes hold nothing without one.
void check_attached(const CheckRequest& request, const fs::path& volume, Findings& out) {
  if (volume != "/runpod-volume" && volume != "/workspace") return;
  const Mount* mount = mount_of(request.mounts, volume);
  if (mount == nullptr || mount->point != "/") return;
  out.problem({Kind::kHidden, "",
               "is a folder of the container's own disk: no network volume is mounted over it, and "
               "what is written here is gone with the container",
               "Attach the network volume to the endpoint or pod."});
}

// Of several mounts at one place only the last is seen.
void check_stacked_mounts(const CheckRequest& request, const fs::path& volume, Findings& out) {
  const Mount* last = mount_of(request.mounts, volume);
  const auto count = std::count_if(request.mounts.begin(), request.mounts.end(),
                                   [&](const Mount& mount) { return mount.point == volume; });
  if (count < 2) return;
  out.problem({Kind::kHidden, "",
               fmt::format("is mounted {} times, and the last mount ({}) hides the others", count,
                           described(*last)),
               "Attach one volume there alone."});
}

void check_inner_mounts(const CheckRequest& request, const fs::path& volume,
                        const VolumeManifest& manifest, Findings& out) {
  for (const Mount& mount : request.mounts) {
    const auto path = below(mount.point, volume);
    if (!path || path->empty() || out.named.contains(*path)) continue;
    std::size_t hidden = 0;
    std::error_code ignored;
    for (const auto& [file, entry] : manifest.files) {
      if (!file.starts_with(*path + '/') || fs::exists(volume / file, ignored)) continue;
      out.named.insert(file);
      ++hidden;
    }
    out.problem({Kind::kHidden, *path,
                 fmt::format("is covered by a mount of its own ({}), which hides what the volume "
                             "has there{}",
                             described(mount),
                             hidden == 0 ? "" : fmt::format(", {} of its files among it", hidden)),
                 "Take that mount away, or mount it elsewhere."});
  }
}

// The volume, or anything else, mounted over a folder that images are built with.
void check_image_folders(const CheckRequest& request, Findings& out) {
  for (const fs::path& folder : request.image_folders) {
    const Mount* mount = mount_of(request.mounts, folder);
    if (mount == nullptr || mount->point == "/") continue;
    out.problem({Kind::kHidden, folder.string(),
                 fmt::format("is where images are built with their models, and a mount at {} ({}) "
                             "hides whatever this image has there",
                             mount->point.string(), described(*mount)),
                 "Mount the volume at /runpod-volume instead, or put those models on the volume "
                 "with `limner volume setup`."});
  }
}

}  // namespace

void check_mounts(const CheckRequest& request, const VolumeManifest& manifest, Findings& out) {
  std::error_code error;
  fs::path volume = fs::weakly_canonical(request.volume, error);
  if (error) volume = request.volume;
  check_attached(request, volume, out);
  check_stacked_mounts(request, volume, out);
  check_inner_mounts(request, volume, manifest, out);
  check_image_folders(request, out);
}

}  // namespace limner::runpod
