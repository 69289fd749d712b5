// How much memory this process may still take.
#pragma once

#include <cstdint>
#include <filesystem>

namespace limner {

// Bytes. The machine's, or those of the tightest control group (v2) that this process is in. Pages
// of files count as available, as in MemAvailable: the kernel gives them back when they are wanted.
struct MemoryStatus {
  std::uint64_t total = 0, available = 0;
};
// Other folders are for tests. 2^63 when nothing can be read.
MemoryStatus host_memory(const std::filesystem::path& proc = "/proc",
                         const std::filesystem::path& control_groups = "/sys/fs/cgroup");

// The smaller of what host_memory() has available and the address-space limit (RLIMIT_AS) less what
// is mapped.
std::uint64_t available_memory_bytes();

// Largest resident size so far (VmHWM) and now (VmRSS), in bytes; 0 when it cannot be read.
std::uint64_t peak_resident_bytes();
std::uint64_t resident_bytes();

}  // namespace limner
