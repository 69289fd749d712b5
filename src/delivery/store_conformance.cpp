#include "delivery/store_conformance.h"

#include <algorithm>
#include <set>
#include <thread>

#include "delivery/sweeper.h"

namespace limner::delivery {
namespace {

constexpr auto kDay = std::chrono::hours(24);

std::vector<std::uint8_t> bytes_of_text(std::string_view text) {
  return {text.begin(), text.end()};
}

std::vector<std::uint8_t> some_bytes(std::size_t count) {
  std::vector<std::uint8_t> bytes(count);
  std::uint32_t state = 7;
  for (auto& byte : bytes) byte = static_cast<std::uint8_t>((state = state * 1664525u + 99u) >> 24);
  return bytes;
}

}  // namespace

StoredObject StoreConformance::put(const Place& place, std::string_view text) {
  auto stored = store().put(place, bytes_of_text(text));
  EXPECT_TRUE(stored.ok()) << (stored ? "" : stored.error().message);
  return stored ? *stored : StoredObject{};
}

std::vector<std::string> StoreConformance::list(ListRequest request) {
  std::vector<std::string> keys;
  do {
    const auto page = store().list(request);
    EXPECT_TRUE(page.ok()) << (page ? "" : page.error().message);
    if (!page) return keys;
    for (const StoredObject& object : page->objects) keys.push_back(object.key.text());
    request.after = page->next;
  } while (!request.after.empty() && keys.size() < 1000);
  std::sort(keys.begin(), keys.end());
  return keys;
}

TEST_P(StoreConformance, WhatIsPutIsGotUnderTheNameOfItsContent) {
  const StoredObject stored = put({.account = "acme"}, "abc");
  EXPECT_EQ(stored.key.text(),
            "hot/acme/ba/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad.png");
  EXPECT_EQ(stored.bytes, 3u);
  const auto got = store().get(stored.key);
  ASSERT_TRUE(got.ok()) << got.error().message;
  EXPECT_EQ(*got, bytes_of_text("abc"));
  const auto head = store().head(stored.key);
  ASSERT_TRUE(head.ok()) << head.error().message;
  EXPECT_EQ(head->bytes, 3u);
  EXPECT_EQ(head->key, stored.key);
  EXPECT_LT(std::chrono::abs(head->stored_at - stored.stored_at), std::chrono::minutes(5));
}

TEST_P(StoreConformance, EmptyAndLargeObjectsComeBackWhole) {
  for (const std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{3} << 20}) {
    const auto bytes = some_bytes(count);
    const auto stored = store().put({.account = "acme", .extension = "bin"}, bytes);
    ASSERT_TRUE(stored.ok()) << stored.error().message;
    const auto got = store().get(stored->key);
    ASSERT_TRUE(got.ok()) << got.error().message;
    EXPECT_EQ(*got, bytes);
  }
}

TEST_P(StoreConformance, ARangeIsCutToWhatIsThere) {
  const auto key = put({.account = "acme"}, "0123456789").key;
  EXPECT_EQ(store().get(key, {.first = 2, .length = 3}).value(), bytes_of_text("234"));
  EXPECT_EQ(store().get(key, {.first = 7}).value(), bytes_of_text("789"));
  EXPECT_EQ(store().get(key, {.first = 9, .length = 100}).value(), bytes_of_text("9"));
  const auto behind = store().get(key, {.first = 10});
  ASSERT_FALSE(behind.ok());
  EXPECT_EQ(behind.error().code, ErrorCode::kInvalidArgument);
}

