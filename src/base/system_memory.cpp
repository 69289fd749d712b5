#include "base/system_memory.h"

#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>

namespace limner {
namespace {

constexpr std::uint64_t kUnknown = std::uint64_t{1} << 63;

// The number behind "key:" in a /proc file of "key:   N kB" lines, in bytes.
std::optional<std::uint64_t> proc_field(const char* file, const std::string& key) {
  std::ifstream in(file);
  std::string word;
  while (in >> word) {
    std::uint64_t kilobytes = 0;
    if (word == key && in >> kilobytes) return kilobytes * 1024;
    in.ignore(1 << 16, '\n');
  }
  return std::nullopt;
}

std::optional<std::uint64_t> number_in(const std::string& file) {
  std::ifstream in(file);
  std::uint64_t number = 0;
  if (in >> number) return number;  // "max" is not a number: no limit
  return std::nullopt;
}

// Pages of files, which the kernel gives back when memory is wanted, as MemAvailable counts them.
std::uint64_t cached_bytes(const std::string& memory_stat) {
  std::ifstream in(memory_stat);
  std::string key;
  std::uint64_t bytes = 0, cached = 0;
  while (in >> key >> bytes) {
    if (key == "inactive_file" || key == "active_file") cached += bytes;
  }
  return cached;
}

std::uint64_t control_group_room() {
  std::ifstream in("/proc/self/cgroup");
  std::string line;
  while (std::getline(in, line)) {
    if (line.rfind("0::", 0) != 0) continue;
    const std::string folder = "/sys/fs/cgroup" + line.substr(3);
    const auto most = number_in(folder + "/memory.max");
    const auto current = number_in(folder + "/memory.current");
    if (!most || !current) continue;
    const std::uint64_t used = *current - std::min(*current, cached_bytes(folder + "/memory.stat"));
    return *most > used ? *most - used : 0;
  }
  return kUnknown;
}

std::uint64_t address_space_room() {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return kUnknown;
  const std::uint64_t mapped = proc_field("/proc/self/status", "VmSize:").value_or(0);
  return limit.rlim_cur > mapped ? limit.rlim_cur - mapped : 0;
}

}  // namespace

std::uint64_t available_memory_bytes() {
  return std::min({proc_field("/proc/meminfo", "MemAvailable:").value_or(kUnknown),
                   control_group_room(), address_space_room()});
}

std::uint64_t peak_resident_bytes() {
  return proc_field("/proc/self/status", "VmHWM:").value_or(0);
}

std::uint64_t resident_bytes() {
  return proc_field("/proc/self/status", "VmRSS:").value_or(0);
}

}  // namespace limner
