#include "base/sha256.h"

#include <gtest/gtest.h>

#include <random>
#include <string_view>
#include <vector>

namespace limner {
namespace {

std::string hash(std::string_view text) {
  return sha256_hex(std::as_bytes(std::span(text)));
}

// The example messages that NIST publishes with FIPS 180-4, and its million letters.
TEST(Sha256, GivesThePublishedDigests) {
  EXPECT_EQ(hash(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(hash("abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqk"
                 "lmnopqrlmnopqrs"
                 "mnopqrstnopqrstu"),
            "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
  EXPECT_EQ(hash(std::string(1'000'000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, DoesNotDependOnHowTheInputIsCut) {
  std::mt19937 random(7);
  std::string text(1000, '\0');
  for (char& c : text) c = static_cast<char>(random());
  for (int round = 0; round < 200; ++round) {
    const std::string_view all(text.data(), random() % text.size());
    Sha256 pieces;
    for (std::size_t at = 0; at < all.size();) {
      const std::size_t size = std::min<std::size_t>(all.size() - at, random() % 150);
      pieces.update(std::as_bytes(std::span(all.substr(at, size))));
      at += size;
    }
    EXPECT_EQ(to_hex(pieces.finish()), hash(all));
  }
}

TEST(Sha256, PortableAndFastBlocksAgree) {
  std::mt19937 random(8);
  std::vector<std::byte> blocks(64 * 50);
  for (std::byte& b : blocks) b = static_cast<std::byte>(random());
  std::array<std::uint32_t, 8> portable = {1, 2, 3, 4, 5, 6, 7, 8}, fast = portable;
  detail::sha256_blocks_portable(portable, blocks.data(), 50);
  detail::sha256_blocks()(fast, blocks.data(), 50);
  EXPECT_EQ(portable, fast);
}

}  // namespace
}  // namespace limner
