#include "runpod/volume/target.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>

namespace limner::runpod {
namespace {

using Variables = std::map<std::string, std::string>;

class Target : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "limner-target-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
    request_.env_file = folder_ / ".env";
    std::ofstream(request_.env_file) << "";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  Result<delivery::S3Options> with(Variables variables) {
    request_.environment = [variables](const std::string& name) {
      const auto found = variables.find(name);
      return found == variables.end() ? "" : found->second;
    };
    return upload_target(request_);
  }

  const Variables whole_ = {{"RUNPOD_S3_ACCESS_KEY", "user_1"},
                            {"RUNPOD_S3_SECRET_KEY", "rps_1"},
                            {"RUNPOD_S3_REGION", "eu-ro-1"},
                            {"RUNPOD_VOLUME_ID", "abc123"}};
  std::filesystem::path folder_;
  TargetRequest request_;
};

// docs.runpod.io/storage/s3-api: the endpoint's name holds the data centre, the region is it.
TEST_F(Target, RunPodsEndpointAndRegionFollowFromOneAnother) {
  auto options = with(whole_);
  ASSERT_TRUE(options.ok()) << options.error().message;
  EXPECT_EQ(options->endpoint, "https://s3api-eu-ro-1.runpod.io");
  EXPECT_EQ(options->region, "EU-RO-1");
  EXPECT_EQ(options->bucket, "abc123");
  EXPECT_EQ(options->credentials.access_key_id, "user_1");
  EXPECT_EQ(options->addressing, delivery::Addressing::kPath);

  Variables variables = whole_;
  variables.erase("RUNPOD_S3_REGION");
  variables["RUNPOD_S3_ENDPOINT"] = "https://s3api-us-ks-2.runpod.io/";
  EXPECT_EQ(with(variables)->region, "US-KS-2");
}

TEST_F(Target, WhatIsGivenByHandWinsOverTheEnvironmentAndThatOverTheFile) {
  std::ofstream(request_.env_file) << "RUNPOD_VOLUME_ID=of-the-file\nAWS_ACCESS_KEY_ID=id\n"
                                      "AWS_SECRET_ACCESS_KEY='se cret'\nAWS_REGION=eu-west-1\n"
                                      "AWS_ENDPOINT_URL=http://127.0.0.1:9000\n";
  auto options = with({});
  ASSERT_TRUE(options.ok()) << options.error().message;
  EXPECT_EQ(options->bucket, "of-the-file");
  EXPECT_EQ(options->credentials.secret_access_key, "se cret");
  EXPECT_EQ(options->region, "eu-west-1");
  EXPECT_EQ(with({{"RUNPOD_VOLUME_ID", "of-the-environment"}})->bucket, "of-the-environment");
  request_.bucket = "by-hand";
  EXPECT_EQ(with({{"RUNPOD_VOLUME_ID", "of-the-environment"}})->bucket, "by-hand");
}

TEST_F(Target, WhatIsMissingIsNamed) {
  const std::pair<const char*, const char*> cases[] = {
      {"RUNPOD_S3_SECRET_KEY", "RUNPOD_S3_ACCESS_KEY is set and RUNPOD_S3_SECRET_KEY is not"},
      {"RUNPOD_S3_REGION", "--region"},
      {"RUNPOD_VOLUME_ID", "--bucket"}};
  for (const auto& [name, wanted] : cases) {
    Variables variables = whole_;
    variables.erase(name);
    const auto options = with(variables);
    ASSERT_FALSE(options.ok()) << name;
    EXPECT_NE(options.error().message.find(wanted), std::string::npos) << options.error().message;
    EXPECT_EQ(options.error().message.find("user_1"), std::string::npos);
  }
  request_.env_file = folder_ / "none";
  EXPECT_EQ(with(whole_).error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace limner::runpod
