#include "platform/audit/audit_log.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "platform/audit/refusals.h"
#include "platform/database.h"

namespace limner::platform {
namespace {

namespace fs = std::filesystem;

class AuditTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("limner_audit_" + std::to_string(getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    file_ = folder_ / "limner.db";
    log_ = open();
  }
  void TearDown() override {
    log_.reset();
    fs::remove_all(folder_);
  }

  std::unique_ptr<AuditLog> open() {
    auto log = AuditLog::open(file_, clock_);
    EXPECT_TRUE(log.ok()) << log.error().message;
    return std::move(*log);
  }
  void append(const std::string& subject) {
    clock_.advance(Millis{1000});
    const AuditAct act{"cli:root", "key.create", subject, "account ada"};
    const auto written = log_->append({&act, 1});
    ASSERT_TRUE(written.ok()) << written.error().message;
  }
  void append_five() {
    for (int i = 1; i <= 5; ++i) append("key_" + std::to_string(i));
  }
  AuditVerdict verify(const std::optional<AuditAnchor>& anchor = std::nullopt) {
    auto verdict = verify_audit(file_, anchor);
    EXPECT_TRUE(verdict.ok()) << verdict.error().message;
    return *verdict;
  }
  void sql(const std::string& text) { Database::sqlite(file_).session() << text; }
  void expect_found(const std::string& what) {
    const std::string problem = verify().problem;
    EXPECT_NE(problem.find(what), std::string::npos) << "wanted: " << what << "\ngot: " << problem;
  }
  std::vector<AuditEntry> entries() {
    auto listed = list_audit(file_, INT64_MAX, 1000);
    EXPECT_TRUE(listed.ok());
    return *listed;
  }

  fs::path folder_, file_;
  ManualClock clock_;
  std::unique_ptr<AuditLog> log_;
};

// Python: hashlib.sha256((64 * "0" + "1:1,13:1700000000000,...").encode()).hexdigest()
TEST(AuditHash, IsSha256OverTheOneBeforeAndLengthPrefixedFields) {
  const AuditEntry entry{
      1, 1'700'000'000'000, {"cli:root", "key.create", "key_1", "account \xc3\xa9"}, ""};
  EXPECT_EQ(audit_hash(std::string(64, '0'), entry),
            "8732685417f8a34295823f0c61db5b95acec1540207bfd984d25e6ac593ded11");
}

TEST(AuditHash, TellsFieldsApartThatJoinToTheSameText) {
  const AuditEntry one{1, 2, {"a", "bc", "d", "e"}, ""}, other{1, 2, {"ab", "c", "d", "e"}, ""};
  EXPECT_NE(audit_hash("", one), audit_hash("", other));
}

TEST_F(AuditTest, KeepsEntriesInOrderAcrossOpenings) {
  append_five();
  log_ = open();
  append("key_6");
  const auto all = entries();
  ASSERT_EQ(all.size(), 6u);
  EXPECT_EQ(all[0].id, 6);
  EXPECT_EQ(all[0].act.subject, "key_6");
  EXPECT_EQ(all[5].act.subject, "key_1");
  EXPECT_EQ(all[4].at - all[5].at, 1000);
  const auto page = list_audit(file_, 4, 2);
  ASSERT_EQ(page->size(), 2u);
  EXPECT_EQ((*page)[0].id, 3);
  EXPECT_EQ(verify().problem, "");
  EXPECT_EQ(verify().head.entries, 6);
  EXPECT_EQ(verify().head.hash, all[0].hash);
}

TEST_F(AuditTest, AnEmptyLogIsWhole) {
  EXPECT_EQ(verify().problem, "");
  EXPECT_EQ(verify().head.entries, 0);
  EXPECT_EQ(verify(verify().head).problem, "");
}

TEST_F(AuditTest, FindsAChangeOfAnyFieldOfAnyEntry) {
  append_five();
  sql("create table copy as select * from audit_log");
  for (const char* change : {"created_at = created_at + 1", "actor = 'cli:eve'", "action = 'a'",
                             "subject = 'key_9'", "detail = ''", "hash = substr(hash, 2) || 'x'"}) {
    for (int id = 1; id <= 5; ++id) {
      const std::string where = " where id = " + std::to_string(id);
      sql(std::string("update audit_log set ") + change + where);
      const std::string problem = verify().problem;
      EXPECT_NE(problem.find("entry " + std::to_string(id)), std::string::npos)
          << change << where << ": " << problem;
      sql("insert or replace into audit_log select * from copy" + where);
    }
  }
  EXPECT_EQ(verify().problem, "");
}

TEST_F(AuditTest, FindsARemovedEntry) {
  append_five();
  sql("delete from audit_log where id = 3");
  expect_found("entry 3 is missing");
}

TEST_F(AuditTest, FindsARemovedEntryBehindRenumberedOnes) {
  append_five();
  sql("delete from audit_log where id = 3");
  sql("update audit_log set id = id - 1 where id > 3");
  sql("update audit_head set entries = 4");
  expect_found("entry 3");
}

TEST_F(AuditTest, FindsTwoThatChangedPlaces) {
  append_five();
  sql("update audit_log set id = 30 where id = 3");
  sql("update audit_log set id = 3 where id = 4");
  sql("update audit_log set id = 4 where id = 30");
  expect_found("entry 3");
}

TEST_F(AuditTest, FindsACutOffEnd) {
  append_five();
  sql("delete from audit_log where id > 3");
  expect_found("entries 4 to 5 are missing");
  sql("delete from audit_log");
  expect_found("entries 1 to 5 are missing");
}

TEST_F(AuditTest, FindsAForgedEntryAtTheEnd) {
  append_five();
  sql("insert into audit_log select 6, created_at, actor, action, subject, detail, hash from "
      "audit_log where id = 5");
  expect_found("entry 6");
  sql("delete from audit_log where id = 6");
  sql("delete from audit_head");
  expect_found("audit_head");
}

TEST_F(AuditTest, AnAnchorConvictsWhoWroteTheChainAnew) {
  append_five();
  const AuditAnchor anchor = verify().head;
  append("key_6");
  EXPECT_EQ(verify(anchor).problem, "");
  sql("delete from audit_log");
  sql("update audit_head set entries = 0, hash = '" + std::string(64, '0') + "'");
  append("key_1");
  EXPECT_EQ(verify().problem, "");
  EXPECT_NE(verify(anchor).problem.find("entries 2 to 5"), std::string::npos);
  for (int i = 2; i < 9; ++i) append("key_" + std::to_string(i));
  EXPECT_EQ(verify().problem, "");
  EXPECT_NE(verify(anchor).problem.find("written anew"), std::string::npos);
}

TEST_F(AuditTest, GoesOnAfterTamperingAndStillTellsOfIt) {
  append_five();
  sql("delete from audit_log where id > 3");
  append("key_6");
  expect_found("entry 4 is missing");
  sql("delete from audit_head");
  append("key_7");
  expect_found("entry 4 is missing");
}

TEST_F(AuditTest, ManyWritersMakeOneChain) {
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this] {
      const auto log = open();  // a connection each, as processes have
      for (int i = 0; i < 10; ++i) {
        const AuditAct acts[] = {{"a", "b", "c", "d"}, {"e", "f", "g", "h"}};
        EXPECT_TRUE(log->append(acts).ok());
      }
    });
  }
  threads.clear();
  EXPECT_EQ(verify().problem, "");
  EXPECT_EQ(verify().head.entries, 80);
}

