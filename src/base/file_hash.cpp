#include "base/file_hash.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

namespace limner {
namespace {

constexpr std::size_t kReadBytes = std::size_t{1} << 20;

struct Close {
  void operator()(std::FILE* stream) const { std::fclose(stream); }
};

}  // namespace

Result<void> hash_file(const std::filesystem::path& file, Sha256& hash,
                       const std::function<void()>& between) {
  const std::unique_ptr<std::FILE, Close> in(std::fopen(file.c_str(), "rbe"));
  std::vector<std::byte> buffer(kReadBytes);
  while (in != nullptr) {
    between();
    const std::size_t got = std::fread(buffer.data(), 1, buffer.size(), in.get());
    hash.update(std::span(buffer).first(got));
    if (got == buffer.size()) continue;
    if (std::ferror(in.get()) != 0) break;
    return {};
  }
  return Error{ErrorCode::kIo,
               fmt::format("cannot read {}: {}", file.string(), std::strerror(errno))};
}

Result<std::string> file_sha256(const std::filesystem::path& file,
                                const std::function<void()>& between) {
  Sha256 hash;
  const auto read = hash_file(file, hash, between);
  if (!read.ok()) return read.error();
  return to_hex(hash.finish());
}

}  // namespace limner
