#include "image/png.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <limits>
#include <span>
#include <string_view>

#include "base/utf8.h"
#include "image/deflate.h"
#include "image/encode.h"

namespace limner::image {
namespace {

using Bytes = std::span<const std::uint8_t>;

constexpr std::array<std::uint8_t, 8> kSignature = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
constexpr std::size_t kLargestChunk = 0x7FFFFFFF;
constexpr std::size_t kLongestKeyword = 79;

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t n = 0; n < 256; ++n) {
    std::uint32_t c = n;
    for (int k = 0; k < 8; ++k) c = (c & 1) ? 0xEDB88320u ^ (c >> 1) : c >> 1;
    table[n] = c;
  }
  return table;
}

std::uint32_t crc32(Bytes bytes) {
  static constexpr auto kTable = make_crc_table();
  std::uint32_t c = 0xFFFFFFFFu;
  for (const std::uint8_t byte : bytes) c = kTable[(c ^ byte) & 0xFF] ^ (c >> 8);
  return ~c;
}

void append_u32(std::vector<std::uint8_t>& out, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8)
    out.push_back(static_cast<std::uint8_t>(value >> shift));
}

std::uint32_t read_u32(Bytes bytes) {
  return (std::uint32_t{bytes[0]} << 24) | (std::uint32_t{bytes[1]} << 16) |
         (std::uint32_t{bytes[2]} << 8) | bytes[3];
}

void append_chunk(std::vector<std::uint8_t>& out, std::string_view type, Bytes data) {
  append_u32(out, static_cast<std::uint32_t>(data.size()));
  const std::size_t begin = out.size();
  out.insert(out.end(), type.begin(), type.end());
  out.insert(out.end(), data.begin(), data.end());
  append_u32(out, crc32(Bytes(out).subspan(begin)));
}

// The five filters of the specification (clause 9); `left` and `up_left` are 0 in the first pixel
// of a row.
std::uint8_t predict(int filter, int left, int up, int up_left) {
  switch (filter) {
    case 1:
      return static_cast<std::uint8_t>(left);
    case 2:
      return static_cast<std::uint8_t>(up);
    case 3:
      return static_cast<std::uint8_t>((left + up) / 2);
    case 4: {
      const int p = left + up - up_left;
      const int to_left = std::abs(p - left), to_up = std::abs(p - up),
                to_up_left = std::abs(p - up_left);
      if (to_left <= to_up && to_left <= to_up_left) return static_cast<std::uint8_t>(left);
      return static_cast<std::uint8_t>(to_up <= to_up_left ? up : up_left);
    }
    default:
      return 0;
  }
}

// Each row with the filter whose output has the smallest sum of magnitudes (the specification's
// advice, 12.8).
std::vector<std::uint8_t> filter_rows(const Bitmap& bitmap) {
  constexpr std::size_t kPixel = 3;
  const std::size_t stride = static_cast<std::size_t>(bitmap.width) * kPixel;
  std::vector<std::uint8_t> out;
  out.reserve((stride + 1) * static_cast<std::size_t>(bitmap.height));
  const std::vector<std::uint8_t> black(stride, 0);
  std::vector<std::uint8_t> candidate(stride), best(stride);
  for (std::int64_t y = 0; y < bitmap.height; ++y) {
    const std::uint8_t* row = bitmap.pixels.data() + static_cast<std::size_t>(y) * stride;
    const std::uint8_t* up = y == 0 ? black.data() : row - stride;
    std::size_t best_sum = std::numeric_limits<std::size_t>::max();
    std::uint8_t best_filter = 0;
    for (int filter = 0; filter <= 4; ++filter) {
      std::size_t sum = 0;
      for (std::size_t x = 0; x < stride; ++x) {
        const int left = x < kPixel ? 0 : row[x - kPixel];
        const int up_left = x < kPixel ? 0 : up[x - kPixel];
        candidate[x] = static_cast<std::uint8_t>(row[x] - predict(filter, left, up[x], up_left));
        sum += static_cast<std::size_t>(std::abs(static_cast<std::int8_t>(candidate[x])));
      }
      if (sum < best_sum) {
        best_sum = sum;
        best_filter = static_cast<std::uint8_t>(filter);
        best.swap(candidate);
      }
    }
    out.push_back(best_filter);
    out.insert(out.end(), best.begin(), best.end());
  }
  return out;
}

bool is_keyword(std::string_view keyword) {
  const bool printable =
      std::all_of(keyword.begin(), keyword.end(), [](char c) { return c >= ' ' && c <= '~'; });
  return !keyword.empty() && keyword.size() <= kLongestKeyword && printable &&
         keyword.front() != ' ' && keyword.back() != ' ' &&
         keyword.find("  ") == std::string_view::npos;
}

