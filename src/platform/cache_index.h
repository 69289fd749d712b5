// CacheIndex: what a DownloadCache holds, read and written while its lock is held.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "platform/file_lock.h"

namespace limner::platform {

struct CacheEntry {
  std::uint64_t bytes = 0;
  std::string sha256;      // "" for a file that was found without an entry
  std::string url;         // without its query, for people
  std::uint64_t used = 0;  // counts up with every use
};

// Holds folder/index.lock for as long as it lives: keep it short. What the folder has counts: an
// entry whose file is gone or of another size is dropped, a file without an entry is taken in. So a
// broken index is rebuilt from the files.
class CacheIndex {
 public:
  // Throws Failure(kIo). `warn` hears of an index that could not be read.
  CacheIndex(std::filesystem::path folder, const std::function<void(std::string_view)>& warn);

  CacheEntry* find(const std::string& name);
  // Marks it as the one used last.
  void use(const std::string& name);
  void put(const std::string& name, CacheEntry entry);
  // Removes files, least recently used first, until at most `max_bytes` are left; never `keep`.
  void evict(std::uint64_t max_bytes, const std::string& keep);
  void save() const;  // whole or not at all

 private:
  void read(const std::function<void(std::string_view)>& warn);
  void look_around();

  std::filesystem::path folder_;
  FileLock lock_;
  std::map<std::string, CacheEntry> entries_;  // by file name
};

}  // namespace limner::platform
