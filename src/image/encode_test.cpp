#include "image/encode.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <stdexcept>

#include "base/utf8.h"
#include "image/deflate.h"

namespace limner::image {
namespace {

using Bytes = std::vector<std::uint8_t>;

// A reader of zlib streams written from RFC 1951 alone, to check the writer against something else
// than itself.
class Inflater {
 public:
  explicit Inflater(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}

  Bytes run() {
    if ((bits(8) * 256 + bits(8)) % 31 != 0) throw std::runtime_error("zlib header");
    for (bool last = false; !last;) {
      last = bits(1) != 0;
      switch (bits(2)) {
        case 0:
          stored();
          break;
        case 1: {
          std::vector<int> lengths(288, 8);
          std::fill(lengths.begin() + 144, lengths.begin() + 256, 9);
          std::fill(lengths.begin() + 256, lengths.begin() + 280, 7);
          block(lengths, std::vector<int>(30, 5));
          break;
        }
        case 2:
          dynamic();
          break;
        default:
          throw std::runtime_error("block type");
      }
    }
    bit_ = (bit_ + 7) / 8 * 8;
    std::uint32_t a = 1, b = 0, sum = 0;
    for (const std::uint8_t byte : out_) {
      a = (a + byte) % 65521;
      b = (b + a) % 65521;
    }
    for (int i = 0; i < 4; ++i) sum = sum << 8 | bits(8);
    if (sum != (b << 16 | a)) throw std::runtime_error("checksum");
    if (bit_ != bytes_.size() * 8) throw std::runtime_error("bytes left over");
    return out_;
  }

 private:
  std::uint32_t bits(int count) {
    std::uint32_t value = 0;
    for (int i = 0; i < count; ++i, ++bit_) {
      if (bit_ / 8 >= bytes_.size()) throw std::runtime_error("too short");
      value |= static_cast<std::uint32_t>((bytes_[bit_ / 8] >> (bit_ % 8)) & 1) << i;
    }
    return value;
  }

  void stored() {
    bit_ = (bit_ + 7) / 8 * 8;
    const std::uint32_t size = bits(16);
    if ((size ^ bits(16)) != 0xFFFF) throw std::runtime_error("stored length");
    for (std::uint32_t i = 0; i < size; ++i) out_.push_back(static_cast<std::uint8_t>(bits(8)));
  }

  int symbol(const std::vector<int>& lengths) {
    int code = 0, first = 0;
    for (int length = 1; length < 16; ++length) {
      code = code << 1 | static_cast<int>(bits(1));
      first <<= 1;
      for (std::size_t s = 0; s < lengths.size(); ++s) {
        if (lengths[s] == length && code == first++) return static_cast<int>(s);
      }
    }
    throw std::runtime_error("code");
  }

  void dynamic() {
    constexpr int kOrder[] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    const std::size_t literals = bits(5) + 257, distances = bits(5) + 1, count = bits(4) + 4;
    std::vector<int> code_lengths(19), lengths;
    for (std::size_t i = 0; i < count; ++i) code_lengths[kOrder[i]] = static_cast<int>(bits(3));
    while (lengths.size() < literals + distances) {
      const int s = symbol(code_lengths);
      if (s < 16) lengths.push_back(s);
      if (s == 16) lengths.insert(lengths.end(), bits(2) + 3, lengths.back());
      if (s == 17) lengths.insert(lengths.end(), bits(3) + 3, 0);
      if (s == 18) lengths.insert(lengths.end(), bits(7) + 11, 0);
    }
    const auto middle = lengths.begin() + static_cast<std::ptrdiff_t>(literals);
    block({lengths.begin(), middle}, {middle, lengths.end()});
  }

  void block(const std::vector<int>& literals, const std::vector<int>& distances) {
    for (;;) {
      const int s = symbol(literals);
      if (s == 256) return;
      if (s < 256) {
        out_.push_back(static_cast<std::uint8_t>(s));
        continue;
      }
      const int l = s - 257;
      const int length_bits = l < 8 || l == 28 ? 0 : l / 4 - 1;
      const std::size_t length =
          l < 8     ? static_cast<std::size_t>(l) + 3
          : l == 28 ? 258
                    : (static_cast<std::size_t>(4 + l % 4) << length_bits) + 3 + bits(length_bits);
      const int d = symbol(distances);
      const int distance_bits = d < 4 ? 0 : d / 2 - 1;
      const std::size_t distance =
          d < 4 ? static_cast<std::size_t>(d) + 1
                : (static_cast<std::size_t>(2 + d % 2) << distance_bits) + 1 + bits(distance_bits);
      if (distance > out_.size()) throw std::runtime_error("distance");
      for (std::size_t i = 0; i < length; ++i) out_.push_back(out_[out_.size() - distance]);
    }
  }

