// FaultDisk: an SQLite file layer that keeps apart what was written and what was synced, so that a
// power cut can be played, and that fails on demand. One per process, for every database opened
// after install().
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace limner {

class FaultDisk {
 public:
  static FaultDisk& install();

  enum class Fault {
    kNone,
    kPowerCut,   // this operation and all later ones fail; nothing more reaches the disk
    kErrorOnce,  // this one fails
    kErrorUntilHealed,
  };
  // What survives a power cut beside everything synced.
  enum class Unsynced { kLost, kKept, kTorn };  // kTorn: some sectors of 512 bytes

  // Forgets everything, and arms one fault at the `at`-th write, sync or truncation from now (1 is
  // the next; 0 none).
  void reset(Fault fault = Fault::kNone, std::uint64_t at = 0);
  void heal();  // ends kErrorUntilHealed
  void set_full(bool full);
  std::uint64_t operations() const;  // since reset
  bool failed() const;               // the fault has struck

  // Writes what a power cut leaves into `folder`, under the files' own names.
  void materialise(const std::filesystem::path& folder, Unsynced unsynced,
                   std::uint32_t seed) const;

  // For the file layer.
  struct Piece {
    std::int64_t offset = 0;
    std::string bytes{};     // of a write
    bool truncates = false;  // to `offset`
  };
  int strike();  // counts an operation; an SQLite error code, or SQLITE_OK
  int write(const std::string& path, const void* bytes, int count, std::int64_t offset);
  int truncate(const std::string& path, std::int64_t size);
  int sync(const std::string& path);
  void remove(const std::string& path);

 private:
  struct File {
    std::string durable{};
    bool named = false;  // its name is on the disk: from its first sync on
    std::vector<Piece> unsynced{};
  };

  mutable std::mutex mutex_;
  std::map<std::string, File> files_;  // by mutex_, like all below
  Fault fault_ = Fault::kNone;
  std::uint64_t at_ = 0, operations_ = 0;
  bool struck_ = false, full_ = false;
};

}  // namespace limner
