#include "platform/accounts/api_key.h"

#include <gtest/gtest.h>

#include <set>

#include "base/sha256.h"
#include "platform/accounts/account.h"

namespace limner::platform {
namespace {

// GitHub's documented example token "ghp_zQWB...": the same digits and the same sum.
TEST(ApiKey, ChecksumIsGitHubs) {
  EXPECT_EQ(base62_checksum("zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ"), "0mLq17");
}

// Python: zlib.crc32(text), written with 0-9A-Za-z.
TEST(ApiKey, ChecksumIsZlibsCrcInBase62) {
  EXPECT_EQ(base62_checksum(std::string(30, '0')), "2C8GjS");
  EXPECT_EQ(base62_checksum(std::string(30, 'z')), "4IlJEz");
  EXPECT_EQ(base62_checksum("0123456789ABCDEFGHIJKLMNOPQRST"), "4PMbyp");
  EXPECT_EQ(base62_checksum("limnerlimnerlimnerlimnerlimner"), "4GZAFD");
}

TEST(ApiKey, EveryKeyMadeIsWellFormedAndNew) {
  std::set<std::string> seen;
  for (int i = 0; i < 2000; ++i) {
    const std::string key = make_api_key();
    EXPECT_EQ(key.size(), 40u);
    EXPECT_TRUE(key.starts_with("lmn_"));
    EXPECT_TRUE(check_api_key(key).ok());
    EXPECT_TRUE(seen.insert(key).second);
  }
}

TEST(ApiKey, DigitsAreUniform) {
  // 62,000 digits: each of 62 expected 1,000 times, standard deviation 31; six of them allowed.
  std::array<int, 128> counts{};
  for (const char c : random_base62(62'000)) ++counts[static_cast<unsigned char>(c)];
  for (const char c :
       std::string("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")) {
    EXPECT_NEAR(counts[static_cast<unsigned char>(c)], 1000, 190) << c;
  }
}

TEST(ApiKey, EveryChangedDigitAndSwappedPairIsNoticed) {
  const std::string key = "lmn_limnerlimnerlimnerlimnerlimner4GZAFD";
  ASSERT_TRUE(check_api_key(key).ok());
  for (std::size_t i = 4; i < key.size(); ++i) {
    std::string other = key;
    other[i] = other[i] == 'q' ? 'Q' : 'q';
    EXPECT_FALSE(check_api_key(other).ok()) << other;
    other = key;
    if (i > 4 && other[i] != other[i - 1]) {
      std::swap(other[i], other[i - 1]);
      EXPECT_FALSE(check_api_key(other).ok()) << other;
    }
  }
}

TEST(ApiKey, SaysWhatIsWrongAndNeverRepeatsTheText) {
  const auto message = [](std::string_view text) {
    const auto checked = check_api_key(text);
    EXPECT_FALSE(checked.ok());
    EXPECT_EQ(checked.error().code, ErrorCode::kUnauthenticated);
    return checked.error().message;
  };
  EXPECT_NE(message("").find("is wanted"), std::string::npos);
  for (const std::string text :
       {"sk-proj-1234567890", "lmn_short", "LMN_limnerlimnerlimnerlimnerlimner4GZAFD",
        "lmn_limnerlimnerlimnerlimner limner4GZAFD",
        "lmn_limnerlimnerlimnerlimnerlimne\xc3\xa9"
        "4GZAF"}) {
    EXPECT_NE(message(text).find("no API key of limner"), std::string::npos) << text;
    EXPECT_EQ(message(text).find(text), std::string::npos);
  }
  const std::string mistyped = "lmn_limnerlimnerlimnerlimnerlimneR4GZAFD";
  EXPECT_NE(message(mistyped).find("mistyped"), std::string::npos);
  EXPECT_EQ(message(mistyped).find("limneR"), std::string::npos);
}

TEST(ApiKey, HashIsSha256) {  // printf %s KEY | sha256sum
  EXPECT_EQ(to_hex(hash_api_key("lmn_limnerlimnerlimnerlimnerlimner4GZAFD")),
            "4e91ddcec78b169667348b3f23894c10492afe59199cd26a505d5628a55f4877");
}

TEST(ApiKey, ConstantTimeComparisonIsEquality) {
  const KeyHash hash = hash_api_key("a");
  EXPECT_TRUE(equal_in_constant_time(hash, hash));
  for (std::size_t i = 0; i < hash.size(); ++i) {
    KeyHash other = hash;
    other[i] ^= 1;
    EXPECT_FALSE(equal_in_constant_time(hash, other));
  }
}

TEST(ApiKey, IsShownByItsEnds) {
  EXPECT_EQ(shown_api_key("lmn_limnerlimnerlimnerlimnerlimner4GZAFD"), "lmn_limn...ZAFD");
}

TEST(Scopes, AreReadAndWritten) {
  EXPECT_EQ(*parse_scopes("read"), (Scopes{.read = true}));
  EXPECT_EQ(*parse_scopes("admin,generate"), (Scopes{.generate = true, .admin = true}));
  EXPECT_EQ(to_string(*parse_scopes("admin,read,generate")), "generate,read,admin");
  for (const char* text : {"", ",", "read,", ",read", "write", "read generate"}) {
    EXPECT_FALSE(parse_scopes(text).ok()) << text;
  }
  EXPECT_NE(parse_scopes("genrate").error().message.find("did you mean generate"),
            std::string::npos);
}

TEST(AccountName, HasASmallAlphabet) {
  for (const char* name : {"a", "ada", "team-7_X"}) {
    EXPECT_TRUE(check_account_name(name).ok()) << name;
  }
  for (const std::string name : {"", "a b", "a/b", "a\nb", "\xc3\xa9"}) {
    EXPECT_FALSE(check_account_name(name).ok()) << name;
  }
  EXPECT_TRUE(check_account_name(std::string(64, 'a')).ok());
  EXPECT_FALSE(check_account_name(std::string(65, 'a')).ok());
}

}  // namespace
}  // namespace limner::platform
