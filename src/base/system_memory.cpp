#include "base/system_memory.h"

#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

namespace limner {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kUnknown = std::uint64_t{1} << 63;

// The number behind "key:" in a /proc file of "key:   N kB" lines, in bytes.
std::optional<std::uint64_t> proc_field(const fs::path& file, const std::string& key) {
  std::ifstream in(file);
  std::string word;
  while (in >> word) {
    std::uint64_t kilobytes = 0;
    if (word == key && in >> kilobytes) return kilobytes * 1024;
    in.ignore(1 << 16, '\n');
  }
  return std::nullopt;
}

std::optional<std::uint64_t> number_in(const fs::path& file) {
  std::ifstream in(file);
  std::uint64_t number = 0;
  if (in >> number) return number;  // "max" is not a number: no limit
  return std::nullopt;
}

// This process's group and those above it, as the file system of control groups shows them.
std::vector<fs::path> groups(const fs::path& proc, const fs::path& root) {
  std::ifstream in(proc / "self" / "cgroup");
  std::string line;
  std::vector<fs::path> all;
  while (std::getline(in, line)) {
    if (line.rfind("0::/", 0) != 0) continue;
    for (fs::path group = line.substr(4); !group.empty(); group = group.parent_path()) {
      all.push_back(root / group);
    }
  }
  all.push_back(root);
  return all;
}

std::uint64_t cached_bytes(const fs::path& group) {
  std::ifstream in(group / "memory.stat");
  std::string key;
  std::uint64_t bytes = 0, cached = 0;
  while (in >> key >> bytes) {
    if (key == "inactive_file" || key == "active_file") cached += bytes;
  }
  return cached;
}

std::uint64_t address_space_room() {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return kUnknown;
  const std::uint64_t mapped = proc_field("/proc/self/status", "VmSize:").value_or(0);
  return limit.rlim_cur > mapped ? limit.rlim_cur - mapped : 0;
}

}  // namespace

MemoryStatus host_memory(const fs::path& proc, const fs::path& control_groups) {
  MemoryStatus least{proc_field(proc / "meminfo", "MemTotal:").value_or(kUnknown),
                     proc_field(proc / "meminfo", "MemAvailable:").value_or(kUnknown)};
  for (const fs::path& group : groups(proc, control_groups)) {
    const auto most = number_in(group / "memory.max");
    const auto current = number_in(group / "memory.current");
    if (!most || !current) continue;
    const std::uint64_t taken = *current - std::min(*current, cached_bytes(group));
    least.total = std::min(least.total, *most);
    least.available = std::min(least.available, *most - std::min(*most, taken));
  }
  return least;
}

std::uint64_t available_memory_bytes() {
  return std::min(host_memory().available, address_space_room());
}

std::uint64_t peak_resident_bytes() {
  return proc_field("/proc/self/status", "VmHWM:").value_or(0);
}

std::uint64_t resident_bytes() {
  return proc_field("/proc/self/status", "VmRSS:").value_or(0);
}

}  // namespace limner
