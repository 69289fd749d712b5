// kill -9 of a process that takes, runs and finishes jobs: at named points of its writes, and at
// random moments. LIMNER_FAULT_RUNS sets how many random ones (24).
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault/queue_ledger.h"

namespace limner::queue {
namespace {

namespace fs = std::filesystem;

constexpr int kJobs = 12;

// The child: tells each answer it gets to `out`, one line each.
void live(const fs::path& file, int out, QueueOptions options) {
  const auto say = [out](char what, const std::string& key, const std::string& id) {
    const std::string line = fmt::format("{} {} {}\n", what, key, id);
    if (::write(out, line.data(), line.size()) < 0) _exit(3);
  };
  auto store = open_sqlite_store(file);
  platform::SystemClock clock;
  if (!store.ok()) _exit(4);
  auto queue = Queue::open(**store, make_policy("fair", 1).value(), clock, std::move(options));
  if (!queue.ok()) _exit(5);
  for (int number = 0; number < kJobs; ++number) {
    const std::string key = fmt::format("k{}", number);
    const auto submitted = (*queue)->submit(ledger_job(number), ledger_key(key));
    if (!submitted.ok()) _exit(6);
    say('A', key, submitted->id);
    if (number == 5) {
      const auto status = (*queue)->cancel(submitted->id);
      if (status.ok() && *status == contract::JobStatus::kCanceled) say('C', key, submitted->id);
    }
  }
  for (;;) {
    auto lease = (*queue)->lease("child");
    if (!lease.ok()) _exit(7);
    if (!*lease) _exit(0);
    if (!(*queue)->tell(**lease, "progress", "1").ok()) _exit(8);
    Completion completion;
    completion.usage.seconds = 1.0;
    if (!(*queue)->finish(**lease, completion).ok()) _exit(9);
    say('F', "-", (*lease)->job.id);
  }
}

class QueueCrash : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / fmt::format("limner-crash-{}", getpid());
    begin();
  }
  void TearDown() override { fs::remove_all(folder_); }
  void begin() {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    ledger_ = {};
  }

  // Runs a child to its end, however it ends, and writes down what it said. Its exit code, or -1
  // when it was killed.
  int run_child(QueueOptions options, int kill_after_us = -1) {
    const fs::path said = folder_ / "said";
    fs::remove(said);
    const pid_t child = fork();
    if (child == 0) {
      const int out = ::open(said.c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600);
      live(folder_ / "limner.db", out, std::move(options));
    }
    if (kill_after_us >= 0) {
      usleep(static_cast<useconds_t>(kill_after_us));
      kill(child, SIGKILL);
    }
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    std::ifstream lines(said);
    std::string what, key, id;
    while (lines >> what >> key >> id) {
      if (what == "A") {
        const auto [known, is_new] = ledger_.accepted.emplace(key, id);
        EXPECT_TRUE(is_new || known->second == id) << "one key made two jobs";
      }
      if (what == "F") {
        EXPECT_TRUE(ledger_.finished.insert(id).second) << "finished twice";
      }
      if (what == "C") ledger_.canceled.insert(id);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  fs::path folder_;
  Ledger ledger_;
};

TEST_F(QueueCrash, NothingIsLostWhicheverPointOfAWriteTheProcessDiesAt) {
  for (const std::string point : {"decided", "written", "settled"}) {
    begin();
    int deaths = 0;
    for (int nth = 1; nth <= 40; nth += 3) {
      QueueOptions options = ledger_options();
      options.random = {};
      options.at = [point, nth, seen = 0](std::string_view here) mutable {
        if (here == point && ++seen == nth) kill(getpid(), SIGKILL);
      };
      const int code = run_child(std::move(options));
      EXPECT_LE(code, 0) << point << " " << nth;
      deaths += code == -1 ? 1 : 0;
    }
    EXPECT_GE(deaths, 4) << point;
    expect_kept(folder_ / "limner.db", ledger_);
  }
}

TEST_F(QueueCrash, NothingIsLostWhenTheProcessDiesAtRandom) {
  const char* asked = std::getenv("LIMNER_FAULT_RUNS");
  const int runs = asked == nullptr ? 24 : std::atoi(asked);
  std::mt19937 random(20);
  for (int run = 0; run < runs; ++run) {
    if (run % 4 == 0) begin();
    QueueOptions options = ledger_options();
    options.random = {};
    EXPECT_LE(run_child(std::move(options), static_cast<int>(random() % 150'000)), 0);
    if (run % 4 == 3) expect_kept(folder_ / "limner.db", ledger_);
  }
}

}  // namespace
}  // namespace limner::queue
