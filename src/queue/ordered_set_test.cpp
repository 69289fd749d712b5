#include "queue/ordered_set.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace limner::queue {
namespace {

// Against a sorted map, for every operation on random histories.
TEST(OrderedSet, AgreesWithASortedMap) {
  std::mt19937 random(7);
  for (int history = 0; history < 20; ++history) {
    OrderedSet<int, int> set;
    std::map<int, double> plain;
    for (int step = 0; step < 400; ++step) {
      const int key = static_cast<int>(random() % 200);
      if (plain.contains(key)) {
        EXPECT_TRUE(set.erase(key));
        plain.erase(key);
      } else {
        EXPECT_FALSE(set.erase(key));
        const double size = static_cast<double>(random() % 10);
        set.insert({key, 3 * key, size});
        plain.emplace(key, size);
      }
      ASSERT_EQ(set.size(), plain.size());
      const int wanted = static_cast<int>(random() % 200);
      const double limit = static_cast<double>(random() % 300);
      std::size_t below = 0, begun = 0, rank = 0;
      double below_size = 0.0, begun_size = 0.0;
      for (const auto& [other, size] : plain) {
        if (other < wanted) ++below, below_size += size;
        if (begun_size < limit) ++begun, begun_size += size;
        ASSERT_EQ(set.at(rank).key, other);
        ASSERT_EQ(set.at(rank++).payload, 3 * other);
      }
      ASSERT_EQ(set.before(wanted), (std::pair{below, below_size}));
      ASSERT_EQ(set.begun_before(limit), (std::pair{begun, begun_size}));
    }
  }
}

TEST(OrderedSet, StaysShallowWhenKeysComeInOrder) {
  OrderedSet<int, int> set;
  for (int key = 0; key < 200'000; ++key) set.insert({key, 0, 1.0});
  EXPECT_EQ(set.before(150'000).first, 150'000u);
  EXPECT_EQ(set.total(), 200'000.0);
  for (int key = 0; key < 200'000; ++key) ASSERT_TRUE(set.erase(key));
  EXPECT_TRUE(set.empty());
}

}  // namespace
}  // namespace limner::queue
