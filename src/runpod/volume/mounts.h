// What is mounted where: a mount hides whatever its folder held before.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace limner::runpod {

struct Mount {
  std::filesystem::path point{};
  std::string device{};  // "8:1": equal for two mounts of one file system
  std::string type{};    // "ext4", "overlay", "nfs4"
  std::string source{};  // "/dev/sda1", "server:/share"
};

// The text of /proc/self/mountinfo (proc(5)), in the order in which things were mounted. Lines that
// are none are left out.
std::vector<Mount> parse_mounts(std::string_view text);
// Of this process; none where there is no /proc.
std::vector<Mount> mounts_of_this_process();

// The last mount whose point is `path` or above it; nullptr when there is none.
const Mount* mount_of(const std::vector<Mount>& mounts, const std::filesystem::path& path);

}  // namespace limner::runpod