TEST_P(StoreConformance, WhatIsNotThereIsNotFound) {
  auto key = put({.account = "acme"}, "abc").key;
  key.account = "other";
  EXPECT_EQ(store().get(key).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(store().get(key, {.first = 1, .length = 1}).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(store().head(key).error().code, ErrorCode::kNotFound);
  EXPECT_FALSE(store().remove(key).value());
}

TEST_P(StoreConformance, TheSameBytesAreOneObjectOfAnAccountAClassAndAnExtension) {
  const auto key = put({.account = "acme"}, "abc").key;
  EXPECT_EQ(put({.account = "acme"}, "abc").key, key);
  const auto of_another = put({.account = "other"}, "abc").key;
  const auto warm = put({.account = "acme", .retention = Retention::kWarm}, "abc").key;
  const auto jpeg = put({.account = "acme", .extension = "jpg"}, "abc").key;
  EXPECT_EQ(list({}).size(), 3u);

  EXPECT_TRUE(store().remove(key).value());
  EXPECT_FALSE(store().head(key).ok());
  EXPECT_TRUE(store().head(of_another).ok());
  EXPECT_TRUE(store().head(warm).ok());
  EXPECT_TRUE(store().head(jpeg).ok());
}

TEST_P(StoreConformance, PagesListEachObjectOnce) {
  std::set<std::string> wanted;
  for (int i = 0; i < 7; ++i) {
    wanted.insert(put({.account = i % 2 == 0 ? "acme" : "acme-2"}, std::to_string(i)).key.text());
  }
  put({.account = "acme", .retention = Retention::kCold}, "cold");
  const auto listed = list({.limit = 2});
  EXPECT_EQ(listed, std::vector<std::string>(wanted.begin(), wanted.end()));
  EXPECT_EQ(list({.account = "acme", .limit = 2}).size(), 4u);
  EXPECT_EQ(list({.account = "acme-2", .limit = 3}).size(), 3u);
  EXPECT_EQ(list({.account = "acm"}).size(), 0u);
  EXPECT_EQ(list({.retention = Retention::kCold}).size(), 1u);
  EXPECT_EQ(list({.retention = Retention::kWarm}).size(), 0u);
}

TEST_P(StoreConformance, ListsAndRemovesByAge) {
  const StoredObject object = put({.account = "acme"}, "abc");
  EXPECT_EQ(list({.stored_before = object.stored_at - kDay}).size(), 0u);
  EXPECT_EQ(list({.stored_before = object.stored_at + kDay}).size(), 1u);
  EXPECT_FALSE(store().remove(object.key, object.stored_at - kDay).value());
  EXPECT_TRUE(store().head(object.key).ok());
  EXPECT_TRUE(store().remove(object.key, object.stored_at + kDay).value());
  EXPECT_FALSE(store().head(object.key).ok());
}

TEST_P(StoreConformance, ASweepTakesWhatIsOverAndNothingElse) {
  const StoredObject hot = put({.account = "acme"}, "a");
  put({.account = "acme", .retention = Retention::kWarm}, "b");
  put({.account = "acme", .retention = Retention::kCold}, "c");
  const Lifetimes lifetimes{.hot = kDay, .warm = 5 * kDay, .cold = {}};
  EXPECT_EQ(sweep(store(), lifetimes, hot.stored_at + kDay / 2)->objects, 0u);
  const auto swept = sweep(store(), lifetimes, hot.stored_at + 2 * kDay);
  ASSERT_TRUE(swept.ok()) << swept.error().message;
  EXPECT_EQ(swept->objects, 1u);
  EXPECT_EQ(swept->bytes, 1u);
  EXPECT_EQ(list({}).size(), 0u);
  EXPECT_EQ(list({.retention = Retention::kWarm}).size(), 1u);
  EXPECT_EQ(sweep(store(), lifetimes, hot.stored_at + 1000 * kDay)->objects, 1u);
  EXPECT_EQ(list({.retention = Retention::kCold}).size(), 1u);
}

TEST_P(StoreConformance, AnAccountThatLeavesTakesItsObjectsAlong) {
  for (const Retention retention : {Retention::kHot, Retention::kWarm, Retention::kCold}) {
    put({.account = "leaves", .retention = retention}, "a");
    put({.account = "leaves", .retention = retention}, "b");
    put({.account = "leaves-not", .retention = retention}, "a");
  }
  EXPECT_EQ(remove_account(store(), "leaves").value(), 6u);
  EXPECT_EQ(remove_account(store(), "leaves").value(), 0u);
  for (const Retention retention : {Retention::kHot, Retention::kWarm, Retention::kCold}) {
    EXPECT_EQ(list({.retention = retention}).size(), 1u);
  }
}

TEST_P(StoreConformance, NamesThatCouldLeaveThePlaceAreRefused) {
  const std::string accounts[] = {"", "..", "a/b", "a.b", "a b", std::string(65, 'a'), "\xc3\xa4"};
  for (const std::string& account : accounts) {
    EXPECT_EQ(store().put({.account = account}, {}).error().code, ErrorCode::kInvalidArgument)
        << account;
  }
  for (const char* extension : {"", "PNG", "a/b", "..", "png.exe", "ninechars"}) {
    EXPECT_EQ(store().put({.account = "a", .extension = extension}, {}).error().code,
              ErrorCode::kInvalidArgument)
        << extension;
  }
}

TEST_P(StoreConformance, ASignedUrlOpensItsObject) {
  const auto key = put({.account = "acme"}, "abc").key;
  const auto url = store().sign({.key = key, .download_name = "my picture \"1\".png"});
  ASSERT_TRUE(url.ok()) << url.error().message;
  const auto fetched = under_test().fetch(*url);
  ASSERT_TRUE(fetched.has_value()) << *url;
  EXPECT_EQ(*fetched, bytes_of_text("abc"));
}

TEST_P(StoreConformance, ASignedUrlOpensNothingElseAndNotForEver) {
  const auto key = put({.account = "acme"}, "abc").key;
  const auto other = put({.account = "acme"}, "def").key;
  std::string url = store().sign({.key = key}).value();
  const auto place = url.find(key.sha256);
  ASSERT_NE(place, std::string::npos);
  // The two-letter folder before it, too.
  url.replace(place - 3, 3 + 64, other.sha256.substr(0, 2) + "/" + other.sha256);
  EXPECT_FALSE(under_test().fetch(url).has_value());

  const std::string brief = store().sign({.key = key, .lifetime = std::chrono::seconds(1)}).value();
  std::this_thread::sleep_for(std::chrono::milliseconds(2300));
  EXPECT_FALSE(under_test().fetch(brief).has_value());
}

TEST_P(StoreConformance, ManyThreadsPutAndGet) {
  std::vector<std::jthread> threads;
  std::atomic<int> failures = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 8; ++i) {
        // Every second object is the same for all threads.
        const auto bytes =
            bytes_of_text(i % 2 == 0 ? std::to_string(i) : std::to_string(t * 100 + i));
        const auto stored = store().put({.account = "acme"}, bytes);
        if (!stored || store().get(stored->key).value() != bytes) ++failures;
      }
    });
  }
  threads.clear();
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(list({}).size(), 4u + 16u);
}

}  // namespace limner::delivery
