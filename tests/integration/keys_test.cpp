// `limner key`, `account` and `audit` beside a service that has the same database open.
#include "platform/accounts/key_store.h"

#include <sys/stat.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "integration/program.h"
#include "platform/accounts/api_key.h"
#include "platform/database.h"

namespace limner {
namespace {

using nlohmann::json;
using platform::KeyStore;

class Keys : public Program {
 protected:
  // The service's view of the folder the commands are pointed to.
  std::unique_ptr<KeyStore> service() {
    std::filesystem::create_directories(folder_ / "data");
    auto store = KeyStore::open(folder_ / "data" / "limner.db", clock_);
    EXPECT_TRUE(store.ok()) << store.error().message;
    return std::move(*store);
  }
  json create(const std::string& options) {
    return json::parse(done("key create --data-dir data --json " + options));
  }
  static void follow() { std::this_thread::sleep_for(KeyStore::kFollow * 2); }

  platform::SystemClock clock_;
};

TEST_F(Keys, WorkInARunningServiceWithinASecond) {
  const auto running = service();
  const json made = create("--account ada --tier turbo --scopes generate,read");
  const std::string key = made["key"], id = made["id"];
  EXPECT_EQ(made["tier"], "turbo");
  EXPECT_TRUE(platform::check_api_key(key).ok());
  follow();
  const auto identity = running->authenticate(key);
  ASSERT_TRUE(identity.ok()) << identity.error().message;
  EXPECT_EQ(identity->key_id, id);
  EXPECT_EQ(identity->tier, "turbo");
  EXPECT_FALSE(identity->scopes.admin);

  done("account set ada --data-dir data --requests-per-minute 30 --burst 5 --tier relax");
  follow();
  EXPECT_EQ(running->authenticate(key)->limits.requests_per_minute, 30);
  EXPECT_EQ(running->authenticate(key)->tier, "relax");

  const json next = json::parse(done("key rotate " + id + " --overlap 1s --data-dir data --json"));
  follow();
  EXPECT_TRUE(running->authenticate(key).ok());
  EXPECT_TRUE(running->authenticate(next["key"].get<std::string>()).ok());
  std::this_thread::sleep_for(std::chrono::seconds(1));
  EXPECT_FALSE(running->authenticate(key).ok());

  done("key revoke " + next["id"].get<std::string>() + " --data-dir data");
  follow();
  EXPECT_FALSE(running->authenticate(next["key"].get<std::string>()).ok());
}

TEST_F(Keys, ArePrintedAloneAndOnce) {
  const Outcome made = run("key create --data-dir data --account ada --tier fast --expires 90d");
  ASSERT_EQ(made.exit_code, 0) << made.err;
  const std::string key = made.out.substr(0, made.out.size() - 1);
  EXPECT_TRUE(platform::check_api_key(key).ok()) << made.out;
  EXPECT_EQ(made.err.find(key), std::string::npos);
  for (const char* command : {"key list", "key list --json", "account list", "audit list --json"}) {
    const std::string shown = done(std::string(command) + " --data-dir data");
    EXPECT_EQ(shown.find(key.substr(8, 20)), std::string::npos) << command;
    EXPECT_NE(shown.find("ada"), std::string::npos) << command;
  }
  const json listed = json::parse(done("key list --data-dir data --json --account ada"));
  ASSERT_EQ(listed["keys"].size(), 1u);
  EXPECT_EQ(listed["keys"][0]["state"], "active");
  EXPECT_EQ(listed["keys"][0]["shown"], platform::shown_api_key(key));
  EXPECT_EQ(listed["keys"][0]["scopes"], "generate,read");
  EXPECT_TRUE(json::parse(done("key list --data-dir data --json --account b"))["keys"].empty());
}

TEST_F(Keys, FollowTheFolderOfTheConfiguration) {
  std::ofstream(folder_ / "limner.toml") << "data_dir = 'elsewhere'\n";
  done("key create --account ada --tier fast");
  EXPECT_TRUE(std::filesystem::exists(folder_ / "elsewhere" / "limner.db"));
  EXPECT_NE(done("account list").find("ada"), std::string::npos);
}

TEST_F(Keys, WrongUseIsRefusedInASentence) {
  expect_refused("key list --data-dir data", 1, "there is no limner.db");
  expect_refused("audit verify --data-dir data", 1, "there is no limner.db");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "data"));
  expect_refused("key create --data-dir data --account ada", 2, "wants a tier");
  expect_refused("key create --data-dir data --account ada --tier gold", 2, "gold");
  expect_refused("key create --data-dir data --account 'a b' --tier fast", 2, "'a b'");
  expect_refused("key create --data-dir data --account ada --tier fast --scopes write", 2, "write");
  expect_refused("key create --data-dir data --account ada --tier fast --expires soon", 2, "soon");
  EXPECT_EQ(done("account list --data-dir data"), "");
  create("--account ada --tier fast");
  expect_refused("key revoke key_x --data-dir data", 1, "'key_x'");
  expect_refused("key rotate key_x --data-dir data", 1, "'key_x'");
  expect_refused("account set adda --tier fast --data-dir data", 1, "did you mean ada");
  expect_refused("account set ada --data-dir data", 2, "nothing to set");
  expect_refused("account set ada --burst 0 --data-dir data", 2, "from 1 to");
  expect_refused("audit verify --anchor 3 --data-dir data", 2, "an anchor is");
  std::ofstream(folder_ / "file") << "x";
  expect_refused("key create --data-dir file --account ada --tier fast", 1, "cannot be made");
}

TEST_F(Keys, AreAuditedAndTamperingIsFound) {
  const json made = create("--account ada --tier fast");
  done("key revoke " + made["id"].get<std::string>() + " --data-dir data");
  done("account set ada --disable --data-dir data");
  const json listed = json::parse(done("audit list --data-dir data --json"));
  ASSERT_EQ(listed["entries"].size(), 4u);
  EXPECT_EQ(listed["entries"][0]["action"], "account.change");
  EXPECT_EQ(listed["entries"][1]["action"], "key.revoke");
  EXPECT_EQ(listed["entries"][1]["subject"], made["id"]);
  EXPECT_EQ(listed["entries"][3]["action"], "account.create");
  const json whole = json::parse(done("audit verify --data-dir data --json"));
  EXPECT_EQ(whole["whole"], true);
  EXPECT_EQ(whole["entries"], 4);
  const std::string anchor = whole["anchor"];
  EXPECT_EQ(done("audit verify --data-dir data"), "whole: 4 entries\nanchor " + anchor + "\n");
  done("audit verify --data-dir data --anchor " + anchor);

  platform::Database::sqlite(folder_ / "data" / "limner.db").session()
      << "update audit_log set actor = 'nobody' where id = 3";
  const Outcome broken = run("audit verify --data-dir data");
  EXPECT_EQ(broken.exit_code, 1);
  EXPECT_NE(broken.out.find("broken: entry 3"), std::string::npos) << broken.out;
}

}  // namespace
}  // namespace limner