  std::span<const std::uint8_t> bytes_;
  std::size_t bit_ = 0;
  Bytes out_;
};

std::size_t u32(std::span<const std::uint8_t> b) {
  return static_cast<std::size_t>(b[0]) << 24 | static_cast<std::size_t>(b[1]) << 16 |
         static_cast<std::size_t>(b[2]) << 8 | b[3];
}

Bitmap decode_png(const Bytes& png) {
  Bitmap bitmap;
  Bytes compressed;
  for (std::size_t at = 8; at < png.size();) {
    const std::size_t length = u32(std::span(png).subspan(at));
    const std::string type(png.begin() + static_cast<std::ptrdiff_t>(at) + 4,
                           png.begin() + static_cast<std::ptrdiff_t>(at) + 8);
    const auto data = std::span(png).subspan(at + 8, length);
    if (type == "IHDR") {
      bitmap.width = static_cast<std::int64_t>(u32(data));
      bitmap.height = static_cast<std::int64_t>(u32(data.subspan(4)));
    }
    if (type == "IDAT") compressed.insert(compressed.end(), data.begin(), data.end());
    at += length + 12;
  }
  const Bytes rows = Inflater(compressed).run();
  const std::size_t stride = static_cast<std::size_t>(bitmap.width) * 3;
  if (rows.size() != (stride + 1) * static_cast<std::size_t>(bitmap.height))
    throw std::runtime_error("rows");
  Bytes& out = bitmap.pixels;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (i % (stride + 1) == 0) continue;
    const int filter = rows[i - i % (stride + 1)];
    const std::size_t x = i % (stride + 1) - 1;
    const bool top = out.size() < stride;
    const int a = x < 3 ? 0 : out[out.size() - 3];
    const int b = top ? 0 : out[out.size() - stride];
    const int c = top || x < 3 ? 0 : out[out.size() - stride - 3];
    const int p = a + b - c;
    const int near = std::min({std::abs(p - a), std::abs(p - b), std::abs(p - c)});
    const int paeth = near == std::abs(p - a) ? a : near == std::abs(p - b) ? b : c;
    const int predicted[] = {0, a, b, (a + b) / 2, paeth};
    out.push_back(static_cast<std::uint8_t>(rows[i] + predicted[filter]));
  }
  return bitmap;
}

// kind 0: noise, 1: a gradient, 2: flat areas.
Bitmap picture(std::int64_t width, std::int64_t height, int kind, unsigned seed = 1) {
  std::mt19937 draw(seed);
  Bitmap bitmap{width, height, {}};
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t x = 0; x < width; ++x) {
      for (int c = 0; c < 3; ++c) {
        const auto value = kind == 0   ? draw()
                           : kind == 1 ? static_cast<unsigned>(x * 2 + y * (c + 1))
                                       : (x / 9 + y / 7) % 3 * 90u;
        bitmap.pixels.push_back(static_cast<std::uint8_t>(value));
      }
    }
  }
  return bitmap;
}

TEST(Deflate, WhatWasCompressedComesBack) {
  std::mt19937 draw(9);
  for (int round = 0; round < 40; ++round) {
    Bytes bytes;
    const std::size_t size =
        round < 8 ? static_cast<std::size_t>(round) : draw() % (round == 8 ? 90000 : 20000);
    const unsigned symbols = 1 + draw() % (round % 3 == 0 ? 256 : 4);
    while (bytes.size() < size) bytes.push_back(static_cast<std::uint8_t>(draw() % symbols));
    if (round % 4 == 0)
      bytes.insert(bytes.end(), bytes.begin(), bytes.end());  // matches at far distances
    ASSERT_EQ(Inflater(zlib_compress(bytes)).run(), bytes) << round;
  }
}

TEST(Deflate, RepetitionBecomesSmall) {
  EXPECT_LT(zlib_compress(Bytes(100000, 7)).size(), 1500u);
}

TEST(Png, PixelsOfAnySizeComeBack) {
  const std::pair<int, int> sizes[] = {{1, 1},   {1, 7},   {7, 1},     {2, 3},    {3, 2},
                                       {17, 31}, {64, 64}, {127, 129}, {1000, 1}, {1, 1000}};
  for (const auto& [width, height] : sizes) {
    for (int kind = 0; kind < 3; ++kind) {
      const Bitmap bitmap = picture(width, height, kind);
      const auto png = encode(bitmap, {});
      ASSERT_TRUE(png.ok()) << png.error().message;
      const Bitmap back = decode_png(*png);
      EXPECT_EQ(back.width, width);
      EXPECT_EQ(back.height, height);
      EXPECT_TRUE(back.pixels == bitmap.pixels) << width << "x" << height << " kind " << kind;
      EXPECT_TRUE(read_png_text(*png)->empty());
    }
  }
}

