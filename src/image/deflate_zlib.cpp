#include <zlib.h>

#include "base/check.h"
#include "image/deflate.h"

namespace limner::image {

std::vector<std::uint8_t> zlib_compress(std::span<const std::uint8_t> bytes) {
  constexpr int kLevel = 6;
  uLongf size = compressBound(static_cast<uLong>(bytes.size()));
  std::vector<std::uint8_t> out(size);
  const int status =
      compress2(out.data(), &size, bytes.data(), static_cast<uLong>(bytes.size()), kLevel);
  LIMNER_CHECK(status == Z_OK, "zlib refused a buffer of the size it asked for");
  out.resize(size);
  return out;
}

}  // namespace limner::image
