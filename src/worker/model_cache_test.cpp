#include "worker/model_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "worker/testing.h"

namespace limner::worker {
namespace {

using testing::milliseconds;

class ModelCacheTest : public ::testing::Test {
 protected:
  ModelCacheTest() {
    for (const char* name : {"micro-sd1", "micro-sd2", "micro-sdxl"}) {
      ModelPlace place;
      place.name = name;
      place.composition.model = testing::micro_model(name);
      place.composition.precision = engine::Precision::kFloat32;
      place.weight_bytes = engine::describe(place.composition).value().weight_bytes;
      places_[name] = place;
      contract::ModelCard card;
      card.name = name;
      card.bytes = place.weight_bytes;
      catalog_.models.push_back(card);
      largest_ = std::max(largest_, place.weight_bytes);
    }
  }
  void open(std::uint64_t budget, std::vector<std::string> pinned = {}) {
    ModelCacheOptions options;
    options.memory_budget = budget;
    options.pinned = std::move(pinned);
    cache_.emplace(ModelCache::open(options, "cpu").value());
  }
  Result<EngineLease> acquire(const std::string& name) {
    CacheObserver observer;
    observer.loading = [this](const std::string& model) { said_ += fmt::format("+{}", model); };
    observer.unloading = [this](const std::string& model) { said_ += fmt::format("-{}", model); };
    return cache_->acquire(places_[name], catalog_, observer, stop_.get_token());
  }
  std::uint64_t bytes(const std::string& name) { return places_[name].weight_bytes; }

  std::map<std::string, ModelPlace> places_;
  contract::Catalog catalog_;
  std::uint64_t largest_ = 0;
  std::optional<ModelCache> cache_;
  std::stop_source stop_;
  std::string said_;
};

TEST_F(ModelCacheTest, DescribingAModelSaysWhatLoadingItDoes) {
  for (const auto& [name, place] : places_) {
    const auto described = engine::describe(place.composition).value();
    const auto engine = engine::Engine::load(place.composition, {}).value();
    EXPECT_EQ(described.info.family, engine.info().family);
    EXPECT_EQ(described.info.pipeline, engine.info().pipeline);
    EXPECT_EQ(described.info.sampler, engine.info().sampler);
    EXPECT_EQ(described.limits.default_width, engine.limits().default_width);
    EXPECT_EQ(described.limits.default_steps, engine.limits().default_steps);
    EXPECT_EQ(described.limits.multiple, engine.limits().multiple);
    EXPECT_EQ(described.limits.most_clip_skip, engine.limits().most_clip_skip);
    EXPECT_EQ(described.weight_bytes, engine.memory(64, 64, 1).weights);
  }
}

TEST_F(ModelCacheTest, TheModelUsedLeastRecentlyGoesFirst) {
  open(bytes("micro-sd1") + bytes("micro-sd2") + bytes("micro-sdxl") - 1);
  ASSERT_TRUE(acquire("micro-sd1").ok());
  ASSERT_TRUE(acquire("micro-sd2").ok());
  ASSERT_TRUE(acquire("micro-sd1").ok());
  EXPECT_EQ(cache_->loaded(), (std::vector<std::string>{"micro-sd1", "micro-sd2"}));
  said_.clear();
  ASSERT_TRUE(acquire("micro-sdxl").ok());
  EXPECT_EQ(said_, "+micro-sdxl-micro-sd2+micro-sdxl");
  EXPECT_EQ(cache_->loaded(), (std::vector<std::string>{"micro-sdxl", "micro-sd1"}));
  EXPECT_EQ(cache_->stats().evictions, 1u);
  EXPECT_EQ(cache_->stats().hits, 1u);
  EXPECT_EQ(cache_->stats().loads, 3u);
}

TEST_F(ModelCacheTest, APinnedModelStaysAndOneThatDoesNotFitBesideItNamesWhatWould) {
  open(bytes("micro-sd1") + largest_ - 1, {"micro-sd1"});
  ASSERT_TRUE(acquire("micro-sd1").ok());
  for (const auto& [name, place] : places_) {
    const auto leased = acquire(name);
    if (name == "micro-sd1" || place.weight_bytes < largest_) {
      EXPECT_TRUE(leased.ok()) << name;
      continue;
    }
    ASSERT_FALSE(leased.ok());
    EXPECT_EQ(leased.error().code, ErrorCode::kOutOfMemory);
    EXPECT_NE(leased.error().message.find("beside pinned models; these would fit: "),
              std::string::npos)
        << leased.error().message;
  }
  EXPECT_NE(std::ranges::count(cache_->loaded(), "micro-sd1"), 0);
}

TEST_F(ModelCacheTest, AModelInUseIsWaitedForAndTheWaitCanBeStopped) {
  open(largest_);
  std::optional<EngineLease> held(acquire("micro-sd1").value());
  std::atomic<bool> loaded = false;
  std::thread waits([&] { loaded = acquire("micro-sdxl").ok(); });
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_FALSE(loaded);
  held.reset();
  waits.join();
  EXPECT_TRUE(loaded);

  held.emplace(acquire("micro-sdxl").value());
  std::thread stops([&] {
    std::this_thread::sleep_for(milliseconds(20));
    stop_.request_stop();
  });
  EXPECT_EQ(acquire("micro-sd1").error().code, ErrorCode::kCancelled);
  stops.join();
}

TEST_F(ModelCacheTest, ManyThreadsThatWantOneModelLoadItOnce) {
  open(largest_ * 3);
  std::vector<std::thread> threads;
  std::atomic<int> good = 0;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back(
        [&] { good += cache_->acquire(places_["micro-sd2"], catalog_, {}, {}).ok() ? 1 : 0; });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 4);
  EXPECT_EQ(cache_->stats().loads, 1u);
}

TEST_F(ModelCacheTest, MemoryForDrawingMakesIdleModelsGo) {
  open(bytes("micro-sd1") + bytes("micro-sd2") + 1000);
  ASSERT_TRUE(acquire("micro-sd2").ok());
  EngineLease held = acquire("micro-sd1").value();
  EXPECT_EQ(held.room(), bytes("micro-sd2") + 1000);
  ASSERT_TRUE(held.reserve(500, {}, {}).ok());
  EXPECT_EQ(cache_->loaded().size(), 2u);
  ASSERT_TRUE(held.reserve(1500, {}, {}).ok());
  EXPECT_EQ(cache_->loaded(), std::vector<std::string>{"micro-sd1"});
  EXPECT_EQ(cache_->stats().drawing_bytes, 1500u);
  const auto refused = held.reserve(bytes("micro-sd2") + 1001, {}, {});
  EXPECT_EQ(refused.error().code, ErrorCode::kOutOfMemory);
  EXPECT_FALSE(refused.error().retryable);
}

TEST_F(ModelCacheTest, ADiscardedModelIsLoadedAnewAndOneWithOtherFilesToo) {
  open(largest_ * 4);
  {
    const EngineLease held = acquire("micro-sd1").value();
    cache_->discard("micro-sd1");
    EXPECT_TRUE(cache_->loaded().empty());
    ASSERT_TRUE(acquire("micro-sd1").ok());
    EXPECT_EQ(cache_->stats().loads, 2u);
  }
  places_["micro-sd1"].version = "another";
  ASSERT_TRUE(acquire("micro-sd1").ok());
  EXPECT_EQ(cache_->stats().loads, 3u);
  EXPECT_EQ(cache_->loaded().size(), 1u);
}

}  // namespace
}  // namespace limner::worker
