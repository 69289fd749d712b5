#include "platform/http/content.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace limner::platform::http {
namespace {

std::vector<std::byte> head(std::uint64_t length, std::string_view after) {
  std::vector<std::byte> bytes(8 + after.size());
  std::memcpy(bytes.data(), &length, 8);
  std::memcpy(bytes.data() + 8, after.data(), after.size());
  return bytes;
}

bool taken(const std::vector<std::byte>& bytes, std::optional<std::uint64_t> total = {}) {
  try {
    check_head(bytes, total, Content::kSafetensors, "x");
    return true;
  } catch (const Failure&) {
    return false;
  }
}

TEST(Content, EveryHeaderLengthUpToTheCapMayBe) {
  // 60 is '<' and 0x04034b50 begins a zip archive: lengths may look like anything.
  for (const std::uint64_t length : {2u, 60u, 0x7bu, 0x8b1fu, 0x0403'4b50u, 100'000'000u}) {
    EXPECT_EQ(taken(head(length, "{\"a\": ")), length <= 100'000'000) << length;
  }
  EXPECT_FALSE(taken(head(0, "{}")));
  EXPECT_FALSE(taken(head(1, "{}")));
  EXPECT_FALSE(taken(head(100'000'001, "{\"a\"")));
  EXPECT_FALSE(taken(head(~std::uint64_t{0}, "{\"a\"")));
  EXPECT_FALSE(taken(head(10, " {}")));
  EXPECT_FALSE(taken(head(100, "{\"a\""), 107));
  EXPECT_TRUE(taken(head(100, "{\"a\""), 108));
  EXPECT_FALSE(taken({}));
}

}  // namespace
}  // namespace limner::platform::http
