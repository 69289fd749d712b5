// A whole service behind the gateway for tests: a real queue on a real disk, a real store, small
// models.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <condition_variable>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "contract/job_cost.h"
#include "contract/job_request.h"
#include "delivery/failing_file_system.h"
#include "delivery/local_store.h"
#include "queue/queue.h"
#include "queue/sql_store.h"
#include "worker/worker_pool.h"

namespace limner::worker::testing {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (fs::temp_directory_path() / "limner-worker-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~TemporaryFolder() { fs::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

inline fs::path source() {
  return LIMNER_SOURCE_DIR;
}
inline fs::path micro_model(const std::string& name) {
  return source() / "tests/parity/fixtures/pipelines" / name / "model";
}

// Holds whoever comes by, until it is opened; a test sees that somebody is there.
class Gate {
 public:
  void close() { set(true); }
  void open() { set(false); }
  void pass() {
    std::unique_lock lock(mutex_);
    ++waiting_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return !closed_; });
    --waiting_;
    changed_.notify_all();
  }
  bool somebody_waits(milliseconds at_most = milliseconds(10'000)) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, at_most, [&] { return waiting_ > 0; });
  }
  bool nobody_waits(milliseconds at_most = milliseconds(10'000)) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, at_most, [&] { return waiting_ == 0; });
  }

 private:
  void set(bool closed) {
    const std::lock_guard lock(mutex_);
    closed_ = closed;
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  bool closed_ = false;
  int waiting_ = 0;
};

class Service : public ::testing::Test {
 protected:
  Service() {
    models_ = folder_.path() / "models";
    fs::create_directories(models_);
    fs::create_directories(folder_.path() / "loras");
    add_model("micro-sd1", micro_model("micro-sd1"));
    queue_options_.first_backoff = milliseconds(20);
    queue_options_.longest_backoff = milliseconds(20);
    pool_options_.look_every = milliseconds(10);
    pool_options_.worker.post.first_delay = milliseconds(10);
    pool_options_.adapters.folders = {folder_.path() / "loras"};
    pool_options_.adapters.downloads.folder = folder_.path() / "downloads";
    catalog_options_.adapter_folders = pool_options_.adapters.folders;
    catalog_options_.look_every = milliseconds(0);
    cache_options_.engine.adapter_folders = pool_options_.adapters.folders;
  }
  ~Service() override {
    pool_.reset();
    queue_.reset();
  }

  void add_model(const std::string& name, const fs::path& model) {
    fs::create_directory_symlink(model, models_ / name);
  }

  void start() {
    table_ = queue::open_sqlite_store(folder_.path() / "limner.db").value();
    queue_ =
        queue::Queue::open(*table_, queue::make_policy("fair", 1).value(), clock_, queue_options_)
            .value();
    queue_->on_event([this](const contract::JobEvent& event) {
      const std::lock_guard lock(mutex_);
      heard_.push_back(event);
      changed_.notify_all();
    });
    store_ = delivery::LocalStore::open(folder_.path() / "artifacts", "http://here", signer_,
                                        files_, clock_)
                 .value();
    cache_.emplace(ModelCache::open(cache_options_, "cpu").value());
    catalog_options_.model_folders = {models_};
    catalog_ = std::make_unique<CatalogBuilder>(
        catalog_options_, [cache = *cache_] { return cache.loaded(); }, log_);
    pool_ = std::make_unique<WorkerPool>(
        pool_options_, PoolServices{*queue_, *store_, *catalog_, *cache_, metrics_, log_, clock_});
    pool_->start();
  }

  static contract::JobRequest request(const std::string& prompt = "a red circle") {
    contract::JobRequest asked;
    asked.model = "micro-sd1";
    asked.picture.prompt = prompt;
    asked.picture.width = 64;
    asked.picture.height = 48;
    asked.picture.steps = 4;
    asked.picture.sampler = "euler";
    asked.picture.seed = 7;
    return asked;
  }

  std::string submit(const contract::JobRequest& asked) {
    return submit_text(contract::to_text(asked), asked.model);
  }
  std::string submit_text(const std::string& text, const std::string& model = "micro-sd1") {
    contract::Job job;
    job.account = "ada";
    job.tier = contract::Tier::kFast;
    job.model = model;
    job.job_class = model;
    job.request = text;
    auto submitted = queue_->submit(job);
    EXPECT_TRUE(submitted.ok()) << submitted.error().message;
    return submitted->id;
  }

  contract::Job found(const std::string& id) { return **queue_->find(id); }

  // Waits for the job's end.
  contract::Job ended(const std::string& id, milliseconds at_most = milliseconds(20'000)) {
    std::unique_lock lock(mutex_);
    const bool over = changed_.wait_for(lock, at_most, [&] { return ends_of(id) > 0; });
    lock.unlock();
    EXPECT_TRUE(over) << "job " << id << " has not ended";
    return found(id);
  }
  contract::JobResult result(const contract::Job& job) {
    EXPECT_EQ(job.status, contract::JobStatus::kCompleted) << (job.error ? job.error->message : "");
    return contract::job_result_from_text(job.result).value();
  }
  std::vector<std::uint8_t> stored(const contract::StoredImage& image) {
    return store_->get(delivery::parse_object_key(image.key).value(), {}).value();
  }
  // Data of the events of a type, in order.
  std::vector<std::string> told(const std::string& id, const std::string& type) {
    const std::lock_guard lock(mutex_);
    std::vector<std::string> data;
    for (const contract::JobEvent& event : heard_) {
      if (event.job_id == id && event.type == type) data.push_back(event.data);
    }
    return data;
  }
  // Waits until `fits` holds.
  template <typename Fits>
  static bool soon(Fits fits, milliseconds at_most = milliseconds(10'000)) {
    const auto until = std::chrono::steady_clock::now() + at_most;
    while (!fits()) {
      if (std::chrono::steady_clock::now() > until) return false;
      std::this_thread::sleep_for(milliseconds(5));
    }
    return true;
  }

  TemporaryFolder folder_;
  fs::path models_;
  platform::SystemClock clock_;
  NoLog log_;
  platform::Metrics metrics_;
  delivery::FailingFileSystem files_;
  delivery::UrlSigner signer_ =
      delivery::UrlSigner::make({"k1", std::vector<std::uint8_t>(32, 7)}).value();
  queue::QueueOptions queue_options_;
  WorkerPoolOptions pool_options_;
  ModelCacheOptions cache_options_;
  CatalogOptions catalog_options_;
  std::unique_ptr<queue::Store> table_;
  std::unique_ptr<queue::Queue> queue_;
  std::unique_ptr<delivery::LocalStore> store_;
  std::optional<ModelCache> cache_;
  std::unique_ptr<CatalogBuilder> catalog_;
  std::unique_ptr<WorkerPool> pool_;

 private:
  std::size_t ends_of(const std::string& id) const {
    std::size_t ends = 0;
    for (const contract::JobEvent& event : heard_) {
      const auto status = contract::status_named(event.type);
      if (event.job_id == id && status && contract::is_terminal(*status)) ++ends;
    }
    return ends;
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<contract::JobEvent> heard_;  // by mutex_
};

}  // namespace limner::worker::testing
