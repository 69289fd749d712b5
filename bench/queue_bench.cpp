// What the queue costs with a million jobs waiting: `queue_bench [JOBS] [FOLDER]`.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <random>
#include <thread>

#include "base/system_memory.h"
#include "platform/clock.h"
#include "queue/queue.h"
#include "queue/sql_store.h"

namespace {

using namespace limner;
using Clock = std::chrono::steady_clock;

double milliseconds(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

template <typename Action>
void report(const char* what, int times, const Action& action) {
  std::vector<double> all;
  for (int time = 0; time < times; ++time) {
    const auto begin = Clock::now();
    action(time);
    all.push_back(milliseconds(begin));
  }
  std::sort(all.begin(), all.end());
  fmt::print("  {:<44} median {:8.4f} ms   99 % {:8.4f} ms   longest {:8.4f} ms\n", what,
             all[all.size() / 2], all[all.size() * 99 / 100], all.back());
}

contract::Job job(std::mt19937_64& random) {
  contract::Job made;
  made.account = fmt::format("account{}", random() % 10'000);
  made.tier = contract::kTiers[random() % 3];
  made.model = made.job_class = "miniature";
  made.priority = static_cast<std::int32_t>(random() % 3);
  made.work = 1.0 + static_cast<double>(random() % 100);
  made.request = "{\"prompt\":\"a red circle above a blue square on a white background\"}";
  return made;
}

std::vector<std::string> fill(queue::Store& store, int jobs, std::mt19937_64& random) {
  std::vector<std::string> ids;
  std::vector<queue::Change> changes;
  const auto begin = Clock::now();
  for (int number = 0; number < jobs; ++number) {
    queue::Submission submission{job(random), {}};
    submission.job.id = fmt::format("{:016x}-{:08x}", number, random() % 0xffffffff);
    submission.job.created_at = 1'700'000'000'000 + number;
    ids.push_back(submission.job.id);
    changes.push_back(std::move(submission));
    if (changes.size() == 512 || number + 1 == jobs) {
      if (const auto done = store.write(changes); !done.ok()) throw Failure(done.error());
      changes.clear();
    }
  }
  fmt::print("  {:<44} {:.4f} ms each, 512 to a sync\n", "written",
             milliseconds(begin) / static_cast<double>(jobs));
  return ids;
}

void measure(int jobs, const std::filesystem::path& file) {
  std::mt19937_64 random(1);
  auto store = queue::open_sqlite_store(file).value_or_throw();
  const auto ids = fill(*store, jobs, random);
  platform::SystemClock clock;
  queue::QueueOptions options;
  options.limits.most_waiting.fill(SIZE_MAX);
  options.limits.most_per_account = SIZE_MAX;
  const auto begin = Clock::now();
  auto queue = queue::Queue::open(*store, queue::make_policy("fair", 1).value(), clock, options)
                   .value_or_throw();
  fmt::print("  {:<44} {:.2f} s, {} MB resident\n", "opened after a restart",
             milliseconds(begin) / 1e3, resident_bytes() >> 20);
  const auto some = [&] { return ids[random() % ids.size()]; };
  report("position", 10'000, [&](int) { (void)queue->place(some()); });
  report("submit, alone, with its own sync", 300,
         [&](int) { queue->submit(job(random)).value().id; });
  report("lease, with its own sync", 100, [&](int) { (void)queue->lease("w").value(); });
  report("cancel, with its own sync", 100, [&](int) { (void)queue->cancel(some()); });

  constexpr int kThreads = 64, kEach = 50;
  const auto together = Clock::now();
  {
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < kThreads; ++thread) {
      threads.emplace_back([&queue, thread] {
        std::mt19937_64 own(static_cast<std::uint64_t>(thread));
        for (int time = 0; time < kEach; ++time) (void)queue->submit(job(own)).value();
      });
    }
  }
  fmt::print("  {:<44} {:.4f} ms each, {} callers sharing syncs\n", "submit, together",
             milliseconds(together) / (kThreads * kEach), kThreads);
}

}  // namespace

int main(int argc, char** argv) {
  const int jobs = argc > 1 ? std::atoi(argv[1]) : 1'000'000;
  const std::filesystem::path folder =
      std::filesystem::path(argc > 2 ? argv[2] : ".") / "queue-bench";
  std::filesystem::create_directories(folder);
  fmt::print("{} waiting jobs in {}\n", jobs, folder.string());
  try {
    measure(jobs, folder / "limner.db");
  } catch (const Failure& failure) {
    fmt::print(stderr, "{}\n", failure.what());
    return 1;
  }
  std::filesystem::remove_all(folder);
  return 0;
}
