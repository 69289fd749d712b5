// How much memory this process may still take.
#pragma once

#include <cstdint>

namespace limner {

// The smallest of: what the kernel calls available (/proc/meminfo MemAvailable), what the control
// group leaves (memory.max less memory.current without the pages of files in it), and the
// address-space limit (RLIMIT_AS) less what is mapped. Bytes; 2^63 when nothing can be read.
std::uint64_t available_memory_bytes();

// Largest resident size so far (VmHWM) and now (VmRSS), in bytes; 0 when it cannot be read.
std::uint64_t peak_resident_bytes();
std::uint64_t resident_bytes();

}  // namespace limner
