// Artifact: a stored picture of a finished job, as the API tells of it. Plain data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace limner::contract {

// A file in the store, by its key ("hot/ACCOUNT/ab/SHA256.png").
struct StoredImage {
  std::string key{};
  std::string format{};  // "png", "jpeg", "webp", "avif"
  std::int64_t width = 0;
  std::int64_t height = 0;
  std::uint64_t bytes = 0;
  std::string sha256{};  // of the file, 64 hexadecimal digits
};

struct Artifact {
  StoredImage image{};
  std::vector<StoredImage> thumbnails{};  // in the order asked for
  std::uint64_t seed = 0;
  std::int64_t index = 0;  // among the pictures of its request, from 0
};

}  // namespace limner::contract