void append_text(std::vector<std::uint8_t>& out, const std::string& keyword,
                 const std::string& text) {
  if (!is_keyword(keyword)) {
    throw Failure(
        ErrorCode::kInvalidArgument,
        fmt::format("[image.png] want a keyword of 1 to {} printable ASCII characters, got '{}'",
                    kLongestKeyword, keyword));
  }
  auto characters = decode_utf8(text);
  if (!characters) {
    throw Failure(ErrorCode::kInvalidArgument,
                  fmt::format("[image.png] text of '{}': {}", keyword, characters.error().message));
  }
  bool latin = true;
  for (Character& character : *characters) {
    if (character.code == 0) character.code = 0xFFFD;
    latin = latin && character.code < 0x100;
  }
  std::string data = keyword + '\0';
  if (!latin) data.append(4, '\0');  // not compressed, method 0, no language, no translated keyword
  for (const Character& character : *characters) {
    latin ? data.push_back(static_cast<char>(character.code)) : append_utf8(character.code, data);
  }
  if (data.size() > kLargestChunk) {
    throw Failure(ErrorCode::kInvalidArgument,
                  fmt::format("[image.png] text of '{}': want at most {} bytes, got {}", keyword,
                              kLargestChunk, data.size()));
  }
  append_chunk(out, latin ? "tEXt" : "iTXt",
               Bytes(reinterpret_cast<const std::uint8_t*>(data.data()), data.size()));
}

void append_pixels(std::vector<std::uint8_t>& out, const Bitmap& bitmap) {
  constexpr std::size_t kChunk = 1u << 30;  // a chunk's length has 31 bits
  const std::vector<std::uint8_t> compressed = zlib_compress(filter_rows(bitmap));
  for (std::size_t at = 0; at < compressed.size(); at += kChunk) {
    append_chunk(out, "IDAT",
                 Bytes(compressed).subspan(at, std::min(kChunk, compressed.size() - at)));
  }
}

[[noreturn]] void broken(const std::string& what) {
  throw Failure(ErrorCode::kInvalidArgument, "[image.png] " + what);
}

std::size_t find_nul(std::string_view data, std::size_t from, std::size_t chunk_at) {
  const std::size_t nul = data.find('\0', from);
  if (nul == std::string_view::npos)
    broken(fmt::format("the text chunk at byte {} ends too early", chunk_at));
  return nul;
}

// Adds the text of one tEXt or uncompressed iTXt chunk.
void read_text(std::string_view type, std::string_view data, std::size_t chunk_at,
               std::map<std::string, std::string>& out) {
  const std::size_t keyword_end = find_nul(data, 0, chunk_at);
  const std::string keyword(data.substr(0, keyword_end));
  if (type == "tEXt") {
    std::string text;
    for (const char c : data.substr(keyword_end + 1))
      append_utf8(static_cast<unsigned char>(c), text);
    out[keyword] = std::move(text);
    return;
  }
  if (data.size() < keyword_end + 3)
    broken(fmt::format("the text chunk at byte {} ends too early", chunk_at));
  if (data[keyword_end + 1] != 0) return;  // compressed
  const std::size_t language_end = find_nul(data, keyword_end + 3, chunk_at);
  const std::size_t translated_end = find_nul(data, language_end + 1, chunk_at);
  const std::string_view text = data.substr(translated_end + 1);
  if (const auto valid = decode_utf8(text); !valid) {
    broken(fmt::format("the text chunk at byte {}: {}", chunk_at, valid.error().message));
  }
  out[keyword] = std::string(text);
}

std::map<std::string, std::string> read_chunks(Bytes bytes) {
  if (bytes.size() < kSignature.size() ||
      !std::equal(kSignature.begin(), kSignature.end(), bytes.begin())) {
    broken("want a PNG, got something else");
  }
  constexpr std::size_t kFrame = 12;  // length, type and checksum
  std::map<std::string, std::string> text;
  for (std::size_t at = kSignature.size();;) {
    const Bytes rest = bytes.subspan(at);
    if (rest.size() < kFrame)
      broken(fmt::format("the file ends at byte {}, before its IEND chunk", bytes.size()));
    const std::size_t length = read_u32(rest);
    if (length > kLargestChunk || length > rest.size() - kFrame) {
      broken(fmt::format("the chunk at byte {} says it has {} bytes, {} are left", at, length,
                         rest.size() - kFrame));
    }
    if (crc32(rest.subspan(4, length + 4)) != read_u32(rest.subspan(length + 8))) {
      broken(fmt::format("the chunk at byte {} has a wrong checksum", at));
    }
    const auto* chars = reinterpret_cast<const char*>(rest.data());
    const std::string_view type(chars + 4, 4);
    if (type == "tEXt" || type == "iTXt") read_text(type, {chars + 8, length}, at, text);
    if (type == "IEND") return text;
    at += length + kFrame;
  }
}

}  // namespace

Result<std::vector<std::uint8_t>> encode_png(const Bitmap& bitmap,
                                             const std::map<std::string, std::string>& text) {
  try {
    std::vector<std::uint8_t> out(kSignature.begin(), kSignature.end());
    std::vector<std::uint8_t> header;
    append_u32(header, static_cast<std::uint32_t>(bitmap.width));
    append_u32(header, static_cast<std::uint32_t>(bitmap.height));
    header.insert(header.end(),
                  {8, 2, 0, 0, 0});  // 8 bits, RGB, deflate, the five filters, not interlaced
    append_chunk(out, "IHDR", header);
    for (const auto& [keyword, value] : text) append_text(out, keyword, value);
    append_pixels(out, bitmap);
    append_chunk(out, "IEND", {});
    return out;
  } catch (const Failure& failure) {
    return failure.error();
  }
}

Result<std::map<std::string, std::string>> read_png_text(std::span<const std::uint8_t> bytes) {
  try {
    return read_chunks(bytes);
  } catch (const Failure& failure) {
    return failure.error();
  }
}

}  // namespace limner::image
