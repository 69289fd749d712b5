#include "queue/fair_policy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>
#include <set>

namespace limner::queue {
namespace {

using contract::Tier;

Waiting job(std::int64_t sequence, Tier tier, std::uint32_t account, double cost = 1.0) {
  Waiting made;
  made.sequence = sequence;
  made.tier = tier;
  made.account = account;
  made.cost = cost;
  return made;
}

// Weights alone, and nobody ever promoted.
TierRules plain_rules() {
  TierRules rules;
  rules.reserved = 0.0;
  rules.relax_weight_when_quiet = 1.0;
  rules.longest_wait.fill(std::chrono::hours{10'000});
  return rules;
}

std::vector<std::int64_t> drain(Policy& policy) {
  std::vector<std::int64_t> order;
  while (const auto next = policy.next({}, Millis{0})) order.push_back(next->sequence);
  return order;
}

TEST(FairPolicy, ServesSixteenJobsTenToFiveToOne) {
  FairPolicy policy(plain_rules());
  std::int64_t sequence = 0;
  for (const Tier tier : contract::kTiers) {
    for (int count = 0; count < 100; ++count) policy.add(job(sequence++, tier, 0), Millis{0});
  }
  std::map<Tier, int> served;
  for (int turn = 0; turn < 160; ++turn) ++served[policy.next({}, Millis{0})->tier];
  EXPECT_NEAR(served[Tier::kTurbo], 100, 1);
  EXPECT_NEAR(served[Tier::kFast], 50, 1);
  EXPECT_NEAR(served[Tier::kRelax], 10, 1);
}

TEST(FairPolicy, TakesTurnsBetweenAccountsBySecondsNotByJobs) {
  FairPolicy policy(plain_rules());
  for (int count = 0; count < 40; ++count) policy.add(job(count, Tier::kFast, 1, 1.0), Millis{0});
  for (int count = 40; count < 50; ++count) policy.add(job(count, Tier::kFast, 2, 4.0), Millis{0});
  std::map<std::uint32_t, double> seconds;
  for (int turn = 0; turn < 25; ++turn) {
    const auto next = policy.next({}, Millis{0});
    seconds[next->account] += next->cost;
  }
  EXPECT_NEAR(seconds[1], seconds[2], 4.0);
}

TEST(FairPolicy, LetsANewAccountInAtOnce) {
  FairPolicy policy(plain_rules());
  for (int count = 0; count < 1000; ++count) policy.add(job(count, Tier::kFast, 1), Millis{0});
  for (int turn = 0; turn < 100; ++turn) policy.next({}, Millis{0});
  policy.add(job(5000, Tier::kFast, 2), Millis{0});
  EXPECT_LE(policy.place(5000)->ahead, 1u);
}

TEST(FairPolicy, RunsHigherPriorityFirstInsideAnAccountOnly) {
  FairPolicy policy(plain_rules());
  policy.add(job(1, Tier::kFast, 1), Millis{0});
  policy.add(job(2, Tier::kFast, 1), Millis{0});
  policy.add(job(3, Tier::kFast, 2), Millis{0});
  Waiting urgent = job(4, Tier::kFast, 1);
  urgent.priority = 9;
  policy.add(urgent, Millis{0});
  EXPECT_EQ(drain(policy), (std::vector<std::int64_t>{4, 3, 1, 2}));
}

TEST(FairPolicy, PromotesAJobThatWaitedTooLong) {
  FairPolicy policy;
  policy.add(job(0, Tier::kRelax, 7), Millis{0});
  policy.add(job(1, Tier::kRelax, 7), Millis{0});
  // A fresh relax tier is served at once; its second job then waits behind turbo's ten.
  for (int count = 2; count < 200; ++count) {
    Waiting turbo = job(count, Tier::kTurbo, 1);
    turbo.since = Millis{1000};
    policy.add(turbo, Millis{1000});
  }
  std::set<std::int64_t> early;
  for (int turn = 0; turn < 3; ++turn) early.insert(policy.next({}, Millis{1000})->sequence);
  ASSERT_TRUE(early.contains(0));
  ASSERT_FALSE(early.contains(1));
  EXPECT_EQ(policy.next({}, Millis{300'001})->sequence, 1);
}

TEST(FairPolicy, SteersToAWarmModelButPassesNobodyOverForLong) {
  FairPolicy policy(plain_rules());
  for (int count = 0; count < 60; ++count) {
    Waiting made = job(count, Tier::kFast, static_cast<std::uint32_t>(count));
    made.model = count == 0 ? 1 : 2;
    policy.add(made, Millis{0});
  }
  const std::uint32_t warm = 2;
  const Offer offer{std::span(&warm, 1), 1};
  for (int second = 0; second < 15; ++second) {
    EXPECT_NE(policy.next(offer, Millis{1000 * second})->sequence, 0);
  }
  EXPECT_EQ(policy.next(offer, Millis{15'000})->sequence, 0);
}

TEST(FairPolicy, ACancelledJobGivesItsTurnToItsAccount) {
  FairPolicy policy(plain_rules());
  for (int count = 0; count < 100; ++count) policy.add(job(count, Tier::kFast, 1), Millis{0});
  for (int count = 0; count < 99; ++count) EXPECT_TRUE(policy.remove(count));
  EXPECT_FALSE(policy.remove(5));
  for (int count = 200; count < 210; ++count) policy.add(job(count, Tier::kFast, 2), Millis{0});
  EXPECT_EQ(policy.place(99)->ahead, 0u);
  EXPECT_EQ(drain(policy).front(), 99);
}

// The outside truth of a position: let everything run, and count.
TEST(FairPolicy, APositionIsTheNumberOfJobsThatStartBefore) {
  std::mt19937 random(11);
  for (int trial = 0; trial < 40; ++trial) {
    FairPolicy policy(plain_rules());
    for (std::int64_t sequence = 0; sequence < 300; ++sequence) {
      // Costs that are equal inside an account: then no slot holds a job of another size.
      const auto account = static_cast<std::uint32_t>(random() % 12);
      Waiting made =
          job(sequence, contract::kTiers[account % 3], account,
              1.0 + 0.37 * static_cast<double>(account) + 1e-4 * double(account * account));
      made.priority = static_cast<std::int32_t>(random() % 3);
      policy.add(made, Millis{0});
      if (random() % 4 == 0) policy.next({}, Millis{0});
      if (random() % 9 == 0) policy.remove(static_cast<std::int64_t>(random() % 300));
    }
    std::map<std::int64_t, Place> promised;
    for (std::int64_t sequence = 0; sequence < 300; ++sequence) {
      if (const auto place = policy.place(sequence)) promised.emplace(sequence, *place);
    }
    ASSERT_EQ(promised.size(), policy.size());
    std::size_t ahead = 0;
    double seconds = 0.0;
    while (const auto next = policy.next({}, Millis{0})) {
      EXPECT_EQ(promised.at(next->sequence).ahead, ahead) << "trial " << trial;
      EXPECT_NEAR(promised.at(next->sequence).seconds_ahead, seconds, 1e-6);
      ++ahead;
      seconds += next->cost;
    }
  }
}

TEST(FairPolicy, GivesOutEveryJobOnceWhateverHappens) {
  std::mt19937 random(5);
  for (const TierChoice choice : {TierChoice::kVirtualTime, TierChoice::kRandom}) {
    FairPolicy policy({}, choice, 3);
    std::set<std::int64_t> waiting;
    std::int64_t sequence = 0;
    Millis now{0};
    const std::vector<std::uint32_t> warm = {1, 3};
    for (int step = 0; step < 20'000; ++step) {
      now += Millis{static_cast<int>(random() % 400)};
      const auto dice = random() % 10;
      if (dice < 5) {
        Waiting made =
            job(sequence, contract::kTiers[random() % 3],
                static_cast<std::uint32_t>(random() % 3000), 0.1 + double(random() % 90));
        made.model = static_cast<std::uint32_t>(random() % 5);
        made.priority = static_cast<std::int32_t>(random() % 3) - 1;
        made.since = now;
        policy.add(made, now);
        waiting.insert(sequence++);
      } else if (dice < 9) {
        const Offer offer{random() % 2 == 0 ? std::span(warm) : std::span<const std::uint32_t>{},
                          2};
        const auto next = policy.next(offer, now);
        ASSERT_EQ(next.has_value(), !waiting.empty());
        if (!next) continue;
        ASSERT_EQ(waiting.erase(next->sequence), 1u);
        policy.settle(*next, next->cost * 1.3);
      } else if (sequence > 0) {
        const auto some =
            static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(sequence));
        ASSERT_EQ(policy.remove(some), waiting.erase(some) == 1);
      }
      ASSERT_EQ(policy.size(), waiting.size());
    }
  }
}

TEST(MakePolicy, TakesTheRulesOfTiers) {
  TierRules rules;
  rules.weights = {1.0, 1.0, 8.0};
  rules.relax_weight_when_quiet = 8.0;
  rules.reserved = 0.0;
  for (const std::string& name : policy_names()) {
    auto policy = make_policy(name, 1, rules).value();
    for (std::int64_t i = 0; i < 3'000; ++i) {
      policy->add({.sequence = i, .tier = contract::kTiers[static_cast<std::size_t>(i % 3)]},
                  Millis{0});
    }
    int relax = 0;
    for (int i = 0; i < 1'000; ++i) {
      relax += policy->next({}, Millis{0})->tier == contract::Tier::kRelax ? 1 : 0;
    }
    EXPECT_NEAR(relax, 800, 60) << name;
  }
}

TEST(MakePolicy, NamesTheNearestForAWrongName) {
  const auto made = make_policy("fiar", 0);
  ASSERT_FALSE(made.ok());
  EXPECT_NE(made.error().message.find("fair"), std::string::npos);
}

}  // namespace
}  // namespace limner::queue
