#include "engine/lora/adapter_cache.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace limner::engine::lora {
namespace {

AdapterCache::Pointer adapter(std::uint64_t bytes) {
  auto made = std::make_shared<AttachedAdapter>();
  made->memory_bytes = bytes;
  return made;
}

TEST(AdapterCache, TheLeastRecentlyUsedGoesFirst) {
  AdapterCache cache(100);
  int loads = 0;
  const auto get = [&](const std::string& key) {
    return cache.get(key, [&] {
      ++loads;
      return adapter(40);
    });
  };
  const auto a = get("a");
  get("b");
  EXPECT_EQ(get("a"), a);
  get("c");  // b is out
  EXPECT_EQ(loads, 3);
  EXPECT_EQ(get("a"), a);
  EXPECT_EQ(loads, 3);
  get("b");
  EXPECT_EQ(loads, 4);
  const AdapterCacheStats stats = cache.stats();
  EXPECT_EQ(stats.hits, 2u);
  EXPECT_EQ(stats.misses, 4u);
  EXPECT_EQ(stats.evictions, 2u);
  EXPECT_EQ(stats.bytes, 80u);
  EXPECT_EQ(stats.adapters, 2u);
}

TEST(AdapterCache, OneLargerThanAllIsReturnedAndNotKept) {
  AdapterCache cache(10);
  EXPECT_EQ(cache.get("big", [] { return adapter(11); })->memory_bytes, 11u);
  EXPECT_EQ(cache.stats().bytes, 0u);
  EXPECT_EQ(cache.stats().adapters, 0u);
}

TEST(AdapterCache, AFailedLoadIsNotRemembered) {
  AdapterCache cache(10);
  EXPECT_THROW(cache.get("x",
                         []() -> AdapterCache::Pointer {
                           throw Failure(ErrorCode::kInvalidModel, "broken");
                         }),
               Failure);
  EXPECT_EQ(cache.stats().adapters, 0u);
  EXPECT_NE(cache.get("x", [] { return adapter(1); }), nullptr);
}

TEST(AdapterCache, ThreadsThatAskForOneFileAtOnceShareOneLoad) {
  AdapterCache cache(1000);
  std::atomic<int> loads{0}, asked{0};
  std::vector<AdapterCache::Pointer> got(8);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < got.size(); ++i) {
    threads.emplace_back([&, i] {
      ++asked;
      got[i] = cache.get("one", [&] {
        ++loads;
        while (asked < 8) std::this_thread::yield();
        return adapter(5);
      });
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(loads, 1);
  for (const auto& each : got) EXPECT_EQ(each, got.front());
  EXPECT_EQ(cache.stats().hits, 7u);
}

TEST(AdapterCache, ManyThreadsAndKeysKeepTheBytesTrue) {
  AdapterCache cache(50);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&cache, t] {
      for (unsigned i = 0; i < 2000; ++i) {
        const unsigned key = (i * 7 + t * 3) % 11;
        try {
          const auto got = cache.get(std::to_string(key), [key] {
            if (key == 10) throw Failure(ErrorCode::kIo, "never");
            return adapter(key + 5);
          });
          EXPECT_EQ(got->memory_bytes, key + 5);
        } catch (const Failure&) {
          EXPECT_EQ(key, 10u);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const AdapterCacheStats stats = cache.stats();
  EXPECT_LE(stats.bytes, 50u);
  EXPECT_EQ(stats.hits + stats.misses, 8000u);
}

}  // namespace
}  // namespace limner::engine::lora
