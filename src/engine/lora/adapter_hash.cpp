#include "engine/lora/adapter_hash.h"

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <fstream>

#include "base/sha256.h"
#include "engine/lora/adapter_folders.h"

namespace limner::engine::lora {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kDigits = 12;
constexpr std::size_t kReadBytes = std::size_t{1} << 20;

// "" when the file cannot be looked at.
std::string identity_of(const fs::path& file) {
  std::error_code failed;
  const auto bytes = fs::file_size(file, failed);
  const auto time = failed ? fs::file_time_type() : fs::last_write_time(file, failed);
  if (failed) return "";
  return fmt::format("{}|{}|{}", file.string(), bytes, time.time_since_epoch().count());
}

}  // namespace

Result<std::string> short_hash(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::array<unsigned char, 8> head = {};
  if (!in.read(reinterpret_cast<char*>(head.data()), head.size())) {
    return Error{ErrorCode::kIo, fmt::format("cannot read {}", file.string())};
  }
  std::uint64_t length = 0;
  for (std::size_t i = head.size(); i-- > 0;) length = length << 8 | head[i];
  std::error_code failed;
  const auto size = fs::file_size(file, failed);
  if (failed || length > size - head.size()) {
    return Error{ErrorCode::kInvalidModel,
                 fmt::format("{}: is shorter than its header says", file.string())};
  }
  in.seekg(static_cast<std::streamoff>(head.size() + length));
  Sha256 hash;
  std::vector<std::byte> buffer(kReadBytes);
  while (in) {
    in.read(reinterpret_cast<char*>(buffer.data()), static_cast<std::streamsize>(buffer.size()));
    hash.update(std::span(buffer).first(static_cast<std::size_t>(in.gcount())));
  }
  if (in.bad()) return Error{ErrorCode::kIo, fmt::format("cannot read {}", file.string())};
  return to_hex(hash.finish()).substr(0, kDigits);
}

std::vector<std::string> AdapterHashes::notes(std::span<const fs::path> files) {
  std::vector<std::string> notes;
  for (const fs::path& file : files) {
    const std::string identity = identity_of(file);
    const std::scoped_lock lock(mutex_);
    auto known = known_.find(identity);
    if (known == known_.end()) {
      const auto hash = short_hash(file);
      if (!hash.ok()) continue;
      known = known_.emplace(identity, *hash).first;
    }
    notes.push_back(fmt::format("{}: {}", adapter_name(file), known->second));
  }
  return notes;
}

}  // namespace limner::engine::lora