TEST(Png, SameBytesTwiceAndNothingButPixelsAndText) {
  const EncodeOptions options{.text = {{"parameters", "a"}}};
  const Bitmap bitmap = picture(32, 32, 1);
  const auto png = encode(bitmap, options);
  EXPECT_EQ(*png, *encode(bitmap, options));
  std::vector<std::string> types;
  for (std::size_t at = 8; at < png->size(); at += u32(std::span(*png).subspan(at)) + 12) {
    types.emplace_back(png->begin() + static_cast<std::ptrdiff_t>(at) + 4,
                       png->begin() + static_cast<std::ptrdiff_t>(at) + 8);
  }
  EXPECT_EQ(types, (std::vector<std::string>{"IHDR", "tEXt", "IDAT", "IEND"}));
}

TEST(Png, TextComesBackAndIsLatin1WherePossible) {
  const std::string texts[] = {"",
                               "plain, ASCII\nSteps: 3",
                               "caf\u00e9 \u00ff",
                               "\u732b \U0001F600 \u0152",
                               std::string(100000, 'x'),
                               "\u0100"};
  for (const std::string& text : texts) {
    const auto png =
        encode(picture(3, 3, 0), {.text = {{"parameters", text}, {"Title", "\u00e9"}}});
    ASSERT_TRUE(png.ok());
    const auto read = read_png_text(*png);
    ASSERT_TRUE(read.ok()) << read.error().message;
    EXPECT_EQ(read->at("parameters"), text);
    EXPECT_EQ(read->at("Title"), "\u00e9");
    const auto characters = decode_utf8(text);
    const bool latin = std::all_of(characters->begin(), characters->end(),
                                   [](const auto& c) { return c.code < 256; });
    const std::string_view marker = "iTXt";
    EXPECT_EQ(std::search(png->begin(), png->end(), marker.begin(), marker.end()) == png->end(),
              latin);
  }
  EXPECT_EQ(
      read_png_text(*encode(picture(1, 1, 0), {.text = {{"a", std::string("x\0y", 3)}}}))->at("a"),
      "x\uFFFDy");
}

TEST(Png, AKeywordOrTextThatCannotBeHeldIsAnError) {
  const std::pair<std::string, std::string> wrong[] = {{"", "a"},     {std::string(80, 'k'), "a"},
                                                       {" a", "a"},   {"a\n", "a"},
                                                       {"a  b", "a"}, {"\u00e9", "a"},
                                                       {"a", "\xff"}};
  for (const auto& [keyword, text] : wrong) {
    const auto png = encode(picture(1, 1, 0), {.text = {{keyword, text}}});
    ASSERT_FALSE(png.ok()) << keyword;
    EXPECT_EQ(png.error().code, ErrorCode::kInvalidArgument);
  }
}

TEST(Encode, ABitmapThatIsNotWhatItSaysIsAnError) {
  const Bitmap wrong[] = {
      {0, 1, {}},        {1, 0, {}},        {-1, -1, {1, 2, 3}},        {2, 2, Bytes(11)},
      {2, 2, Bytes(13)}, {2, 2, Bytes(15)}, {1LL << 40, 1LL << 40, {}}, {1LL << 31, 1, Bytes(3)}};
  for (const Bitmap& bitmap : wrong) {
    for (const Format format : {Format::kPng, Format::kJpeg, Format::kWebp, Format::kAvif}) {
      const auto bytes = encode(bitmap, {.format = format});
      ASSERT_FALSE(bytes.ok());
      EXPECT_EQ(bytes.error().code, ErrorCode::kInvalidArgument);
    }
  }
  for (const int quality : {0, -1, 101})
    EXPECT_FALSE(encode(picture(2, 2, 0), {.format = Format::kJpeg, .quality = quality}).ok());
  EXPECT_NE(encode({20000, 1, Bytes(60000)}, {.format = Format::kWebp})
                .error()
                .message.find("16383 pixels for webp, got 20000x1"),
            std::string::npos);
}

TEST(Encode, FormatsHaveNames) {
  EXPECT_EQ(*format_from_name("png"), Format::kPng);
  EXPECT_EQ(*format_from_name("jpg"), Format::kJpeg);
  EXPECT_EQ(*format_from_name("jpeg"), Format::kJpeg);
  EXPECT_EQ(*format_from_name("avif"), Format::kAvif);
  EXPECT_EQ(extension(Format::kWebp), ".webp");
  EXPECT_EQ(
      format_from_name("wepb").error().message,
      "[image.encode] want png, jpeg, webp or avif as the format, got 'wepb' (did you mean webp?)");
}

