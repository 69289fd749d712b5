#include "base/quote.h"

#include "base/utf8.h"

namespace limner {

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

}  // namespace limner
