#include "engine/weights/safetensors.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "engine/weights/file_kind.h"
#include "engine/weights/load_bytes.h"
#include "engine/weights/message_text.h"
#include "engine/weights/safetensors_header.h"

namespace limner::engine::weights {
namespace {

std::uintptr_t page_size() {
  static const auto size = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  return size;
}

Failure system_failure(const std::string& where, const char* what) {
  const int code = errno;
  return {code == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo,
          fmt::format("{}: {} ({})", where, what, std::strerror(code))};
}

std::uint64_t little_endian(const std::array<char, 8>& bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = 8; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

}  // namespace

struct SafetensorsFile::State {
  std::filesystem::path path;
  int descriptor = -1;
  struct stat status = {};
  void* map = MAP_FAILED;
  std::shared_ptr<LoadMemory> memory;  // instead of the map
  std::span<const std::byte> data;     // of either: what follows the header
  std::uint64_t size = 0;
  std::map<std::string, TensorView, std::less<>> tensors;
  std::map<std::string, std::string, std::less<>> metadata;

  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    if (map != MAP_FAILED) ::munmap(map, size);
    if (descriptor >= 0) ::close(descriptor);
  }

  void open();
  void read(Backing backing);
  // The whole pages that the tensor touches.
  std::pair<void*, std::size_t> pages(const TensorView& tensor) const;
};

void SafetensorsFile::State::open() {
  const std::string where = short_name(path);
  // O_NONBLOCK: a FIFO of that name must not hang us.
  descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) throw system_failure(where, "cannot be opened");
  if (::fstat(descriptor, &status) != 0) throw system_failure(where, "cannot be read");
  if (!S_ISREG(status.st_mode))
    throw Failure(ErrorCode::kInvalidModel, where + ": not a regular file");
  size = static_cast<std::uint64_t>(status.st_size);
}

void SafetensorsFile::State::read(Backing backing) {
  const std::string where = short_name(path);
  std::array<char, 32> head = {};
  const std::size_t head_size = std::min<std::uint64_t>(head.size(), size);
  read_at(descriptor, std::as_writable_bytes(std::span(head.data(), head_size)), 0, where);
  if (size < 8)
    throw Failure(ErrorCode::kInvalidModel,
                  fmt::format("{}: has {} bytes, too few for any header", where, size));
  std::array<char, 8> length_bytes = {};
  std::copy_n(head.begin(), 8, length_bytes.begin());
  const std::uint64_t length = little_endian(length_bytes);
  try {
    check_header_length(length, size, where);
  } catch (const Failure&) {
    // Not ours. If it is something people commonly have in its place, say that instead.
    const auto refusal =
        refusal_of_foreign_format(path, std::as_bytes(std::span(head.data(), head_size)));
    if (refusal) throw Failure(*refusal);
    throw;
  }
  std::string text(length, '\0');
  read_at(descriptor, std::as_writable_bytes(std::span(text)), 8, where);
  SafetensorsHeader header = parse_header(text, size - 8 - length, where);
  if (backing == Backing::kMemory) {
    memory = std::make_shared<LoadMemory>(size - 8 - length);
    data = memory->bytes();
  } else {
    map = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0);
    if (map == MAP_FAILED) throw system_failure(where, "cannot be mapped into memory");
    data = {static_cast<const std::byte*>(map) + 8 + length, size - 8 - length};
  }
  for (auto& [name, tensor] : header.tensors) {
    tensors.emplace_hint(tensors.end(), name,
                         TensorView{tensor.dtype, std::move(tensor.shape),
                                    data.subspan(tensor.begin, tensor.end - tensor.begin)});
  }
  metadata = std::move(header.metadata);
}

std::pair<void*, std::size_t> SafetensorsFile::State::pages(const TensorView& tensor) const {
  const auto begin = reinterpret_cast<std::uintptr_t>(tensor.bytes.data()) & ~(page_size() - 1);
  const auto end = reinterpret_cast<std::uintptr_t>(tensor.bytes.data()) + tensor.bytes.size();
  return {reinterpret_cast<void*>(begin), end - begin};  // the kernel rounds the end up
}

