#include "platform/cache_index.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/atomic_file.h"

namespace limner::platform {
namespace {

namespace fs = std::filesystem;

constexpr int kVersion = 1;
// A part that nobody has continued for so long goes.
constexpr auto kPartAge = std::chrono::hours(24 * 7);

// 64 hexadecimal digits and one of our endings.
bool is_ours(const std::string& name) {
  return name.find_first_not_of("0123456789abcdef") == 64 &&
         (name.substr(64) == ".safetensors" || name.substr(64) == ".data");
}

void remove_old_part(const fs::directory_entry& part) {
  std::error_code ignored;
  const auto written = part.last_write_time(ignored);
  if (ignored || fs::file_time_type::clock::now() - written < kPartAge) return;
  const auto lock = FileLock::try_lock(part.path());
  if (!lock) return;
  unlink((part.path().string() + ".json").c_str());
  unlink(part.path().c_str());
}

}  // namespace

CacheIndex::CacheIndex(fs::path folder, const std::function<void(std::string_view)>& warn)
    : folder_(std::move(folder)), lock_(FileLock::lock(folder_ / "index.lock")) {
  read(warn);
  look_around();
}

void CacheIndex::read(const std::function<void(std::string_view)>& warn) {
  std::ifstream in(folder_ / "index.json");
  if (!in) return;
  try {
    const auto body = nlohmann::json::parse(in);
    if (body.at("version") != kVersion) return;
    for (const auto& [name, entry] : body.at("files").items()) {
      if (!is_ours(name)) continue;
      entries_[name] = {entry.at("bytes"), entry.at("sha256"), entry.at("url"), entry.at("used")};
    }
  } catch (const nlohmann::json::exception&) {
    entries_.clear();
    if (warn) {
      warn(fmt::format("{} could not be read and is made anew from the files there",
                       (folder_ / "index.json").string()));
    }
  }
}

void CacheIndex::look_around() {
  std::error_code ignored;
  std::vector<std::pair<fs::file_time_type, std::string>> found;
  std::map<std::string, std::uint64_t> sizes;
  for (const auto& file : fs::directory_iterator(folder_, ignored)) {
    const std::string name = file.path().filename().string();
    if (file.path().extension() == ".part") remove_old_part(file);
    if (!is_ours(name) || !file.is_regular_file(ignored)) continue;
    sizes[name] = file.file_size(ignored);
    if (!entries_.contains(name)) found.emplace_back(file.last_write_time(ignored), name);
  }
  std::erase_if(entries_, [&](const auto& entry) {
    const auto there = sizes.find(entry.first);
    return there == sizes.end() || there->second != entry.second.bytes;
  });
  std::sort(found.begin(), found.end());
  for (const auto& [time, name] : found) {
    put(name, CacheEntry{.bytes = sizes[name], .sha256 = {}, .url = {}});
  }
}

CacheEntry* CacheIndex::find(const std::string& name) {
  const auto entry = entries_.find(name);
  return entry == entries_.end() ? nullptr : &entry->second;
}

void CacheIndex::use(const std::string& name) {
  std::uint64_t last = 0;
  for (const auto& [other, entry] : entries_) last = std::max(last, entry.used);
  entries_.at(name).used = last + 1;
}

void CacheIndex::put(const std::string& name, CacheEntry entry) {
  entries_[name] = std::move(entry);
  use(name);
}

void CacheIndex::evict(std::uint64_t max_bytes, const std::string& keep) {
  std::uint64_t total = 0;
  std::vector<std::pair<std::uint64_t, std::string>> by_use;
  for (const auto& [name, entry] : entries_) {
    total += entry.bytes;
    if (name != keep) by_use.emplace_back(entry.used, name);
  }
  std::sort(by_use.begin(), by_use.end());
  for (const auto& [used, name] : by_use) {
    if (total <= max_bytes) return;
    total -= entries_.at(name).bytes;
    unlink((folder_ / name).c_str());
    entries_.erase(name);
  }
}

void CacheIndex::save() const {
  nlohmann::json files = nlohmann::json::object();
  for (const auto& [name, entry] : entries_) {
    files[name] = {
        {"bytes", entry.bytes}, {"sha256", entry.sha256}, {"url", entry.url}, {"used", entry.used}};
  }
  const nlohmann::json body = {{"version", kVersion}, {"files", files}};
  write_atomically(folder_ / "index.json",
                   body.dump(1, ' ', false, nlohmann::json::error_handler_t::replace));
}

}  // namespace limner::platform
