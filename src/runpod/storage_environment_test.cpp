#include "runpod/storage_environment.h"

#include <gtest/gtest.h>

namespace limner::runpod {
namespace {

TEST(StorageEnvironment, NamesSupabaseBeforeWhatIsConfigured) {
  platform::DeliveryConfig config;
  config.endpoint = "https://s3.example/bucket";
  const auto made = storage_config(config, {{"SUPABASE_URL", "https://p.supabase.co"},
                                            {"SUPABASE_KEY", "anon"},
                                            {"SUPABASE_SERVICE_ROLE_KEY", "service"},
                                            {"SUPABASE_BUCKET", "heads"}});
  ASSERT_TRUE(made.ok()) << made.error().message;
  EXPECT_EQ(made->store, "supabase");
  EXPECT_EQ(made->supabase_url, "https://p.supabase.co");
  EXPECT_EQ(made->supabase_key.value, "service");
  EXPECT_EQ(made->bucket, "heads");
  const auto second =
      storage_config({}, {{"SUPABASE_URL", "u"}, {"SUPABASE_KEY", "k"}, {"SUPABASE_BUCKET", "b"}});
  EXPECT_EQ(second->supabase_key.value, "k");
}

TEST(StorageEnvironment, LeavesTheConfigurationAloneWithoutIt) {
  platform::DeliveryConfig config;
  config.endpoint = "https://s3.example/bucket";
  const auto same = storage_config(config, {{"SUPABASE_URL", ""}});
  EXPECT_EQ(same->store, config.store);
  EXPECT_EQ(same->endpoint, config.endpoint);
}

TEST(StorageEnvironment, SaysWhichVariableIsMissing) {
  const auto missing = [](Environment environment) {
    return storage_config({}, environment).error().message;
  };
  EXPECT_TRUE(missing({{"SUPABASE_URL", "u"}, {"SUPABASE_KEY", "k"}})
                  .starts_with("[storage] SUPABASE_BUCKET is not set"));
  EXPECT_TRUE(missing({{"SUPABASE_URL", "u"}, {"SUPABASE_BUCKET", "b"}})
                  .starts_with("[storage] SUPABASE_SERVICE_ROLE_KEY (or SUPABASE_KEY) is not"));
  EXPECT_TRUE(missing({{"SUPABASE_KEY", "k"}, {"SUPABASE_BUCKET", "b"}})
                  .starts_with("[storage] SUPABASE_URL is not set"));
}

}  // namespace
}  // namespace limner::runpod
