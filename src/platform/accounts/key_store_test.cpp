#include "platform/accounts/key_store.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <thread>

#include "platform/accounts/api_key.h"
#include "platform/audit/audit_log.h"
#include "platform/database.h"

namespace limner::platform {
namespace {

namespace fs = std::filesystem;

class KeyStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("limner_keys_" + std::to_string(getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    file_ = folder_ / "limner.db";
    store_ = open();
  }
  void TearDown() override {
    store_.reset();
    fs::remove_all(folder_);
  }

  std::unique_ptr<KeyStore> open() {
    auto store = KeyStore::open(file_, clock_);
    EXPECT_TRUE(store.ok()) << store.error().message;
    return std::move(*store);
  }
  NewKey create(const KeyRequest& request) {
    auto made = store_->create(request, "cli:test");
    EXPECT_TRUE(made.ok()) << made.error().message;
    return std::move(*made);
  }
  NewKey adas() { return create({"ada", "fast", {true, true, false}, 0}); }
  std::int64_t in(Millis time) const { return (clock_.wall() + time).count(); }

  ErrorCode refusal(const std::string& key) {
    const auto identity = store_->authenticate(key);
    EXPECT_FALSE(identity.ok());
    return identity.ok() ? ErrorCode::kInternal : identity.error().code;
  }
  std::vector<std::string> audited() {
    std::vector<std::string> actions;
    const auto entries = list_audit(file_, INT64_MAX, 1000);
    EXPECT_TRUE(entries.ok());
    for (const AuditEntry& entry : *entries) actions.push_back(entry.act.action);
    std::reverse(actions.begin(), actions.end());
    return actions;
  }

  fs::path folder_, file_;
  ManualClock clock_;
  std::unique_ptr<KeyStore> store_;
};

TEST_F(KeyStoreTest, KnowsWhoAsksAlsoAfterOpeningAgain) {
  const NewKey made = adas();
  EXPECT_TRUE(made.new_account);
  EXPECT_TRUE(check_api_key(made.key).ok());
  for (int round = 0; round < 2; ++round) {
    const auto identity = store_->authenticate(made.key);
    ASSERT_TRUE(identity.ok()) << identity.error().message;
    EXPECT_EQ(identity->key_id, made.about.id);
    EXPECT_EQ(identity->account, "ada");
    EXPECT_EQ(identity->tier, "fast");
    EXPECT_EQ(identity->scopes, (Scopes{true, true, false}));
    EXPECT_EQ(identity->limits.requests_per_minute, AccountLimits{}.requests_per_minute);
    store_.reset();
    store_ = open();
  }
}

TEST_F(KeyStoreTest, RefusesAForgedKeyAndOneOfAnotherService) {
  adas();
  EXPECT_EQ(refusal(make_api_key()), ErrorCode::kUnauthenticated);
  EXPECT_EQ(refusal(""), ErrorCode::kUnauthenticated);
  EXPECT_EQ(refusal("sk-1234"), ErrorCode::kUnauthenticated);
}

TEST_F(KeyStoreTest, NobodyButTheOwnerMayReadItsFiles) {
  adas();
  int files = 0;
  for (const auto& entry : fs::directory_iterator(folder_)) {  // the log and its index too
    EXPECT_EQ(entry.status().permissions(), fs::perms::owner_read | fs::perms::owner_write)
        << entry.path();
    ++files;
  }
  EXPECT_EQ(files, 3);
}

TEST_F(KeyStoreTest, NoByteOnTheDiskTellsAKey) {
  std::vector<std::string> keys;
  for (int i = 0; i < 20; ++i) keys.push_back(adas().key);
  keys.push_back(store_->rotate(store_->keys()->front().id, Millis{1000}, "cli:test")->key);
  for (const std::string& key : keys) EXPECT_TRUE(store_->authenticate(key).ok());
  ASSERT_TRUE(store_->flush().ok());
  std::string all;
  for (const auto& entry : fs::directory_iterator(folder_)) {  // with the write-ahead log
    std::ifstream in(entry.path(), std::ios::binary);
    all.append(std::istreambuf_iterator<char>(in), {});
  }
  EXPECT_NE(all.find(shown_api_key(keys.front())), std::string::npos);
  for (const std::string& key : keys) {
    // Not even half of the random digits.
    for (std::size_t i = kApiKeyPrefix.size(); i + 15 <= key.size(); i += 3) {
      EXPECT_EQ(all.find(key.substr(i, 15)), std::string::npos);
    }
  }
}

TEST_F(KeyStoreTest, ARevokedKeyIsRefusedAtOnce) {
  const NewKey one = adas(), other = adas();
  ASSERT_TRUE(store_->authenticate(one.key).ok());
  ASSERT_TRUE(store_->revoke(one.about.id, "cli:test").ok());
  EXPECT_EQ(refusal(one.key), ErrorCode::kUnauthenticated);
  EXPECT_TRUE(store_->authenticate(other.key).ok());
  EXPECT_TRUE(store_->revoke(one.about.id, "cli:test").ok());
  EXPECT_EQ(store_->revoke("key_none", "cli:test").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(audited(),
            (std::vector<std::string>{"account.create", "key.create", "key.create", "key.revoke"}));
}

TEST_F(KeyStoreTest, WhatAnotherProcessChangesTakesEffectWithinASecond) {
  const NewKey made = adas();
  ASSERT_TRUE(store_->authenticate(made.key).ok());
  const auto elsewhere = open();
  const auto fresh = elsewhere->create({"bob", "relax", {.read = true}, 0}, "cli:test");
  ASSERT_TRUE(elsewhere->revoke(made.about.id, "cli:test").ok());
  clock_.advance(KeyStore::kFollow);
  EXPECT_LT(KeyStore::kFollow, Millis{1000});
  EXPECT_EQ(refusal(made.key), ErrorCode::kUnauthenticated);
  EXPECT_EQ(store_->authenticate(fresh->key)->account, "bob");
}

TEST_F(KeyStoreTest, AKeyThatAnotherProcessMakesWorksAtOnce) {
  ASSERT_TRUE(store_->authenticate(adas().key).ok());
  const auto elsewhere = open();
  const auto fresh = elsewhere->create({"bob", "relax", {.read = true}, 0}, "cli:test");
  EXPECT_TRUE(store_->authenticate(fresh->key).ok());
}

TEST_F(KeyStoreTest, KeysExpire) {
  const NewKey made = create({"ada", "fast", {.read = true}, in(Millis{5000})});
  clock_.advance(Millis{4999});
  EXPECT_TRUE(store_->authenticate(made.key).ok());
  clock_.advance(Millis{1});
  EXPECT_EQ(refusal(made.key), ErrorCode::kUnauthenticated);
  EXPECT_FALSE(store_->create({"ada", "", {.read = true}, in(Millis{0})}, "cli:test").ok());
}

TEST_F(KeyStoreTest, RotationLetsBothKeysWorkForAWhile) {
  const NewKey old = create({"ada", "fast", {true, true, false}, 0});
  const auto made = store_->rotate(old.about.id, Millis{60'000}, "cli:test");
  ASSERT_TRUE(made.ok()) << made.error().message;
  EXPECT_NE(made->key, old.key);
  EXPECT_EQ(store_->authenticate(made->key)->scopes, (Scopes{true, true, false}));
  EXPECT_EQ(made->about.expires_at, 0);
  EXPECT_EQ(made->tier, "fast");
  clock_.advance(Millis{59'999});
  EXPECT_TRUE(store_->authenticate(old.key).ok());
  clock_.advance(Millis{1});
  EXPECT_EQ(refusal(old.key), ErrorCode::kUnauthenticated);
  EXPECT_TRUE(store_->authenticate(made->key).ok());
  EXPECT_EQ(store_->rotate(old.about.id, Millis{1}, "cli:test").error().code,
            ErrorCode::kInvalidArgument);
}

TEST_F(KeyStoreTest, RotationNeverMakesAKeyLiveLonger) {
  const NewKey old = create({"ada", "fast", {.read = true}, in(Millis{1000})});
  ASSERT_TRUE(store_->rotate(old.about.id, Millis{60'000}, "cli:test").ok());
  clock_.advance(Millis{1000});
  EXPECT_EQ(refusal(old.key), ErrorCode::kUnauthenticated);
}

TEST_F(KeyStoreTest, AKeyFollowsItsAccountsTierUnlessItHasItsOwn) {
  const NewKey follows = adas(), own = create({"ada", "turbo", {.read = true}, 0});
  EXPECT_EQ(store_->authenticate(own.key)->tier, "turbo");
  EXPECT_EQ(follows.tier, "fast");
  EXPECT_EQ(own.tier, "turbo");
  ASSERT_TRUE(store_->change_account("ada", {.tier = "relax"}, "cli:test").ok());
  EXPECT_EQ(store_->authenticate(follows.key)->tier, "relax");
  EXPECT_EQ(store_->authenticate(own.key)->tier, "turbo");
}

TEST_F(KeyStoreTest, ANewAccountWantsATierAndAName) {
  const auto made = store_->create({"ada", "", {.read = true}, 0}, "cli:test");
  ASSERT_FALSE(made.ok());
  EXPECT_EQ(made.error().code, ErrorCode::kInvalidArgument);
  EXPECT_FALSE(store_->create({"a b", "fast", {.read = true}, 0}, "cli:test").ok());
  EXPECT_FALSE(store_->create({"ada", "fast", {}, 0}, "cli:test").ok());
  EXPECT_TRUE(store_->accounts()->empty());
  EXPECT_TRUE(audited().empty());
}

TEST_F(KeyStoreTest, LimitsOfAnAccountReachItsKeys) {
  const NewKey made = adas();
  const auto changed = store_->change_account(
      "ada", {.requests_per_minute = 30, .burst = 5, .images_per_day = 100}, "cli:test");
  ASSERT_TRUE(changed.ok()) << changed.error().message;
  const AccountLimits limits = store_->authenticate(made.key)->limits;
  EXPECT_EQ(limits.requests_per_minute, 30);
  EXPECT_EQ(limits.burst, 5);
  EXPECT_EQ(limits.images_per_day, 100);
  EXPECT_EQ(limits.concurrent_requests, AccountLimits{}.concurrent_requests);
  EXPECT_FALSE(store_->change_account("ada", {.burst = 0}, "cli:test").ok());
  EXPECT_FALSE(store_->change_account("ada", {.images_per_day = -1}, "cli:test").ok());
  EXPECT_NE(
      store_->change_account("adda", {.burst = 5}, "c").error().message.find("did you mean ada"),
      std::string::npos);
}

TEST_F(KeyStoreTest, ADisabledAccountsKeysMayNotPass) {
  const NewKey made = adas();
  ASSERT_TRUE(store_->change_account("ada", {.disabled = true}, "cli:test").ok());
  EXPECT_EQ(refusal(made.key), ErrorCode::kPermissionDenied);
  ASSERT_TRUE(store_->change_account("ada", {.disabled = false}, "cli:test").ok());
  EXPECT_TRUE(store_->authenticate(made.key).ok());
}

TEST_F(KeyStoreTest, TheFirstKeyIsMadeOnce) {
  adas();
  const auto first = store_->ensure_first_key();
  ASSERT_TRUE(first.ok() && *first);
  EXPECT_EQ(store_->authenticate((*first)->key)->scopes, (Scopes{true, true, true}));
  EXPECT_FALSE(*store_->ensure_first_key());
  ASSERT_TRUE(store_->revoke((*first)->about.id, "cli:test").ok());
  EXPECT_FALSE(*open()->ensure_first_key());
}

TEST_F(KeyStoreTest, LastUseIsWrittenByFlush) {
  const NewKey made = adas();
  clock_.advance(Millis{1000});
  ASSERT_TRUE(store_->authenticate(made.key).ok());
  EXPECT_EQ(store_->keys()->front().last_used_at, 0);
  const std::int64_t used = clock_.wall().count();
  clock_.advance(Millis{1000});
  ASSERT_TRUE(store_->flush().ok());
  EXPECT_EQ(store_->keys()->front().last_used_at, used);
}

TEST_F(KeyStoreTest, AnswersFromMemoryBetweenTwoLooks) {
  const NewKey made = adas();
  ASSERT_TRUE(store_->authenticate(made.key).ok());
  {
    Database direct = Database::sqlite(file_);
    direct.session() << "delete from api_keys";
    direct.session() << "update accounts_version set version = version + 1";
  }
  EXPECT_TRUE(store_->authenticate(made.key).ok());
  clock_.advance(KeyStore::kFollow);
  EXPECT_EQ(refusal(made.key), ErrorCode::kUnauthenticated);
}

TEST_F(KeyStoreTest, ADatabaseItCannotReadLetsNobodyIn) {
  const NewKey made = adas();
  {
    Database direct = Database::sqlite(file_);
    direct.session() << "drop table accounts_version";
  }
  clock_.advance(KeyStore::kFollow);
  EXPECT_EQ(refusal(made.key), ErrorCode::kIo);
  EXPECT_EQ(refusal(made.key), ErrorCode::kIo);
}

TEST_F(KeyStoreTest, ManyThreadsAskWhileKeysComeAndGo) {
  const NewKey stays = adas();
  std::atomic<bool> stop = false;
  std::atomic<int> wrong = 0;
  std::vector<std::jthread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      while (!stop) {
        if (!store_->authenticate(stays.key).ok()) ++wrong;
        clock_.advance(Millis{1});
      }
    });
  }
  for (int i = 0; i < 10; ++i) {
    const NewKey made = adas();
    EXPECT_TRUE(store_->authenticate(made.key).ok());
    EXPECT_TRUE(store_->revoke(made.about.id, "cli:test").ok());
    EXPECT_EQ(refusal(made.key), ErrorCode::kUnauthenticated);
  }
  stop = true;
  threads.clear();
  EXPECT_EQ(wrong, 0);
}

TEST(KeyStore, SaysWhichFileItCannotOpen) {
  ManualClock clock;
  const auto store = KeyStore::open("/no/such/folder/limner.db", clock);
  ASSERT_FALSE(store.ok());
  EXPECT_NE(store.error().message.find("/no/such/folder"), std::string::npos);
}

}  // namespace
}  // namespace limner::platform
