#include "platform/file_hash.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "base/sha256.h"

namespace limner::platform {
namespace {

constexpr std::size_t kReadBytes = std::size_t{1} << 20;

struct Close {
  void operator()(std::FILE* stream) const { std::fclose(stream); }
};

}  // namespace

std::string file_sha256(const std::filesystem::path& file, const std::function<void()>& between) {
  const std::unique_ptr<std::FILE, Close> in(std::fopen(file.c_str(), "rbe"));
  Sha256 hash;
  std::vector<std::byte> buffer(kReadBytes);
  while (in != nullptr) {
    between();
    const std::size_t got = std::fread(buffer.data(), 1, buffer.size(), in.get());
    hash.update(std::span(buffer).first(got));
    if (got == buffer.size()) continue;
    if (std::ferror(in.get()) != 0) break;
    return to_hex(hash.finish());
  }
  throw Failure(ErrorCode::kIo,
                fmt::format("cannot read {}: {}", file.string(), std::strerror(errno)));
}

}  // namespace limner::platform