SafetensorsFile::SafetensorsFile(std::unique_ptr<State> state) : state_(std::move(state)) {}
SafetensorsFile::SafetensorsFile(SafetensorsFile&&) noexcept = default;
SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&&) noexcept = default;
SafetensorsFile::~SafetensorsFile() = default;

Result<SafetensorsFile> SafetensorsFile::open(const std::filesystem::path& path, Backing backing) {
  try {
    auto state = std::make_unique<State>();
    state->path = path;
    state->open();
    state->read(backing);
    return SafetensorsFile(std::move(state));
  } catch (const Failure& failure) {
    return failure.error();
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::kOutOfMemory, short_name(path) + ": no memory for its header"};
  }
}

const std::map<std::string, TensorView, std::less<>>& SafetensorsFile::tensors() const {
  return state_->tensors;
}
const std::map<std::string, std::string, std::less<>>& SafetensorsFile::metadata() const {
  return state_->metadata;
}
const std::filesystem::path& SafetensorsFile::path() const {
  return state_->path;
}
std::uint64_t SafetensorsFile::file_size() const {
  return state_->size;
}

bool SafetensorsFile::owns(const TensorView& tensor) const {
  const std::span<const std::byte> data = state_->data;
  return std::less_equal<>()(data.data(), tensor.bytes.data()) &&
         std::less_equal<>()(tensor.bytes.data() + tensor.bytes.size(), data.data() + data.size());
}

std::shared_ptr<const void> SafetensorsFile::memory() const {
  return state_->memory;
}

Result<void> SafetensorsFile::load() {
  LIMNER_CHECK(state_->memory != nullptr, "only a file opened into memory is loaded");
  std::vector<std::pair<LoadRange, const std::string*>> tensors;
  for (const auto& [name, tensor] : state_->tensors) {
    const auto begin = static_cast<std::uint64_t>(tensor.bytes.data() - state_->data.data());
    tensors.push_back({{begin, begin + tensor.bytes.size(), tensor.dtype}, &name});
  }
  std::ranges::sort(tensors, {}, [](const auto& tensor) { return tensor.first.begin; });
  std::vector<LoadRange> ranges;
  for (const auto& [range, name] : tensors) ranges.push_back(range);
  const std::string where = short_name(state_->path);
  try {
    const auto broken = load_bytes(state_->descriptor, state_->size - state_->data.size(),
                                   state_->memory->bytes(), ranges, where);
    state_->memory->make_read_only();
    if (!broken) return {};
    return Error{
        ErrorCode::kInvalidModel,
        fmt::format("{}: tensor {} holds a NaN or an infinity: the file is damaged, or the "
                    "training was",
                    where, quote(*tensors[*broken].second))};
  } catch (const Failure& failure) {
    return failure.error();
  }
}

Result<void> SafetensorsFile::prefetch(const TensorView& tensor) const {
  if (state_->memory) return {};
  struct stat now = {};
  const struct stat& then = state_->status;
  const bool known = ::fstat(state_->descriptor, &now) == 0;
  if (!known || now.st_size != then.st_size || now.st_mtim.tv_sec != then.st_mtim.tv_sec ||
      now.st_mtim.tv_nsec != then.st_mtim.tv_nsec) {
    return Error{ErrorCode::kInvalidModel,
                 short_name(state_->path) + ": was changed by somebody while it was in use"};
  }
  if (tensor.bytes.empty()) return {};
#ifdef MADV_POPULATE_READ
  const auto [address, length] = state_->pages(tensor);
  // EINVAL: a kernel before 5.14, where the pages simply come in one by one.
  if (::madvise(address, length, MADV_POPULATE_READ) != 0 && errno != EINVAL && errno != EAGAIN) {
    return Error{ErrorCode::kIo, fmt::format("{}: cannot be read ({})", short_name(state_->path),
                                             std::strerror(errno))};
  }
#endif
  return {};
}

void SafetensorsFile::release(const TensorView& tensor) const {
  if (tensor.bytes.empty() || state_->memory) return;
  const auto [address, length] = state_->pages(tensor);
  // Neighbours on the edge pages fault them in again from the page cache; nothing is lost by
  // rounding outwards.
  ::madvise(address, length, MADV_DONTNEED);
}

}  // namespace limner::engine::weights
