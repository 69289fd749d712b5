// The header of a safetensors file: parsed and checked, no bytes of tensors touched.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "engine/weights/dtype.h"

namespace limner::engine::weights {

struct HeaderTensor {
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;  // bytes from the end of the header
  std::uint64_t end = 0;
};

struct SafetensorsHeader {
  std::map<std::string, HeaderTensor, std::less<>> tensors;
  std::map<std::string, std::string, std::less<>> metadata;
};

// Limits beside the format's own rules: against files whose header alone would cost much memory or
// time.
inline constexpr std::uint64_t kLongestHeader = 100'000'000;  // the format's
inline constexpr std::uint64_t kHeaderAlwaysFine = 4u
                                                   << 20;  // beyond: at most a quarter of the file
inline constexpr std::size_t kMostTensors = 50'000;
inline constexpr std::size_t kMostMetadata = 10'000;
inline constexpr std::size_t kLongestName = 1'024;
inline constexpr std::size_t kMostDimensions = 16;

// Checks the length field alone; to be called before the header is read.
void check_header_length(std::uint64_t length, std::uint64_t file_size, const std::string& where);

// `data_size` is what follows the header in the file. Throws Failure(kInvalidModel) naming tensor
// and rule. After it the tensors lie in [0, data_size) without holes or overlaps and each shape
// fills its bytes exactly.
SafetensorsHeader parse_header(std::string_view json, std::uint64_t data_size,
                               const std::string& where);

}  // namespace limner::engine::weights