TEST_F(AuditTest, AnchorsAreReadBack) {
  append_five();
  const AuditAnchor head = verify().head;
  const auto read = parse_audit_anchor(to_string(head));
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->entries, 5);
  EXPECT_EQ(read->hash, head.hash);
  for (const std::string& text :
       {std::string(""), std::string("5"), "5:" + std::string(63, 'a'), "5:" + std::string(64, 'g'),
        "-1:" + std::string(64, 'a'), "5 :" + std::string(64, 'a'), ":" + std::string(64, 'a')}) {
    EXPECT_FALSE(parse_audit_anchor(text).ok()) << text;
  }
}

TEST(Audit, WantsAFileThatIsThere) {
  EXPECT_EQ(verify_audit("/no/such/limner.db", std::nullopt).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(list_audit("/no/such/limner.db", 1, 1).error().code, ErrorCode::kNotFound);
}

TEST_F(AuditTest, AFloodOfRefusalsLeavesItsNumber) {
  Refusals refusals(*log_);
  const Refusal wrong_key{401, "unauthenticated", "", "", "192.0.2.7", "POST /v1/generations"};
  for (int i = 0; i < 10'000; ++i) refusals.count(wrong_key);
  refusals.count({403, "permission_denied", "ada", "key_1", "192.0.2.8", "GET /v1/queue"});
  ASSERT_TRUE(refusals.flush().ok());
  ASSERT_TRUE(refusals.flush().ok());
  const auto all = entries();
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[1].act.actor, "address 192.0.2.7");
  EXPECT_EQ(all[1].act.action, "refused");
  EXPECT_EQ(all[1].act.subject, "POST /v1/generations");
  EXPECT_EQ(all[1].act.detail, "401 unauthenticated, 10000 times");
  EXPECT_EQ(all[0].act.actor, "key_1");
  EXPECT_EQ(all[0].act.detail, "403 permission_denied, 1 time, account ada, address 192.0.2.8");
}

TEST_F(AuditTest, RefusalsOfManyAddressesStayBoundedAndCounted) {
  Refusals refusals(*log_, 10);
  for (int i = 0; i < 1000; ++i) {
    refusals.count({401, "unauthenticated", "", "", std::to_string(i), "GET /v1/queue"});
  }
  ASSERT_TRUE(refusals.flush().ok());
  const auto all = entries();
  ASSERT_EQ(all.size(), 11u);
  EXPECT_EQ(all.back().act.actor, "various");
  EXPECT_EQ(all.back().act.detail, "401 unauthenticated, 990 times");
}

TEST_F(AuditTest, RefusalsAreKeptUntilTheyCanBeWritten) {
  Refusals refusals(*log_);
  refusals.count({401, "unauthenticated", "", "", "192.0.2.7", "GET /v1/queue"});
  sql("alter table audit_log rename to away");
  EXPECT_FALSE(refusals.flush().ok());
  refusals.count({401, "unauthenticated", "", "", "192.0.2.7", "GET /v1/queue"});
  sql("alter table away rename to audit_log");
  ASSERT_TRUE(refusals.flush().ok());
  EXPECT_EQ(entries().front().act.detail, "401 unauthenticated, 2 times");
}

}  // namespace
}  // namespace limner::platform
