#include "runpod/volume/mounts.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <sstream>

namespace limner::runpod {
namespace {

namespace fs = std::filesystem;

// Space, tab, line end and backslash stand as \040, \011, \012 and \134.
std::string unescaped(const std::string& text) {
  std::string out;
  const auto octal = [](char c) { return c >= '0' && c <= '7'; };
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && octal(text[i + 1]) && octal(text[i + 2]) &&
        octal(text[i + 3])) {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                               (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

bool is_at_or_above(const fs::path& point, const fs::path& path) {
  const auto [end, ignored] = std::mismatch(point.begin(), point.end(), path.begin(), path.end());
  return end == point.end();
}

}  // namespace

std::vector<Mount> parse_mounts(std::string_view text) {
  std::vector<Mount> mounts;
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    // ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [FIELD...] - TYPE SOURCE SUPER-OPTIONS
    std::istringstream words(line);
    const std::vector<std::string> all{std::istream_iterator<std::string>(words), {}};
    const auto dash = std::find(all.begin(), all.end(), "-");
    if (all.size() < 7 || dash - all.begin() < 6 || all.end() - dash < 3) continue;
    mounts.push_back({unescaped(all[4]), all[2], dash[1], unescaped(dash[2])});
  }
  return mounts;
}

std::vector<Mount> mounts_of_this_process() {
  std::ifstream in("/proc/self/mountinfo");
  return parse_mounts(std::string{std::istreambuf_iterator<char>(in), {}});
}

const Mount* mount_of(const std::vector<Mount>& mounts, const fs::path& path) {
  const Mount* best = nullptr;
  for (const Mount& mount : mounts) {
    if (is_at_or_above(mount.point, path) &&
        (best == nullptr || mount.point.string().size() >= best->point.string().size()))
      best = &mount;
  }
  return best;
}

}  // namespace limner::runpod
