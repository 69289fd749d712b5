#include "engine/weights/message_text.h"

namespace limner::engine::weights {
namespace {

// Bytes of the UTF-8 character at the start of `text`, 0 when it is broken.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const std::size_t length = byte(0) < 0x80   ? 1
                             : byte(0) < 0xC2 ? 0
                             : byte(0) < 0xE0 ? 2
                             : byte(0) < 0xF0 ? 3
                             : byte(0) < 0xF5 ? 4
                                              : 0;
  if (length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  return length;
}

}  // namespace

std::string quote(std::string_view text) {
  constexpr std::size_t kLongest = 160;
  std::string safe = "'";
  const bool cut = text.size() > kLongest;
  for (std::size_t i = 0; i < text.size();) {
    if (cut && i >= kLongest / 2 && i < text.size() - kLongest / 2) {
      safe += "...";
      i = text.size() - kLongest / 2;
      while (i < text.size() && (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80) ++i;
      continue;
    }
    const std::size_t length = utf8_length(text.substr(i));
    const auto first = static_cast<unsigned char>(text[i]);
    if (length == 0 || first < 0x20 || first == 0x7F) {
      safe += '?';
      ++i;
    } else {
      safe += text.substr(i, length);
      i += length;
    }
  }
  return safe + "'";
}

std::string short_name(const std::filesystem::path& file) {
  const std::string folder = file.parent_path().filename().string();
  return folder.empty() ? file.filename().string() : folder + "/" + file.filename().string();
}

}  // namespace limner::engine::weights
