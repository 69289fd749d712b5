// platform knows no queue, so the defaults of its settings are written twice: here they are held
// together.
#include <gtest/gtest.h>

#include "platform/config/service_config.h"
#include "queue/queue.h"

namespace limner::cli {
namespace {

TEST(ConfigDefaults, AreThoseOfTheQueue) {
  const platform::QueueConfig config;
  const queue::QueueOptions options;
  EXPECT_EQ(options.lease, config.lease);
  EXPECT_EQ(options.most_crashes, config.most_crashes);
  EXPECT_EQ(options.most_failures, config.most_failures);
  EXPECT_EQ(static_cast<std::int64_t>(options.limits.most_per_account),
            config.most_waiting_per_account);
  EXPECT_EQ(options.rules.reserved, config.reserved_share);
  EXPECT_TRUE(queue::make_policy(config.policy, 1).ok());
  const platform::TierConfig* const tiers[] = {&config.turbo, &config.fast, &config.relax};
  for (const contract::Tier tier : contract::kTiers) {
    const auto i = static_cast<std::size_t>(tier);
    EXPECT_EQ(options.rules.weights[i], tiers[i]->weight) << contract::name(tier);
    EXPECT_EQ(options.rules.longest_wait[i], tiers[i]->longest_wait) << contract::name(tier);
    EXPECT_EQ(static_cast<std::int64_t>(options.limits.most_waiting[i]), tiers[i]->most_waiting);
  }
}

}  // namespace
}  // namespace limner::cli
