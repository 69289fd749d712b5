#include "engine/weights/load_bytes.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <exception>
#include <limits>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "base/error.h"
#include "engine/weights/finite.h"

namespace limner::engine::weights {
namespace {

constexpr std::size_t kLargePage = std::size_t{2} << 20;
// Read by one call and checked at once; the second-level cache holds it.
constexpr std::uint64_t kPiece = std::uint64_t{512} << 10;
constexpr std::uint64_t kWorthAThread = std::uint64_t{32} << 20;
constexpr std::size_t kMostThreads = 4;  // more do not read a page cache or a disk faster

struct Piece {
  std::uint64_t begin = 0, end = 0;
  std::size_t first_range = 0;  // the first that reaches into it
};

// At most kPiece long, cut at multiples of eight bytes from a range's start: no element is halved.
std::vector<Piece> pieces_of(std::uint64_t size, std::span<const LoadRange> ranges) {
  std::vector<Piece> pieces;
  std::size_t range = 0;
  for (std::uint64_t begin = 0; begin < size;) {
    while (range < ranges.size() && ranges[range].end <= begin) ++range;
    std::uint64_t end = std::min(size, begin + kPiece);
    std::size_t last = range;
    while (last < ranges.size() && ranges[last].end < end) ++last;
    if (end < size && last < ranges.size() && ranges[last].begin < end) {
      end = ranges[last].begin + ((end - ranges[last].begin) & ~std::uint64_t{7});
    }
    pieces.push_back({begin, end, range});
    begin = end;
  }
  return pieces;
}

// Shared by the threads of one load.
class Load {
 public:
  Load(int descriptor, std::uint64_t offset, std::span<std::byte> out,
       std::span<const LoadRange> ranges, const std::string& where)
      : descriptor_(descriptor),
        offset_(offset),
        out_(out),
        ranges_(ranges),
        where_(where),
        pieces_(pieces_of(out.size(), ranges)) {}

  std::optional<std::size_t> run() {
    const std::size_t threads =
        std::min({kMostThreads, std::max<std::size_t>(1, std::thread::hardware_concurrency()),
                  1 + static_cast<std::size_t>(out_.size() / kWorthAThread)});
    {
      std::vector<std::jthread> others;
      try {
        for (std::size_t i = 1; i < threads; ++i) others.emplace_back([this] { work(); });
      } catch (const std::system_error&) {
        // No more threads to be had: those that run do all.
      }
      work();
    }
    if (error_) std::rethrow_exception(error_);
    if (broken_ == kNone) return std::nullopt;
    return broken_;
  }

 private:
  static constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();

  void work() {
    try {
      for (std::size_t i = next_++; i < pieces_.size() && !stop_; i = next_++) load(pieces_[i]);
    } catch (...) {
      const std::scoped_lock lock(mutex_);
      if (!error_) error_ = std::current_exception();
      stop_ = true;
    }
  }

  void load(const Piece& piece) {
    const std::span<std::byte> bytes = out_.subspan(piece.begin, piece.end - piece.begin);
    read_at(descriptor_, bytes, offset_ + piece.begin, where_);
    for (std::size_t i = piece.first_range; i < ranges_.size(); ++i) {
      const LoadRange& range = ranges_[i];
      if (range.begin >= piece.end) return;
      const std::uint64_t begin = std::max(range.begin, piece.begin);
      const std::uint64_t end = std::min(range.end, piece.end);
      if (!all_finite(range.dtype, out_.subspan(begin, end - begin))) return note_broken(i);
    }
  }

  void note_broken(std::size_t range) {
    const std::scoped_lock lock(mutex_);
    broken_ = std::min(broken_, range);
  }

  const int descriptor_;
  const std::uint64_t offset_;
  const std::span<std::byte> out_;
  const std::span<const LoadRange> ranges_;
  const std::string& where_;
  const std::vector<Piece> pieces_;
  std::atomic<std::size_t> next_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;  // guards the two below
  std::exception_ptr error_;
  std::size_t broken_ = kNone;
};

}  // namespace

void read_at(int descriptor, std::span<std::byte> out, std::uint64_t offset,
             const std::string& where) {
  while (!out.empty()) {
    const ssize_t got = ::pread(descriptor, out.data(), out.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      throw Failure(ErrorCode::kIo,
                    fmt::format("{}: cannot be read ({})", where, std::strerror(errno)));
    }
    if (got == 0) {
      throw Failure(ErrorCode::kInvalidModel, where + ": became shorter while it was read");
    }
    out = out.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
}

LoadMemory::LoadMemory(std::size_t size) {
  if (size == 0) return;
  mapped_ = size + kLargePage;
  map_ = ::mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map_ == MAP_FAILED) {
    map_ = nullptr;
    throw Failure(ErrorCode::kOutOfMemory, fmt::format("no memory for {} bytes", size));
  }
  void* begin = map_;
  std::size_t room = mapped_;
  std::align(kLargePage, size, begin, room);
  bytes_ = {static_cast<std::byte*>(begin), size};
  ::madvise(begin, size, MADV_HUGEPAGE);  // a wish: small pages hold the same
}

LoadMemory::~LoadMemory() {
  if (map_ != nullptr) ::munmap(map_, mapped_);
}

void LoadMemory::make_read_only() {
  if (map_ != nullptr) ::mprotect(map_, mapped_, PROT_READ);
}

std::optional<std::size_t> load_bytes(int descriptor, std::uint64_t offset,
                                      std::span<std::byte> out, std::span<const LoadRange> ranges,
                                      const std::string& where) {
  return Load(descriptor, offset, out, ranges, where).run();
}

}  // namespace limner::engine::weights
