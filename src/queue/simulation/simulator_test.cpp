#include "queue/simulation/simulator.h"

#include <gtest/gtest.h>

#include "queue/simulation/peer_policies.h"

namespace limner::queue {
namespace {

Report run(const std::string& scenario, const std::string& policy, std::uint64_t seed = 1) {
  for (const Scenario& one : scenarios()) {
    if (one.name != scenario) continue;
    return simulate(one, *make_simulated_policy(policy, seed).value(), seed);
  }
  ADD_FAILURE() << "no scenario " << scenario;
  return {};
}

TEST(Simulator, SharesAreTenFiveOneWhenSaturated) {
  for (const std::uint64_t seed : {1u, 2u, 3u}) {
    const Report report = run("saturated", "fair", seed);
    EXPECT_NEAR(report.tiers[0].share, 10.0 / 16.0, 0.02 * 10.0 / 16.0);
    EXPECT_NEAR(report.tiers[1].share, 5.0 / 16.0, 0.02 * 5.0 / 16.0);
    EXPECT_NEAR(report.tiers[2].share, 1.0 / 16.0, 0.02 * 1.0 / 16.0);
    EXPECT_NEAR(report.busy, 1.0, 1e-3);
  }
}

TEST(Simulator, AFloodOfTurboTakesNothingFromModestTiers) {
  for (const std::uint64_t seed : {1u, 2u, 3u}) {
    const Report report = run("flood", "fair", seed);
    EXPECT_NEAR(report.tiers[1].share, report.tiers[1].offered, 0.002);
    EXPECT_NEAR(report.tiers[2].share, report.tiers[2].offered, 0.002);
    EXPECT_LT(report.tiers[1].mean_wait, 10.0);
    EXPECT_LT(report.tiers[2].longest_wait, 300.0 + 7.2);
  }
}

TEST(Simulator, ARelaxFloodKeepsItsReservationAgainstATurboFlood) {
  EXPECT_GE(run("two-floods", "fair").tiers[2].share, 0.098);
}

TEST(Simulator, RelaxWaitsFiveMinutesAtMostOnADayThatFits) {
  for (const std::uint64_t seed : {1u, 2u, 3u}) {
    const Report report = run("busy-day", "fair", seed);
    // A promoted job still waits for a worker: at most one job's time.
    EXPECT_LT(report.tiers[2].longest_wait, 300.0 + 7.2);
  }
}

TEST(Simulator, AccountsOfATierGetEqualSeconds) {
  EXPECT_GE(run("accounts", "fair").jain.value(), 0.99);
  EXPECT_GE(run("accounts", "random").jain.value(), 0.95);
}

TEST(Simulator, EqualSeedsGiveEqualReports) {
  const Report first = run("busy-day", "random", 9), second = run("busy-day", "random", 9);
  EXPECT_EQ(first.tiers[2].longest_wait, second.tiers[2].longest_wait);
  EXPECT_EQ(first.tiers[0].share, second.tiers[0].share);
}

TEST(Simulator, SteeringKeepsUpWhereChangingModelsAllTheTimeDoesNot) {
  const Report steered = run("models", "fair"), unsteered = run("models", "ageing");
  EXPECT_LT(steered.loads, unsteered.loads);
  EXPECT_LT(steered.tiers[1].mean_wait, unsteered.tiers[1].mean_wait / 10.0);
  EXPECT_LT(steered.tiers[2].longest_wait, 300.0);
}

TEST(JainIndex, IsOneForEqualAndOneNthForASingleWinner) {
  EXPECT_DOUBLE_EQ(jain_index({3.0, 3.0, 3.0}), 1.0);
  EXPECT_DOUBLE_EQ(jain_index({5.0, 0.0, 0.0, 0.0}), 0.25);
}

}  // namespace
}  // namespace limner::queue
