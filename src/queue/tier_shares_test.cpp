#include "queue/tier_shares.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

namespace limner::queue {
namespace {

void expect_shares(const PerTier<double>& got, const PerTier<double>& want) {
  for (std::size_t tier = 0; tier < want.size(); ++tier) EXPECT_NEAR(got[tier], want[tier], 1e-12);
}

TEST(TierShares, WeighTenFiveOneWhenAllAreSaturated) {
  expect_shares(tier_shares({1e6, 1e6, 1e6}, 4, {}), {0.625, 0.3125, 0.0625});
}

TEST(TierShares, LiftAModestTierToItsReservation) {
  // 2 * 60 s of others' work keep relax at weight 1; 10 s of its own are within its reserve of 60
  // s.
  expect_shares(tier_shares({1e6, 1e6, 10.0}, 2, {}), {0.6, 0.3, 0.1});
  expect_shares(tier_shares({1e6, 0.0, 1e6}, 2, {}), {0.9, 0.0, 0.1});
}

TEST(TierShares, GiveAllToATierThatIsAlone) {
  expect_shares(tier_shares({0.0, 0.0, 5.0}, 2, {}), {0.0, 0.0, 1.0});
  expect_shares(tier_shares({0.0, 0.0, 0.0}, 2, {}), {0.0, 0.0, 0.0});
}

TEST(TierShares, LetRelaxGrowWhileTheOthersHaveLittle) {
  const double busy = tier_shares({120.0, 0.0, 50.0}, 2, {})[2];
  const double half = tier_shares({60.0, 0.0, 50.0}, 2, {})[2];
  const double quiet = tier_shares({1e-9, 0.0, 50.0}, 2, {})[2];
  EXPECT_NEAR(busy, 0.1, 1e-12);
  EXPECT_NEAR(half, 3.0 / 13.0, 1e-12);
  EXPECT_NEAR(quiet, 5.0 / 15.0, 1e-9);
}

TEST(TierShares, SumToOneAndKeepEveryReservationUnlessAllAreSaturated) {
  std::mt19937 random(3);
  for (int trial = 0; trial < 10'000; ++trial) {
    PerTier<double> waiting{};
    for (double& seconds : waiting) seconds = random() % 3 == 0 ? 0.0 : double(random() % 200);
    const std::size_t workers = 1 + random() % 8;
    const PerTier<double> shares = tier_shares(waiting, workers, {});
    bool saturated = true;
    for (const contract::Tier tier : contract::kTiers) {
      const auto index = static_cast<std::size_t>(tier);
      saturated = saturated && waiting[index] > reserve_seconds(tier, workers, {});
    }
    const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
    for (std::size_t tier = 0; tier < shares.size(); ++tier) {
      if (waiting[tier] == 0.0) {
        ASSERT_EQ(shares[tier], 0.0);
      } else {
        ASSERT_NEAR(sum, 1.0, 1e-12);
        ASSERT_GE(shares[tier], (saturated ? 0.0625 : 0.1) - 1e-12);
      }
    }
  }
}

}  // namespace
}  // namespace limner::queue
