// Built where there is no zlib: matches from a hash of three bytes, written in one block with the
// fixed Huffman codes of RFC 1951, 3.2.6.
#include <algorithm>
#include <array>

#include "image/deflate.h"

namespace limner::image {
namespace {

constexpr std::size_t kShortest = 3;
constexpr std::size_t kLongest = 258;
constexpr std::size_t kFarthest = 32768;
constexpr int kTries = 16;  // earlier places looked at for each match
constexpr int kEndOfBlock = 256;

struct Code {
  std::uint16_t first;  // the shortest length or distance of this code
  int extra_bits;
};

constexpr Code kLengths[] = {
    {3, 0},  {4, 0},  {5, 0},  {6, 0},   {7, 0},   {8, 0},   {9, 0},   {10, 0},  {11, 1}, {13, 1},
    {15, 1}, {17, 1}, {19, 2}, {23, 2},  {27, 2},  {31, 2},  {35, 3},  {43, 3},  {51, 3}, {59, 3},
    {67, 4}, {83, 4}, {99, 4}, {115, 4}, {131, 5}, {163, 5}, {195, 5}, {227, 5}, {258, 0}};
constexpr Code kDistances[] = {{1, 0},     {2, 0},     {3, 0},      {4, 0},      {5, 1},
                               {7, 1},     {9, 2},     {13, 2},     {17, 3},     {25, 3},
                               {33, 4},    {49, 4},    {65, 5},     {97, 5},     {129, 6},
                               {193, 6},   {257, 7},   {385, 7},    {513, 8},    {769, 8},
                               {1025, 9},  {1537, 9},  {2049, 10},  {3073, 10},  {4097, 11},
                               {6145, 11}, {8193, 12}, {12289, 12}, {16385, 13}, {24577, 13}};

template <std::size_t size>
int code_of(const Code (&codes)[size], std::size_t value) {
  const Code* after =
      std::upper_bound(std::begin(codes), std::end(codes), value,
                       [](std::size_t v, const Code& code) { return v < code.first; });
  return static_cast<int>(after - std::begin(codes)) - 1;
}

class BitWriter {
 public:
  explicit BitWriter(std::vector<std::uint8_t>& out) : out_(out) {}

  void bits(std::uint32_t value, int count) {
    buffer_ |= value << held_;
    held_ += count;
    while (held_ >= 8) {
      out_.push_back(static_cast<std::uint8_t>(buffer_));
      buffer_ >>= 8;
      held_ -= 8;
    }
  }

  // Huffman codes go in with their highest bit first.
  void code(std::uint32_t value, int count) {
    std::uint32_t reversed = 0;
    for (int i = 0; i < count; ++i) reversed |= ((value >> i) & 1) << (count - 1 - i);
    bits(reversed, count);
  }

  void literal_or_length(int symbol) {
    const auto s = static_cast<std::uint32_t>(symbol);
    if (s < 144) {
      code(0x30 + s, 8);
    } else if (s < 256) {
      code(0x190 + s - 144, 9);
    } else if (s < 280) {
      code(s - 256, 7);
    } else {
      code(0xC0 + s - 280, 8);
    }
  }

  void match(std::size_t length, std::size_t distance) {
    const int l = code_of(kLengths, length);
    literal_or_length(kEndOfBlock + 1 + l);
    bits(static_cast<std::uint32_t>(length - kLengths[l].first), kLengths[l].extra_bits);
    const int d = code_of(kDistances, distance);
    code(static_cast<std::uint32_t>(d), 5);
    bits(static_cast<std::uint32_t>(distance - kDistances[d].first), kDistances[d].extra_bits);
  }

  void flush() { bits(0, (8 - held_) % 8); }

 private:
  std::vector<std::uint8_t>& out_;
  std::uint32_t buffer_ = 0;
  int held_ = 0;
};

std::uint32_t adler32(std::span<const std::uint8_t> bytes) {
  constexpr std::uint32_t kModulus = 65521;
  constexpr std::size_t kBlock = 5552;  // the most bytes before a 32-bit sum can overflow
  std::uint32_t a = 1, b = 0;
  while (!bytes.empty()) {
    const auto block = bytes.first(std::min(kBlock, bytes.size()));
    for (const std::uint8_t byte : block) {
      a += byte;
      b += a;
    }
    a %= kModulus;
    b %= kModulus;
    bytes = bytes.subspan(block.size());
  }
  return (b << 16) | a;
}

// Earlier places with the same three bytes, as chains through a window.
class Matches {
 public:
  explicit Matches(std::span<const std::uint8_t> bytes) : bytes_(bytes) {
    head_.fill(kNone);
    previous_.assign(kFarthest, kNone);
  }

  struct Match {
    std::size_t length = 0;
    std::size_t distance = 0;
  };

  Match longest(std::size_t at) const {
    Match best;
    if (at + kShortest > bytes_.size()) return best;
    const std::size_t most = std::min(kLongest, bytes_.size() - at);
    std::size_t candidate = head_[hash(at)];
    for (int i = 0; i < kTries && candidate != kNone && at - candidate <= kFarthest; ++i) {
      std::size_t length = 0;
      while (length < most && bytes_[candidate + length] == bytes_[at + length]) ++length;
      if (length > best.length) best = {length, at - candidate};
      const std::size_t next = previous_[candidate % kFarthest];
      if (next == kNone || next >= candidate) break;
      candidate = next;
    }
    return best;
  }

  void add(std::size_t at) {
    if (at + kShortest > bytes_.size()) return;
    std::size_t& head = head_[hash(at)];
    previous_[at % kFarthest] = head;
    head = at;
  }

 private:
  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);

  std::size_t hash(std::size_t at) const {
    const std::uint32_t three =
        bytes_[at] | (std::uint32_t{bytes_[at + 1]} << 8) | (std::uint32_t{bytes_[at + 2]} << 16);
    return (three * 2654435761u) >> 17;
  }

  std::span<const std::uint8_t> bytes_;
  std::array<std::size_t, 1 << 15> head_;
  std::vector<std::size_t> previous_;
};

}  // namespace

std::vector<std::uint8_t> zlib_compress(std::span<const std::uint8_t> bytes) {
  std::vector<std::uint8_t> out = {0x78, 0x01};
  BitWriter writer(out);
  writer.bits(1, 1);  // the last block
  writer.bits(1, 2);  // fixed codes
  Matches matches(bytes);
  for (std::size_t at = 0; at < bytes.size();) {
    const auto match = matches.longest(at);
    std::size_t step = 1;
    if (match.length >= kShortest) {
      writer.match(match.length, match.distance);
      step = match.length;
    } else {
      writer.literal_or_length(bytes[at]);
    }
    for (const std::size_t end = at + step; at < end; ++at) matches.add(at);
  }
  writer.literal_or_length(kEndOfBlock);
  writer.flush();
  const std::uint32_t sum = adler32(bytes);
  for (int shift = 24; shift >= 0; shift -= 8)
    out.push_back(static_cast<std::uint8_t>(sum >> shift));
  return out;
}

}  // namespace limner::image
