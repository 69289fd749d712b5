#include "delivery/signed_url.h"

#include <gtest/gtest.h>

#include "delivery/crypto.h"
#include "delivery/percent.h"

namespace limner::delivery {
namespace {

using std::chrono::seconds;

constexpr std::chrono::sys_seconds kNow{seconds(1'700'000'000)};

SigningKey key(std::string id, std::uint8_t fill) {
  return {std::move(id), std::vector<std::uint8_t>(32, fill)};
}

struct Parts {
  std::string path, query;
};
Parts split(const std::string& url) {
  const auto question = url.find('?');
  return {url.substr(0, question), url.substr(question + 1)};
}

// Python: base64.urlsafe_b64encode(hmac.new(bytes([7])*32, b"limner-url-v1\n/v1/artifacts/a.png\n"
// b"1700003600\nk1\nmy%20cat.png", "sha256").digest()).rstrip(b"=")
TEST(UrlSigner, TheSignatureIsTheStatedOne) {
  const UrlSigner signer = UrlSigner::make(key("k1", 7)).value();
  EXPECT_EQ(signer.sign({"/v1/artifacts/a.png", kNow + std::chrono::hours(1), "my cat.png"}),
            "/v1/artifacts/a.png?expires=1700003600&key=k1&download=my%20cat.png&signature="
            "H7unkVIoFcyWMIxmTOuJKET8YWZ0Sl9yozLoeYZ5Rmg");
}

TEST(UrlSigner, OpensUntilItExpiresAndNoLonger) {
  const UrlSigner signer = UrlSigner::make(key("k1", 7)).value();
  const auto [path, query] = split(signer.sign({"/a/b.png", kNow + seconds(10)}));
  EXPECT_TRUE(signer.verify(path, query, kNow).ok());
  EXPECT_TRUE(signer.verify(path, query, kNow + std::chrono::milliseconds(9999)).ok());
  const auto late = signer.verify(path, query, kNow + seconds(10));
  ASSERT_FALSE(late.ok());
  EXPECT_EQ(late.error().code, ErrorCode::kPermissionDenied);
  EXPECT_NE(late.error().message.find("expired"), std::string::npos);
}

TEST(UrlSigner, EveryAlteredCharacterIsSeen) {
  const UrlSigner signer = UrlSigner::make(key("k1", 7)).value();
  const auto [path, query] =
      split(signer.sign({"/a/b.png", kNow + seconds(3600), "caf\xc3\xa9 & co.png"}));
  ASSERT_TRUE(signer.verify(path, query, kNow).ok());
  for (std::size_t i = 0; i < path.size(); ++i) {
    std::string other = path;
    other[i] = static_cast<char>(other[i] ^ 1);
    EXPECT_FALSE(signer.verify(other, query, kNow).ok()) << other;
  }
  for (std::size_t i = 0; i < query.size(); ++i) {
    for (const char bit : {1, 2, 4, 32}) {
      std::string other = query;
      other[i] = static_cast<char>(other[i] ^ bit);
      EXPECT_FALSE(signer.verify(path, other, kNow).ok()) << other;
    }
    std::string shorter = query;
    shorter.erase(i, 1);
    EXPECT_FALSE(signer.verify(path, shorter, kNow).ok()) << shorter;
  }
}

TEST(UrlSigner, PartsMovedAddedOrLeftOutAreSeen) {
  const UrlSigner signer = UrlSigner::make(key("k1", 7)).value();
  const auto [path, query] = split(signer.sign({"/a/b.png", kNow + seconds(3600)}));
  const std::string signature = query.substr(query.find("&signature"));
  for (const std::string& other :
       {std::string(), query + "&", query + "&x=1", "x=1&" + query, "&" + query, query + signature,
        query.substr(0, query.find("&signature")), "key=k1&expires=1700003600" + signature,
        "expires=1700003600&key=k1&download=" + signature,
        "expires=1700003600&key=k1&download=a.html" + signature,
        "expires=1700003600&expires=1900000000&key=k1" + signature,
        "expires=+1700003600&key=k1" + signature, "expires=1700003600&key=k2" + signature,
        query + "="}) {
    EXPECT_FALSE(signer.verify(path, other, kNow).ok()) << other;
  }
  EXPECT_FALSE(signer.verify("/a/b.png/", query, kNow).ok());
  EXPECT_FALSE(signer.verify("/a//b.png", query, kNow).ok());
}

TEST(UrlSigner, TheDownloadNameComesBackAsItWas) {
  const UrlSigner signer = UrlSigner::make(key("k1", 7)).value();
  const std::string name = "a \"b\"\r\n/..;&=+%\xe2\x98\x83.png";
  const auto [path, query] = split(signer.sign({"/a/b.png", kNow + seconds(60), name}));
  EXPECT_EQ(signer.verify(path, query, kNow)->download_name, name);
  EXPECT_EQ(query.find_first_of("\r\n \""), std::string::npos);
}

TEST(UrlSigner, AUrlOutlivesOneChangeOfKeysAndNotTwo) {
  const UrlSigner old = UrlSigner::make(key("k1", 7)).value();
  const auto [path, query] = split(old.sign({"/a/b.png", kNow + seconds(3600)}));
  const UrlSigner rotated = UrlSigner::make(key("k2", 8), key("k1", 7)).value();
  EXPECT_TRUE(rotated.verify(path, query, kNow).ok());
  const auto [new_path, new_query] = split(rotated.sign({"/a/b.png", kNow + seconds(3600)}));
  EXPECT_NE(new_query.find("key=k2"), std::string::npos);
  EXPECT_TRUE(rotated.verify(new_path, new_query, kNow).ok());
  EXPECT_FALSE(old.verify(new_path, new_query, kNow).ok());
  const UrlSigner again = UrlSigner::make(key("k3", 9), key("k2", 8)).value();
  EXPECT_FALSE(again.verify(path, query, kNow).ok());
  // The same id with another secret is another key.
  EXPECT_FALSE(UrlSigner::make(key("k1", 9))->verify(path, query, kNow).ok());
}

TEST(UrlSigner, WeakOrConfusingKeysAreRefused) {
  EXPECT_FALSE(UrlSigner::make({"k", std::vector<std::uint8_t>(31, 1)}).ok());
  EXPECT_FALSE(UrlSigner::make(key("", 1)).ok());
  EXPECT_FALSE(UrlSigner::make(key("a&b", 1)).ok());
  EXPECT_FALSE(UrlSigner::make(key("a", 1), key("a", 2)).ok());
}

// RFC 4231, test cases 2 and 6 (a key longer than a block).
TEST(Crypto, HmacOfTheStandard) {
  const auto hex = [](std::span<const std::uint8_t> bytes) {
    std::string text;
    for (const auto byte : bytes) {
      text += "0123456789abcdef"[byte >> 4];
      text += "0123456789abcdef"[byte & 15];
    }
    return text;
  };
  EXPECT_EQ(hex(hmac_sha256(bytes_of("Jefe"), "what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(hex(hmac_sha256(std::vector<std::uint8_t>(131, 0xaa),
                            "Test Using Larger Than Block-Size Key - Hash Key First")),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

// RFC 4648, section 10, and what a strict reader refuses.
TEST(Crypto, Base64OfTheStandard) {
  const std::pair<std::string_view, std::string_view> cases[] = {{"", ""},
                                                                 {"f", "Zg=="},
                                                                 {"fo", "Zm8="},
                                                                 {"foo", "Zm9v"},
                                                                 {"foob", "Zm9vYg=="},
                                                                 {"fooba", "Zm9vYmE="},
                                                                 {"foobar", "Zm9vYmFy"}};
  for (const auto& [plain, encoded] : cases) {
    EXPECT_EQ(base64(bytes_of(plain)), encoded);
    const auto decoded = from_base64(encoded);
    ASSERT_TRUE(decoded.has_value()) << encoded;
    EXPECT_EQ(std::string(decoded->begin(), decoded->end()), plain);
  }
  EXPECT_EQ(base64_url(std::vector<std::uint8_t>{0xfb, 0xff}), "-_8");
  for (const char* bad : {"Zg", "Zg=", "Zh==", "Z===", "====", "Zm9v\n", "Zm 9v", "Zm9-"}) {
    EXPECT_FALSE(from_base64(bad).has_value()) << bad;
  }
}

TEST(Percent, RoundTripsEveryByte) {
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  EXPECT_EQ(percent_decode(percent_encode(all)), all);
  EXPECT_EQ(percent_encode("a/b c~"), "a%2Fb%20c~");
  EXPECT_EQ(percent_encode("a/b", "/"), "a/b");
  for (const char* bad : {"%", "%4", "%zz", "a%g0"}) EXPECT_FALSE(percent_decode(bad).has_value());
}

}  // namespace
}  // namespace limner::delivery
