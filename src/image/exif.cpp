#include "image/exif.h"

#include <fmt/format.h>

#include "base/utf8.h"

namespace limner::image {
namespace {

constexpr std::size_t kLongestText = 256u << 20;

class Tiff {
 public:
  void u16(std::uint32_t value) { number(value, 2); }
  void u32(std::uint32_t value) { number(value, 4); }
  void entry(std::uint32_t tag, std::uint32_t type, std::uint32_t count, std::uint32_t value) {
    u16(tag);
    u16(type);
    u32(count);
    u32(value);
  }
  std::vector<std::uint8_t> bytes;

 private:
  void number(std::uint32_t value, int size) {
    for (int i = 0; i < size; ++i) bytes.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
  }
};

void append_utf16(char32_t code, std::vector<std::uint8_t>& out) {
  const auto unit = [&](char32_t u) {
    out.push_back(static_cast<std::uint8_t>(u >> 8));
    out.push_back(static_cast<std::uint8_t>(u));
  };
  if (code < 0x10000) {
    unit(code);
  } else {
    unit(0xD800 + ((code - 0x10000) >> 10));
    unit(0xDC00 + ((code - 0x10000) & 0x3FF));
  }
}

}  // namespace

Result<std::vector<std::uint8_t>> exif_user_comment(std::string_view text) {
  constexpr std::uint32_t kExifPointer = 0x8769, kUserComment = 0x9286;
  constexpr std::uint32_t kLong = 4, kUndefined = 7;
  constexpr std::uint32_t kDirectory = 8;               // where the first directory starts
  constexpr std::uint32_t kDirectorySize = 2 + 12 + 4;  // count, one entry, where the next one is
  constexpr std::uint32_t kExif = kDirectory + kDirectorySize;
  if (text.size() > kLongestText) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("[image.exif] want a text of at most {} bytes, got {}", kLongestText,
                             text.size())};
  }
  const auto characters = decode_utf8(text);
  if (!characters) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("[image.exif] parameters: {}", characters.error().message)};
  }
  std::vector<std::uint8_t> comment = {'U', 'N', 'I', 'C', 'O', 'D', 'E', 0};
  for (const Character& character : *characters) append_utf16(character.code, comment);

  Tiff tiff;
  tiff.bytes = {'E', 'x', 'i', 'f', 0, 0, 'I', 'I', 42, 0};  // offsets count from the first I
  tiff.u32(kDirectory);
  tiff.u16(1);
  tiff.entry(kExifPointer, kLong, 1, kExif);
  tiff.u32(0);
  tiff.u16(1);
  tiff.entry(kUserComment, kUndefined, static_cast<std::uint32_t>(comment.size()),
             kExif + kDirectorySize);
  tiff.u32(0);
  tiff.bytes.insert(tiff.bytes.end(), comment.begin(), comment.end());
  return std::move(tiff.bytes);
}

}  // namespace limner::image
