// What a download really is, told by its bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include "base/error.h"
#include "platform/http/download.h"

namespace limner::platform::http {

// Bytes that check_head wants when the file has as many.
inline constexpr std::size_t kHeadBytes = 64;

// Throws Failure(kInvalidModel) when a file that begins so cannot be `wanted`, naming what it is
// instead (a pickle, a zip or gzip archive, a web page, ...). `total` is the file's length where it
// is known.
void check_head(std::span<const std::byte> head, std::optional<std::uint64_t> total, Content wanted,
                const std::string& where);

// The same for the whole file. Safetensors: the header is read, and the file must end exactly where
// its last tensor does, so that a server which cut it short or went on is noticed.
void check_file(const std::filesystem::path& file, Content wanted, const std::string& where);

}  // namespace limner::platform::http
