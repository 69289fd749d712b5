#include "queue/sql_store.h"

#include <unistd.h>

#include <fstream>

#include "queue/store_conformance.h"

namespace limner::queue {
namespace {

std::filesystem::path fresh_folder() {
  static int count = 0;
  const auto folder = std::filesystem::temp_directory_path() /
                      ("limner store " + std::to_string(getpid()) + "-" + std::to_string(count++));
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

StoreMaker sqlite() {
  const auto folder = std::shared_ptr<std::filesystem::path>(
      new std::filesystem::path(fresh_folder()), [](std::filesystem::path* path) {
        std::filesystem::remove_all(*path);
        delete path;
      });
  return {"sqlite", [folder] {
            auto store = open_sqlite_store(*folder / "limner.db");
            EXPECT_TRUE(store.ok()) << store.error().message;
            return std::move(*store);
          }};
}

INSTANTIATE_TEST_SUITE_P(Sqlite, StoreConformance, ::testing::Values(sqlite));

TEST(SqliteStore, SaysWhatIsWrongWithAFileThatIsNoDatabase) {
  const auto folder = fresh_folder();
  std::ofstream(folder / "limner.db") << std::string(8192, 'x');
  const auto store = open_sqlite_store(folder / "limner.db");
  ASSERT_FALSE(store.ok());
  EXPECT_EQ(store.error().code, ErrorCode::kIo);
  EXPECT_NE(store.error().message.find("limner.db"), std::string::npos);
  std::filesystem::remove_all(folder);
}

TEST(SqliteStore, SaysWhichFolderItCannotOpen) {
  const auto store = open_sqlite_store("/no/such/folder/limner.db");
  ASSERT_FALSE(store.ok());
  EXPECT_NE(store.error().message.find("/no/such/folder"), std::string::npos);
}

}  // namespace
}  // namespace limner::queue
