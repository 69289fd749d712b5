#include "delivery/local_store.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "delivery/crypto.h"
#include "delivery/failing_file_system.h"
#include "delivery/store_conformance.h"
#include "delivery/sweeper.h"

namespace limner::delivery {
namespace {

namespace fs = std::filesystem;

UrlSigner make_signer() {
  return UrlSigner::make({"k1", std::vector<std::uint8_t>(32, 7)}).value();
}

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (fs::temp_directory_path() / "limner-store-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~TemporaryFolder() { fs::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const fs::path& path() const { return path_; }

  std::vector<fs::path> files() const {
    std::vector<fs::path> found;
    for (const auto& entry : fs::recursive_directory_iterator(path_)) {
      if (entry.is_regular_file()) found.push_back(entry.path());
    }
    return found;
  }

 private:
  fs::path path_;
};

class LocalUnderTest final : public StoreUnderTest {
 public:
  ArtifactStore& store() override { return *store_; }
  std::optional<std::vector<std::uint8_t>> fetch(const std::string& url) override {
    constexpr std::string_view kBefore = "http://here:8420";
    const auto question = url.find('?');
    if (!url.starts_with(kBefore) || question == std::string::npos) return std::nullopt;
    const std::string path = url.substr(kBefore.size(), question - kBefore.size());
    if (!signer_.verify(path, url.substr(question + 1), std::chrono::system_clock::now())) {
      return std::nullopt;
    }
    const auto key = parse_object_key(path.substr(LocalStore::kPath.size()));
    if (!key) return std::nullopt;
    auto bytes = store_->get(*key, {});
    if (!bytes) return std::nullopt;
    return *bytes;
  }

 private:
  TemporaryFolder folder_;
  UrlSigner signer_ = make_signer();
  PosixFileSystem files_;
  platform::SystemClock clock_;
  std::unique_ptr<LocalStore> store_ =
      LocalStore::open(folder_.path() / "artifacts", "http://here:8420", signer_, files_, clock_)
          .value();
};

INSTANTIATE_TEST_SUITE_P(Local, StoreConformance,
                         testing::Values([] { return std::make_unique<LocalUnderTest>(); }),
                         [](const auto&) { return "Disk"; });

class LocalStoreFaults : public testing::Test {
 protected:
  static constexpr std::chrono::sys_time<platform::Millis> kStart{std::chrono::hours(24 * 20000)};

  Result<StoredObject> put(std::string_view text) {
    return store_->put({.account = "acme"}, bytes_of(text));
  }

