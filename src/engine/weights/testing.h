// For tests of this room: folders that vanish, and files with any bytes in them.
#pragma once

#include <stdlib.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/weights/safetensors.h"

namespace limner::engine::weights::testing {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "limner-test-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  const std::filesystem::path& path() const { return path_; }

  // Makes folders on the way.
  std::filesystem::path write(const std::string& name, std::string_view bytes) const {
    const std::filesystem::path file = path_ / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return file;
  }

 private:
  std::filesystem::path path_;
};

inline std::string little_endian(std::uint64_t value) {
  std::string bytes(8, '\0');
  for (char& byte : bytes) {
    byte = static_cast<char>(value & 0xFF);
    value >>= 8;
  }
  return bytes;
}

// A safetensors file by hand: the true length, the header as given, the data.
inline std::string raw_safetensors(std::string_view header, std::string_view data = {}) {
  return little_endian(header.size()) + std::string(header) + std::string(data);
}

struct FloatTensor {
  std::string name;
  std::vector<std::int64_t> shape;
  std::vector<float> values;
};

// Writes float32 tensors as safetensors; throws when that fails.
inline void write_floats(const std::filesystem::path& file,
                         const std::vector<FloatTensor>& tensors) {
  std::filesystem::create_directories(file.parent_path());
  std::vector<TensorToWrite> list;
  for (const FloatTensor& tensor : tensors) {
    list.push_back(
        {tensor.name, DType::kF32, tensor.shape, std::as_bytes(std::span(tensor.values))});
  }
  write_safetensors(file, std::move(list)).value_or_throw();
}

}  // namespace limner::engine::weights::testing
