// Preloaded (LD_PRELOAD) into a process under test: writes down the calls by which it changes files
// below one folder, and lets a chosen one fail or be the last thing the process does.
//
//   IO_SHIM_FOLDER  the folder (absolute); calls elsewhere go through untouched
//   IO_SHIM_RECORD  the file that calls are added to, in the order in which they took effect
//   IO_SHIM_POINT   "OPERATION GLOB", such as "sync limner.db-wal": the calls that are counted
//   IO_SHIM_NTH     which of them is struck; 1 is the first
//   IO_SHIM_FAULT   how: kill-before or kill-after it (SIGKILL), error (EIO, once) or errors (EIO,
//                     this and every later call of any point)
//   IO_SHIM_FULL    while a file of this name exists, what needs room fails with ENOSPC
//   IO_SHIM_CLOCK   a file of 8 bytes: how many seconds the wall clock is ahead, as an integer
//
// Operations are create, write, truncate, sync, sync-folder, rename, link, unlink and mkdir. Calls
// are made one at a time, so that the record's order is the order in which the disk saw them.
// What goes through mmap (SQLite's -shm, which no crash needs) and through stdio is not seen:
// service_sweep.py shows that the record makes the folder, byte by byte.
// Its inline functions would be defined here a second time.
#undef _FORTIFY_SOURCE

#include <dlfcn.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <mutex>
#include <string>
#include <string_view>

namespace {

// What the caller would have reached without us.
template <typename Function>
Function* real(const char* name, Function*) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}
#define REAL(function) (real(#function, &::function))

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// One line of the record: this head, the path, the other path, the data. service_sweep.py reads it.
struct Head {
  std::uint32_t path_bytes = 0, other_bytes = 0, data_bytes = 0;
  std::int32_t error = 0;  // errno of a call that failed
  std::int64_t offset = 0;
  char operation[16] = {};
};

struct Call {
  const char* operation;
  std::string path;  // relative to the folder, like `other`
  std::string other{};
  std::int64_t offset = 0;
  std::string_view data{};
  bool needs_room = false;
};

class Shim {
 public:
  static Shim& get() {
    static Shim* const shim = new Shim;  // outlives every thread
    return *shim;
  }

  // Whether the path, which may be relative to a descriptor, lies below the folder; it is made
  // relative to it.
  bool below(int folder, const char* path, std::string& relative) const {
    if (folder_.empty()) return false;
    std::string whole = path;
    if (whole.empty() || whole[0] != '/') {
      const std::string link =
          folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/" + std::to_string(folder);
      whole = target(link) + "/" + whole;
    }
    return below(whole, relative);
  }
  bool below(int descriptor, std::string& relative) const {
    return !folder_.empty() &&
           below(target("/proc/self/fd/" + std::to_string(descriptor)), relative);
  }

  // Makes the call, unless a fault is due. `make` returns -1 and sets errno where it fails.
  template <typename Make>
  auto run(const Call& call, const Make& make) -> decltype(make()) {
    const std::lock_guard lock(mutex_);
    const bool struck = !point_.empty() && matches(call) && ++seen_ == nth_;
    if (struck && fault_ == "kill-before") die();
    failing_ = failing_ || (struck && fault_ == "errors");
    int error = struck && fault_ == "error" ? EIO : failing_ ? EIO : 0;
    if (error == 0 && call.needs_room && full()) error = ENOSPC;
    decltype(make()) result = -1;
    if (error == 0) {
      errno = 0;
      result = make();
      if (result < 0) error = errno;
    }
    const auto done = call.data.substr(0, result < 0 ? 0 : static_cast<std::size_t>(result));
    write_down(call, done, error);
    if (struck && fault_ == "kill-after") die();
    if (error != 0) errno = error;
    return result;
  }

  std::int64_t seconds_ahead() const { return ahead_ == nullptr ? 0 : *ahead_; }