  TemporaryFolder folder_;
  UrlSigner signer_ = make_signer();
  FailingFileSystem files_;
  platform::ManualClock clock_{kStart.time_since_epoch()};
  std::unique_ptr<LocalStore> store_ =
      LocalStore::open(folder_.path(), "", signer_, files_, clock_).value();
};

TEST_F(LocalStoreFaults, WhicheverCallFailsAPutIsWholeOrNothing) {
  int faults = 0;
  for (const int number : {EIO, ENOSPC, EDQUOT, EMFILE}) {
    for (int k = 0;; ++k) {
      const std::string text = "object " + std::to_string(faults++);
      files_.fail(k, number);
      const auto stored = put(text);
      files_.fail(-1, 0);
      if (stored) {
        EXPECT_GE(k, 7) << "a failing call was not noticed";
        break;
      }
      const bool passes = number != EIO;
      EXPECT_EQ(stored.error().code, passes ? ErrorCode::kUnavailable : ErrorCode::kIo);
      EXPECT_EQ(stored.error().retryable, passes);
      EXPECT_TRUE(fs::is_empty(folder_.path() / ".tmp")) << "call " << k;
      // Had it been published when the last call failed, it is whole.
      const auto page = store_->list({});
      for (const StoredObject& object : page->objects) {
        EXPECT_TRUE(store_->get(object.key, {}).ok());
      }
      ASSERT_TRUE(put(text).ok());
    }
  }
}

TEST_F(LocalStoreFaults, AFullDiskSaysSoAndServesWhatItHas) {
  const auto before = put("before");
  files_.fail(1, ENOSPC, true);
  const auto refused = put("while full");
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
  EXPECT_NE(refused.error().message.find("the disk is full"), std::string::npos);
  EXPECT_TRUE(store_->get(before->key, {}).ok());
  EXPECT_EQ(folder_.files().size(), 1u);
  files_.fail(-1, 0);
  EXPECT_TRUE(put("while full").ok());
}

TEST_F(LocalStoreFaults, ACrashBeforeTheRenameLeavesOnlyWhatTheSweepTakes) {
  // A child process dies with the temporary file written and not renamed.
  class DiesBeforeRename final : public FileSystem {
   public:
    int create(const fs::path& path) override { return real_.create(path); }
    void write(int fd, std::span<const std::uint8_t> bytes) override { real_.write(fd, bytes); }
    void set_time(int fd, Time time) override { real_.set_time(fd, time); }
    void sync(int fd) override { real_.sync(fd); }
    void close(int fd) override { real_.close(fd); }
    void rename(const fs::path&, const fs::path&) override { _exit(9); }
    void remove(const fs::path& path) override { real_.remove(path); }
    void make_folders(const fs::path& path) override { real_.make_folders(path); }
    void sync_folder(const fs::path& path) override { real_.sync_folder(path); }

   private:
    PosixFileSystem real_;
  };
  const pid_t child = fork();
  if (child == 0) {
    DiesBeforeRename files;
    auto store = LocalStore::open(folder_.path(), "", signer_, files, clock_);
    const std::string text = "lost";
    static_cast<void>((*store)->put({.account = "acme"}, bytes_of(text)));
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 9);

  ASSERT_EQ(folder_.files().size(), 1u);
  EXPECT_EQ(store_->list({})->objects.size(), 0u);
  EXPECT_EQ(sweep(*store_, {}, kStart + std::chrono::hours(1))->leftovers, 0u);
  EXPECT_EQ(sweep(*store_, {}, kStart + std::chrono::hours(25))->leftovers, 1u);
  EXPECT_TRUE(folder_.files().empty());
}

TEST_F(LocalStoreFaults, ADamagedFileIsNotServedAsTheWholeObject) {
  const auto stored = put("content");
  std::ofstream(folder_.path() / stored->key.text(), std::ios::in) << "C";
  EXPECT_EQ(store_->get(stored->key, {}).error().code, ErrorCode::kIo);
  ASSERT_TRUE(put("content").ok());  // storing it again mends it
  EXPECT_TRUE(store_->get(stored->key, {}).ok());
}

TEST_F(LocalStoreFaults, StoringAgainRenewsTheAge) {
  const auto stored = put("content");
  clock_.advance(std::chrono::hours(24 * 20));
  ASSERT_TRUE(put("content").ok());
  EXPECT_EQ(sweep(*store_, {}, kStart + std::chrono::hours(24 * 31))->objects, 0u);
  EXPECT_EQ(sweep(*store_, {}, kStart + std::chrono::hours(24 * 51))->objects, 1u);
}

TEST_F(LocalStoreFaults, FilesOfOthersAreLeftAlone) {
  const auto stored = put("content");
  const fs::path folder = (folder_.path() / stored->key.text()).parent_path();
  std::ofstream(folder / "notes.txt") << "mine";
  EXPECT_EQ(store_->list({})->objects.size(), 1u);
  EXPECT_EQ(sweep(*store_, {}, kStart + std::chrono::hours(24 * 365))->objects, 1u);
  EXPECT_TRUE(fs::exists(folder / "notes.txt"));
}

TEST(LocalStore, AFolderThatCannotBeMadeIsAnError) {
  const UrlSigner signer = make_signer();
  PosixFileSystem files;
  const platform::SystemClock clock;
  const auto opened = LocalStore::open("/dev/null/artifacts", "", signer, files, clock);
  ASSERT_FALSE(opened.ok());
  EXPECT_NE(opened.error().message.find("/dev/null/artifacts"), std::string::npos);
}

TEST(ObjectKey, OnlyItsOwnTextIsRead) {
  const std::string sha(64, 'a');
  const std::string good = "warm/acme/aa/" + sha + ".png";
  ASSERT_TRUE(parse_object_key(good).ok());
  EXPECT_EQ(parse_object_key(good)->text(), good);
  for (const std::string& bad :
       {std::string(), "/" + good, "hot/../aa/" + sha + ".png", "hot/acme/ab/" + sha + ".png",
        "hot/acme//" + sha + ".png", "hot/acme/aa/" + sha, "hot/acme/aa/" + sha + ".png/",
        "hot/acme/aa/" + sha + ".p.g", "tepid/acme/aa/" + sha + ".png",
        "hot/acme/AA/" + std::string(64, 'A') + ".png", "hot/acme/aa/" + sha + "a.png",
        good + std::string(1, '\0')}) {
    EXPECT_FALSE(parse_object_key(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace limner::delivery
