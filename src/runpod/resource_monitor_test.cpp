#include "runpod/resource_monitor.h"

#include <gtest/gtest.h>

#include <fstream>

#include "worker/testing.h"

namespace limner::runpod {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMB = 1'000'000;

// A machine of 8,192,000 kB with 4,096,000 kB available, and a tree of control groups.
class Resources : public ::testing::Test {
 protected:
  Resources() {
    write("proc/meminfo", "MemTotal:  8192000 kB\nMemFree: 1 kB\nMemAvailable:  4096000 kB\n");
    write("proc/self/cgroup", "0::/pod/worker\n");
    options_.data_folder = folder_.path();
    options_.proc = folder_.path() / "proc";
    options_.control_groups = folder_.path() / "cgroup";
  }
  void write(const std::string& file, std::string_view text) {
    fs::create_directories((folder_.path() / file).parent_path());
    std::ofstream(folder_.path() / file) << text;
  }
  SpaceStatus memory() { return ResourceMonitor(options_).look().memory; }

  worker::testing::TemporaryFolder folder_;
  MonitorOptions options_;
};

TEST_F(Resources, AreTheMachinesWithoutALimit) {
  write("cgroup/pod/worker/memory.max", "max\n");
  write("cgroup/pod/worker/memory.current", "1000\n");
  EXPECT_EQ(memory().total, std::uint64_t{8'192'000} * 1024);
  EXPECT_EQ(memory().available, std::uint64_t{4'096'000} * 1024);
  EXPECT_EQ(memory().usage_percent(), 50.0);
}

TEST_F(Resources, AreThoseOfTheTightestControlGroup) {
  write("cgroup/pod/memory.max", std::to_string(2000 * kMB));
  write("cgroup/pod/memory.current", std::to_string(1500 * kMB));
  write("cgroup/pod/memory.stat", "anon 1\ninactive_file " + std::to_string(300 * kMB) +
                                      "\nactive_file " + std::to_string(200 * kMB) + "\n");
  write("cgroup/pod/worker/memory.max", "max");
  write("cgroup/pod/worker/memory.current", std::to_string(900 * kMB));
  EXPECT_EQ(memory().total, 2000 * kMB);
  EXPECT_EQ(memory().available, 1000 * kMB);  // a cache of files is no use
  EXPECT_FALSE(ResourceMonitor(options_).under_pressure());
  write("cgroup/pod/memory.current", std::to_string(2400 * kMB));
  EXPECT_EQ(memory().available, 100 * kMB);
  EXPECT_TRUE(ResourceMonitor(options_).under_pressure());
}

TEST_F(Resources, DecideWhetherAJobCanRun) {
  options_.spare_memory = 100 * kMB;
  options_.spare_disk = 1;
  write("cgroup/memory.max", std::to_string(2000 * kMB));
  write("cgroup/memory.current", std::to_string(1000 * kMB));
  const ResourceMonitor monitor(options_);
  EXPECT_TRUE(monitor.can_run({.weights = 800 * kMB, .pictures = kMB}).ok());
  const auto refused = monitor.can_run({.weights = 900 * kMB, .pictures = kMB});
  EXPECT_EQ(refused.error().code, ErrorCode::kOutOfMemory);
  EXPECT_TRUE(refused.error().retryable);
  // The weights of a GPU's model do not stay in the host's memory.
  options_.device = [] { return ""; };
  EXPECT_TRUE(ResourceMonitor(options_).can_run({.weights = 900 * kMB, .pictures = kMB}).ok());
}

TEST_F(Resources, WantRoomOnTheDisks) {
  options_.spare_memory = 0;
  options_.spare_disk = std::uint64_t{1} << 62;
  EXPECT_EQ(ResourceMonitor(options_).can_run({}).error().code, ErrorCode::kUnavailable);
}

TEST_F(Resources, AreToldInMegabytes) {
  write("cgroup/memory.max", std::to_string(2000 * kMB));
  write("cgroup/memory.current", std::to_string(500 * kMB));
  options_.volume = folder_.path() / "none";
  const auto told = to_json(ResourceMonitor(options_).look());
  EXPECT_EQ(told["memory"], (nlohmann::json{{"total_mb", 2000.0},
                                            {"used_mb", 500.0},
                                            {"available_mb", 1500.0},
                                            {"usage_percent", 25.0}}));
  EXPECT_GT(told["disk"]["data"]["total_mb"].get<double>(), 0.0);
  EXPECT_TRUE(told["disk"]["volume"].is_null());
  EXPECT_TRUE(told["gpu_memory"].is_null());
  EXPECT_GT(told["process_mb"].get<double>(), 0.0);
}

}  // namespace
}  // namespace limner::runpod
