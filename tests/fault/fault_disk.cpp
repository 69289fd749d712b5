#include "fault/fault_disk.h"

#include <sqlite3.h>

#include <cstring>
#include <fstream>
#include <new>
#include <random>

namespace limner {
namespace {

constexpr std::size_t kSector = 512;

// The system's own layer beneath ours.
sqlite3_vfs* g_real = nullptr;
FaultDisk* g_disk = nullptr;

struct FaultFile {
  sqlite3_file base;
  sqlite3_file* real;
  std::string* path;  // null for temporary files, which no crash needs
};

FaultFile* ours(sqlite3_file* file) {
  return reinterpret_cast<FaultFile*>(file);
}
sqlite3_file* real(sqlite3_file* file) {
  return ours(file)->real;
}

int close_file(sqlite3_file* file) {
  const int code = real(file)->pMethods->xClose(real(file));
  delete ours(file)->path;
  return code;
}

int write_file(sqlite3_file* file, const void* bytes, int count, sqlite3_int64 offset) {
  if (ours(file)->path != nullptr) {
    const int code = g_disk->write(*ours(file)->path, bytes, count, offset);
    if (code != SQLITE_OK) return code;
  }
  return real(file)->pMethods->xWrite(real(file), bytes, count, offset);
}

int truncate_file(sqlite3_file* file, sqlite3_int64 size) {
  if (ours(file)->path != nullptr) {
    const int code = g_disk->truncate(*ours(file)->path, size);
    if (code != SQLITE_OK) return code;
  }
  return real(file)->pMethods->xTruncate(real(file), size);
}

// The memory of FaultDisk is the disk: the system need not wait for a real one.
int sync_file(sqlite3_file* file, int) {
  return ours(file)->path == nullptr ? SQLITE_OK : g_disk->sync(*ours(file)->path);
}

int read_file(sqlite3_file* f, void* bytes, int count, sqlite3_int64 offset) {
  return real(f)->pMethods->xRead(real(f), bytes, count, offset);
}
int file_size(sqlite3_file* f, sqlite3_int64* size) {
  return real(f)->pMethods->xFileSize(real(f), size);
}
int lock_file(sqlite3_file* f, int level) {
  return real(f)->pMethods->xLock(real(f), level);
}
int unlock_file(sqlite3_file* f, int level) {
  return real(f)->pMethods->xUnlock(real(f), level);
}
int check_lock(sqlite3_file* f, int* out) {
  return real(f)->pMethods->xCheckReservedLock(real(f), out);
}
int control(sqlite3_file* f, int op, void* arg) {
  return real(f)->pMethods->xFileControl(real(f), op, arg);
}
int sector_size(sqlite3_file*) {
  return static_cast<int>(kSector);
}
int characteristics(sqlite3_file*) {
  return 0;
}
int shm_map(sqlite3_file* f, int page, int size, int extend, void volatile** out) {
  return real(f)->pMethods->xShmMap(real(f), page, size, extend, out);
}
int shm_lock(sqlite3_file* f, int offset, int n, int flags) {
  return real(f)->pMethods->xShmLock(real(f), offset, n, flags);
}
void shm_barrier(sqlite3_file* f) {
  real(f)->pMethods->xShmBarrier(real(f));
}
int shm_unmap(sqlite3_file* f, int remove) {
  return real(f)->pMethods->xShmUnmap(real(f), remove);
}

const sqlite3_io_methods kMethods = {
    2,         close_file,  read_file,  write_file, truncate_file, sync_file,       file_size,
    lock_file, unlock_file, check_lock, control,    sector_size,   characteristics, shm_map,
    shm_lock,  shm_barrier, shm_unmap,  nullptr,    nullptr};

int open_file(sqlite3_vfs*, const char* name, sqlite3_file* file, int flags, int* out_flags) {
  auto* made = new (file) FaultFile{};
  made->real = reinterpret_cast<sqlite3_file*>(made + 1);
  const int code = g_real->xOpen(g_real, name, made->real, flags, out_flags);
  if (code != SQLITE_OK) return code;
  made->path = name == nullptr ? nullptr : new std::string(name);
  made->base.pMethods = &kMethods;
  return SQLITE_OK;
}

int delete_file(sqlite3_vfs*, const char* name, int) {
  g_disk->remove(name);
  return g_real->xDelete(g_real, name, 0);
}

void apply(std::string& bytes, const FaultDisk::Piece& piece) {
  const auto offset = static_cast<std::size_t>(piece.offset);
  if (piece.truncates) {
    bytes.resize(offset);
    return;
  }
  if (bytes.size() < offset + piece.bytes.size()) bytes.resize(offset + piece.bytes.size());
  bytes.replace(offset, piece.bytes.size(), piece.bytes);
}

// Of a write, each sector with even chances.
void apply_torn(std::string& bytes, const FaultDisk::Piece& piece, std::mt19937& random) {
  if (piece.truncates) {
    if (random() % 2 == 0) apply(bytes, piece);
    return;
  }
  for (std::size_t begin = 0; begin < piece.bytes.size(); begin += kSector) {
    if (random() % 2 == 0) continue;
    apply(bytes, {piece.offset + static_cast<std::int64_t>(begin),
                  piece.bytes.substr(begin, kSector), false});
  }
}

}  // namespace

FaultDisk& FaultDisk::install() {
  static FaultDisk disk;
  static sqlite3_vfs layer;
  if (g_disk != nullptr) return disk;
  g_disk = &disk;
  g_real = sqlite3_vfs_find(nullptr);
  layer = *g_real;
  layer.zName = "limner-fault";
  layer.szOsFile = static_cast<int>(sizeof(FaultFile)) + g_real->szOsFile;
  layer.xOpen = open_file;
  layer.xDelete = delete_file;
  sqlite3_vfs_register(&layer, 1);
  return disk;
}

void FaultDisk::reset(Fault fault, std::uint64_t at) {
  const std::lock_guard lock(mutex_);
  files_.clear();
  fault_ = fault;
  at_ = at;
  operations_ = 0;
  struck_ = full_ = false;
}

void FaultDisk::heal() {
  const std::lock_guard lock(mutex_);
  fault_ = Fault::kNone;
}

void FaultDisk::set_full(bool full) {
  const std::lock_guard lock(mutex_);
  full_ = full;
}

std::uint64_t FaultDisk::operations() const {
  const std::lock_guard lock(mutex_);
  return operations_;
}

bool FaultDisk::failed() const {
  const std::lock_guard lock(mutex_);
  return struck_;
}

int FaultDisk::strike() {
  ++operations_;
  if (fault_ == Fault::kNone || at_ == 0) return SQLITE_OK;
  const bool now = fault_ == Fault::kErrorOnce ? operations_ == at_ : operations_ >= at_;
  if (!now) return SQLITE_OK;
  struck_ = true;
  return SQLITE_IOERR;
}

int FaultDisk::write(const std::string& path, const void* bytes, int count, std::int64_t offset) {
  const std::lock_guard lock(mutex_);
  if (full_) return SQLITE_FULL;
  const int code = strike();
  if (code != SQLITE_OK) return code;
  const auto size = static_cast<std::size_t>(count);
  files_[path].unsynced.push_back(
      {offset, std::string(static_cast<const char*>(bytes), size), false});
  return SQLITE_OK;
}

int FaultDisk::truncate(const std::string& path, std::int64_t size) {
  const std::lock_guard lock(mutex_);
  const int code = strike();
  if (code == SQLITE_OK) files_[path].unsynced.push_back({size, {}, true});
  return code;
}

int FaultDisk::sync(const std::string& path) {
  const std::lock_guard lock(mutex_);
  const int code = strike();
  if (code != SQLITE_OK) return code;
  File& file = files_[path];
  for (const Piece& piece : file.unsynced) apply(file.durable, piece);
  file.unsynced.clear();
  file.named = true;
  return SQLITE_OK;
}

void FaultDisk::remove(const std::string& path) {
  const std::lock_guard lock(mutex_);
  // After a power cut nothing reaches the disk, tidying up neither.
  if (struck_ && fault_ == Fault::kPowerCut) return;
  files_.erase(path);
}

void FaultDisk::materialise(const std::filesystem::path& folder, Unsynced unsynced,
                            std::uint32_t seed) const {
  const std::lock_guard lock(mutex_);
  std::mt19937 random(seed);
  for (const auto& [path, file] : files_) {
    std::string bytes = file.durable;
    for (const Piece& piece : file.unsynced) {
      if (unsynced == Unsynced::kKept) apply(bytes, piece);
      if (unsynced == Unsynced::kTorn) apply_torn(bytes, piece, random);
    }
    if (!file.named && unsynced == Unsynced::kLost) continue;
    std::ofstream out(folder / std::filesystem::path(path).filename(), std::ios::binary);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
}

}  // namespace limner
