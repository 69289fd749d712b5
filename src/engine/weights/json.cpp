#include "engine/weights/json.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <system_error>
#include <utility>
#include <vector>

namespace limner::engine::weights {

using nlohmann::json;

json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits) {
  auto read = limner::parse_json(text, limits);
  if (!read.ok()) throw Failure(ErrorCode::kInvalidModel, where + ": " + read.error().message);
  return std::move(read).value();
}

json read_json(const std::filesystem::path& file, const std::string& where,
               const JsonLimits& limits) {
  std::error_code error;
  const auto status = std::filesystem::status(file, error);
  if (!std::filesystem::exists(status)) {
    throw Failure(ErrorCode::kNotFound, where + ": no such file");
  }
  if (!std::filesystem::is_regular_file(status)) {
    throw Failure(ErrorCode::kInvalidModel, where + ": not a regular file");
  }
  std::ifstream stream(file, std::ios::binary);
  if (!stream)
    throw Failure(ErrorCode::kIo,
                  fmt::format("{}: cannot be opened ({})", where, std::strerror(errno)));
  std::string text;
  std::vector<char> chunk(64 << 10);
  while (stream.read(chunk.data(), static_cast<std::streamsize>(chunk.size())),
         stream.gcount() > 0) {
    text.append(chunk.data(), static_cast<std::size_t>(stream.gcount()));
    if (text.size() > limits.bytes) {
      throw Failure(
          ErrorCode::kInvalidModel,
          fmt::format("{}: larger than {} MiB, which no config is", where, limits.bytes >> 20));
    }
  }
  if (stream.bad()) throw Failure(ErrorCode::kIo, where + ": reading failed");
  return parse_json(text, where, limits);
}

}  // namespace limner::engine::weights
