// What the kernel says about this process, for /metrics.
#pragma once

#include <cstdint>

namespace limner::platform {

// 0 where it cannot be read.
struct ProcessFigures {
  double cpu_seconds = 0.0;           // user and system
  double started_at = 0.0;            // seconds since 1970 (UTC)
  std::uint64_t resident_bytes = 0;   // VmRSS
  std::uint64_t open_files = 0;       // descriptors
  std::uint64_t most_open_files = 0;  // the soft limit (RLIMIT_NOFILE)
};

// From /proc/self (proc(5)); never throws.
ProcessFigures process_figures() noexcept;

}  // namespace limner::platform
