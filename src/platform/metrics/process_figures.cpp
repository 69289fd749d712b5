#include "platform/metrics/process_figures.h"

#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "base/system_memory.h"

namespace limner::platform {
namespace {

// When the machine started, in seconds since 1970.
double boot_time() {
  std::ifstream file("/proc/stat");
  for (std::string word; file >> word;) {
    double seconds = 0.0;
    if (word == "btime" && file >> seconds) return seconds;
  }
  return 0.0;
}

// Field 22 of /proc/self/stat: clock ticks between the machine's start and ours. The second field,
// the program's name in brackets, may hold spaces.
double ticks_at_start() {
  std::ifstream file("/proc/self/stat");
  std::string line;
  std::getline(file, line);
  const auto end_of_name = line.rfind(')');
  if (end_of_name == std::string::npos) return 0.0;
  std::istringstream fields(line.substr(end_of_name + 1));
  std::string skipped;
  for (int field = 3; field < 22; ++field) fields >> skipped;
  double ticks = 0.0;
  return fields >> ticks ? ticks : 0.0;
}

double start_time() {
  const double boot = boot_time();
  const auto ticks_per_second = static_cast<double>(sysconf(_SC_CLK_TCK));
  return boot > 0.0 && ticks_per_second > 0.0 ? boot + ticks_at_start() / ticks_per_second : 0.0;
}

double seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

std::uint64_t open_files() {
  std::error_code error;
  std::uint64_t count = 0;
  const auto end = std::filesystem::directory_iterator();
  for (std::filesystem::directory_iterator file("/proc/self/fd", error); !error && file != end;
       file.increment(error)) {
    ++count;
  }
  return count > 0 ? count - 1 : 0;  // one of them is the listing's own
}

}  // namespace

ProcessFigures process_figures() noexcept {
  ProcessFigures figures;
  try {
    rusage usage{};
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
      figures.cpu_seconds = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    }
    rlimit files{};
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) figures.most_open_files = files.rlim_cur;
    figures.resident_bytes = resident_bytes();
    figures.open_files = open_files();
    static const double started = start_time();
    figures.started_at = started;
  } catch (const std::exception&) {
    // Out of memory: what is known so far is told.
  }
  return figures;
}

}  // namespace limner::platform