TEST(Encode, WithoutAnEncoderTheErrorSaysWhatToInstall) {
  for (const Format format : {Format::kJpeg, Format::kWebp, Format::kAvif}) {
    const auto bytes = encode(picture(8, 8, 1), {.format = format});
    if (bytes.ok()) continue;  // encode_vips_test.cpp looks at these
    EXPECT_EQ(bytes.error().code, ErrorCode::kUnsupported);
    EXPECT_NE(bytes.error().message.find("install libvips"), std::string::npos)
        << bytes.error().message;
  }
}

TEST(Encode, ParametersTooLongForAJpegAreAnError) {
  const auto bytes = encode(picture(2, 2, 0), {.format = Format::kJpeg,
                                               .text = {{"parameters", std::string(40000, 'x')}}});
  ASSERT_FALSE(bytes.ok());
  EXPECT_EQ(bytes.error().code, ErrorCode::kInvalidArgument);
}

TEST(ReadPngText, SaysWhereAFileIsBroken) {
  const Bytes png = *encode(picture(5, 5, 0), {.text = {{"a", "b"}, {"u", "\u732b"}}});
  ASSERT_TRUE(read_png_text(png).ok());
  for (std::size_t size = 0; size < png.size(); ++size) {
    const auto text = read_png_text(std::span(png).first(size));
    ASSERT_FALSE(text.ok()) << size;
    EXPECT_EQ(text.error().code, ErrorCode::kInvalidArgument);
  }
  const auto damaged = [&](std::size_t at, std::uint8_t value) {
    Bytes copy = png;
    copy[at] = value;
    return read_png_text(copy).error().message;
  };
  EXPECT_NE(damaged(0, 0).find("want a PNG"), std::string::npos);
  EXPECT_NE(damaged(8, 0xFF).find("the chunk at byte 8 says it has"), std::string::npos);
  EXPECT_NE(damaged(8, 0x7F).find("the chunk at byte 8 says it has"), std::string::npos);
  EXPECT_NE(damaged(20, 0xFF).find("the chunk at byte 8 has a wrong checksum"), std::string::npos);
}

// Chunks with right checksums and wrong insides, and bytes at random places.
TEST(ReadPngText, SurvivesAnyBytes) {
  std::mt19937 draw(4);
  const Bytes png = *encode(picture(2, 2, 0), {.text = {{"parameters", "red"}, {"u", "\u732b"}}});
  std::vector<std::uint32_t> crc(256);
  for (std::uint32_t n = 0; n < 256; ++n) {
    crc[n] = n;
    for (int k = 0; k < 8; ++k) crc[n] = crc[n] & 1 ? 0xEDB88320u ^ crc[n] >> 1 : crc[n] >> 1;
  }
  for (int round = 0; round < 30000; ++round) {
    Bytes bytes = png;
    if (round % 2 == 0) {
      for (auto n = 1 + draw() % 4; n > 0; --n)
        bytes[draw() % bytes.size()] = static_cast<std::uint8_t>(draw());
      bytes.resize(bytes.size() - draw() % 9);
    } else {
      bytes.resize(33);  // signature and header
      const std::size_t size = draw() % 12;
      Bytes chunk = {0,
                     0,
                     0,
                     static_cast<std::uint8_t>(size),
                     static_cast<std::uint8_t>(draw() % 2 ? 'i' : 't'),
                     0,
                     0,
                     't'};
      chunk[5] = chunk[4] == 'i' ? 'T' : 'E';
      chunk[6] = 'X';
      for (std::size_t i = 0; i < size; ++i)
        chunk.push_back(static_cast<std::uint8_t>(draw() % 3 ? draw() % 2 : draw()));
      std::uint32_t sum = 0xFFFFFFFFu;
      for (std::size_t i = 4; i < chunk.size(); ++i) sum = crc[(sum ^ chunk[i]) & 255] ^ sum >> 8;
      for (int shift = 24; shift >= 0; shift -= 8)
        chunk.push_back(static_cast<std::uint8_t>(~sum >> shift));
      bytes.insert(bytes.end(), chunk.begin(), chunk.end());
      bytes.insert(bytes.end(), png.end() - 12, png.end());
    }
    const auto text = read_png_text(bytes);
    EXPECT_TRUE(text.ok() || text.error().code == ErrorCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace limner::image