 private:
  Shim()
      : folder_(variable("IO_SHIM_FOLDER")),
        point_(variable("IO_SHIM_POINT")),
        fault_(variable("IO_SHIM_FAULT")),
        full_(variable("IO_SHIM_FULL")),
        nth_(std::strtoull(variable("IO_SHIM_NTH").c_str(), nullptr, 10)) {
    const std::string record = variable("IO_SHIM_RECORD"), clock = variable("IO_SHIM_CLOCK");
    if (!record.empty()) {
      record_ = REAL(open)(record.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
      if (record_ < 0) refuse("the record", record);
    }
    if (clock.empty()) return;
    const int file = REAL(open)(clock.c_str(), O_RDONLY | O_CLOEXEC);
    void* const mapped = mmap(nullptr, sizeof(std::int64_t), PROT_READ, MAP_SHARED, file, 0);
    if (file < 0 || mapped == MAP_FAILED) refuse("the clock", clock);
    ahead_ = static_cast<const volatile std::int64_t*>(mapped);
  }

  [[noreturn]] static void refuse(const char* what, const std::string& path) {
    std::fprintf(stderr, "io_shim: cannot open %s, %s\n", what, path.c_str());
    _exit(125);
  }

  static std::string target(const std::string& link) {
    char path[4096];
    const ssize_t length = readlink(link.c_str(), path, sizeof(path));
    return length < 0 ? "" : std::string(path, static_cast<std::size_t>(length));
  }

  // Paths with ".." are none that a service makes up.
  bool below(const std::string& whole, std::string& relative) const {
    if (whole.compare(0, folder_.size(), folder_) != 0) return false;
    if (whole.size() == folder_.size()) {
      relative.assign(1, '.');
      return true;
    }
    if (whole[folder_.size()] != '/' || whole.ends_with(" (deleted)")) return false;
    relative = whole.substr(folder_.size() + 1);
    while (relative.ends_with('/')) relative.pop_back();
    return true;
  }

  bool matches(const Call& call) const {
    const std::string name = call.operation + (" " + call.path);
    return fnmatch(point_.c_str(), name.c_str(), FNM_PATHNAME) == 0;
  }

  bool full() const { return !full_.empty() && access(full_.c_str(), F_OK) == 0; }

  void write_down(const Call& call, std::string_view data, int error) const {
    if (record_ < 0) return;
    Head head{.path_bytes = static_cast<std::uint32_t>(call.path.size()),
              .other_bytes = static_cast<std::uint32_t>(call.other.size()),
              .data_bytes = static_cast<std::uint32_t>(data.size()),
              .error = error,
              .offset = call.offset};
    std::strncpy(head.operation, call.operation, sizeof(head.operation) - 1);
    iovec parts[4] = {{&head, sizeof(head)},
                      {const_cast<char*>(call.path.data()), call.path.size()},
                      {const_cast<char*>(call.other.data()), call.other.size()},
                      {const_cast<char*>(data.data()), data.size()}};
    REAL(writev)(record_, parts, 4);
  }

  [[noreturn]] static void die() {
    kill(getpid(), SIGKILL);
    for (;;) pause();
  }

  const std::string folder_, point_, fault_, full_;
  const std::uint64_t nth_;
  int record_ = -1;
  const volatile std::int64_t* ahead_ = nullptr;
  std::mutex mutex_;
  std::uint64_t seen_ = 0;  // by mutex_, like below
  bool failing_ = false;
};

bool grows(int descriptor, std::int64_t end) {
  struct stat status{};
  return fstat(descriptor, &status) == 0 && end > status.st_size;
}

template <typename Make>
ssize_t writing(int descriptor, std::int64_t offset, std::string_view data, const Make& make) {
  std::string path;
  if (!Shim::get().below(descriptor, path)) return make();
  if (offset < 0) {
    const bool appends = (fcntl(descriptor, F_GETFL) & O_APPEND) != 0;
    struct stat status{};
    offset = appends && fstat(descriptor, &status) == 0 ? status.st_size
                                                        : lseek(descriptor, 0, SEEK_CUR);
  }
  Call call{"write", path, {}, offset, data};
  call.needs_room = grows(descriptor, offset + static_cast<std::int64_t>(data.size()));
  return Shim::get().run(call, make);
}

template <typename Make>
int syncing(int descriptor, const Make& make) {
  std::string path;
  struct stat status{};
  if (!Shim::get().below(descriptor, path) || path.ends_with("-shm")) return make();
  const bool folder = fstat(descriptor, &status) == 0 && S_ISDIR(status.st_mode);
  return Shim::get().run({folder ? "sync-folder" : "sync", path}, make);
}

template <typename Make>
int truncating(int descriptor, std::int64_t size, const Make& make) {
  std::string path;
  if (!Shim::get().below(descriptor, path)) return make();
  Call call{"truncate", path, {}, size};
  call.needs_room = grows(descriptor, size);
  return Shim::get().run(call, make);
}

// Of calls that change names; `needs_room`: for another one.
template <typename Make>
int naming(const char* operation, int folder, const char* path, bool needs_room, const Make& make) {
  Call call{operation, {}};
  if (!Shim::get().below(folder, path, call.path)) return make();
  call.needs_room = needs_room;
  return Shim::get().run(call, make);
}

template <typename Make>
int renaming(const char* operation, const char* from, const char* to, const Make& make) {
  Call call{operation, {}};
  if (!Shim::get().below(AT_FDCWD, from, call.path)) return make();
  Shim::get().below(AT_FDCWD, to, call.other);
  return Shim::get().run(call, make);
}

// Opening changes something where it makes or empties a file.
template <typename Make>
int opening(int folder, const char* path, int flags, const Make& make) {
  const bool there = faccessat(folder, path, F_OK, 0) == 0;
  if (!there && (flags & O_CREAT) != 0) return naming("create", folder, path, true, make);
  if (there && (flags & O_TRUNC) != 0) return naming("truncate", folder, path, false, make);
  return make();
}

mode_t mode_of(int flags, va_list arguments) {
  return (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
}

}  // namespace

extern "C" {

#define OPEN(name)                                                                        \
  int name(const char* path, int flags, ...) {                                            \
    va_list arguments;                                                                    \
    va_start(arguments, flags);                                                           \
    const mode_t mode = mode_of(flags, arguments);                                        \
    va_end(arguments);                                                                    \
    return opening(AT_FDCWD, path, flags, [&] { return REAL(name)(path, flags, mode); }); \
  }
OPEN(open)
OPEN(open64)

#define FOPEN(name)                                                                  \
  FILE* name(const char* path, const char* mode) {                                   \
    const int flags = mode[0] == 'r' ? 0 : O_CREAT | (mode[0] == 'w' ? O_TRUNC : 0); \
    FILE* file = nullptr;                                                            \
    opening(AT_FDCWD, path, flags, [&] {                                             \
      file = REAL(name)(path, mode);                                                 \
      return file == nullptr ? -1 : 0;                                               \
    });                                                                              \
    return file;                                                                     \
  }
FOPEN(fopen)
FOPEN(fopen64)

ssize_t write(int descriptor, const void* bytes, std::size_t count) {
  return writing(descriptor, -1, {static_cast<const char*>(bytes), count},
                 [&] { return REAL(write)(descriptor, bytes, count); });
}

ssize_t writev(int descriptor, const iovec* parts, int count) {
  std::string bytes;
  for (int i = 0; i < count; ++i) {
    bytes.append(static_cast<const char*>(parts[i].iov_base), parts[i].iov_len);
  }
  return writing(descriptor, -1, bytes, [&] { return REAL(writev)(descriptor, parts, count); });
}

#define PWRITE(name)                                                                 \
  ssize_t name(int descriptor, const void* bytes, std::size_t count, off_t offset) { \
    return writing(descriptor, offset, {static_cast<const char*>(bytes), count},     \
                   [&] { return REAL(name)(descriptor, bytes, count, offset); });    \
  }
PWRITE(pwrite)
PWRITE(pwrite64)

#define TRUNCATE(name)                                                                 \
  int name(int descriptor, off_t size) noexcept {                                      \
    return truncating(descriptor, size, [&] { return REAL(name)(descriptor, size); }); \
  }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

int fsync(int descriptor) {
  return syncing(descriptor, [&] { return REAL(fsync)(descriptor); });
}
int fdatasync(int descriptor) {
  return syncing(descriptor, [&] { return REAL(fdatasync)(descriptor); });
}

int rename(const char* from, const char* to) noexcept {
  return renaming("rename", from, to, [&] { return REAL(rename)(from, to); });
}
int link(const char* from, const char* to) noexcept {
  return renaming("link", from, to, [&] { return REAL(link)(from, to); });
}
int unlink(const char* path) noexcept {
  return naming("unlink", AT_FDCWD, path, false, [&] { return REAL(unlink)(path); });
}
int unlinkat(int folder, const char* path, int flags) noexcept {
  return naming("unlink", folder, path, false, [&] { return REAL(unlinkat)(folder, path, flags); });
}
int remove(const char* path) noexcept {
  return naming("unlink", AT_FDCWD, path, false, [&] { return REAL(remove)(path); });
}
int mkdir(const char* path, mode_t mode) noexcept {
  return naming("mkdir", AT_FDCWD, path, true, [&] { return REAL(mkdir)(path, mode); });
}

int clock_gettime(clockid_t clock, timespec* time) noexcept {
  static const auto next = REAL(clock_gettime);
  const int result = next(clock, time);
  if (result == 0 && clock == CLOCK_REALTIME) time->tv_sec += Shim::get().seconds_ahead();
  return result;
}
int gettimeofday(timeval* time, void* zone) noexcept {
  static const auto next = REAL(gettimeofday);
  const int result = next(time, zone);
  if (result == 0) time->tv_sec += Shim::get().seconds_ahead();
  return result;
}
time_t time(time_t* to) noexcept {
  static const auto next = REAL(time);
  const time_t now = next(nullptr) + Shim::get().seconds_ahead();
  if (to != nullptr) *to = now;
  return now;
}

}  // extern "C"
