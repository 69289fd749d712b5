#include "contract/job_request.h"

#include <gtest/gtest.h>

namespace limner::contract {
namespace {

JobRequest full_request() {
  JobRequest request;
  request.picture.prompt = "a \"red\" circle \xE2\x80\x94 no 1";
  request.picture.width = 128;
  request.picture.guidance_scale = 0.1;
  request.picture.seed = std::int64_t{1} << 62;
  request.picture.micro.crop_left = 7;
  request.model = "miniature";
  request.adapters = {{.name = "moon", .weight = 0.7}, {.url = "https://x.example/a.safetensors"}};
  request.output = {.format = "webp", .quality = 80, .thumbnails = {64, 256}};
  request.webhook = {.url = "https://x.example/hook", .events = {"completed"}};
  request.metadata = R"({"order":17})";
  return request;
}

TEST(JobRequestText, ComesBackWhole) {
  const JobRequest request = full_request();
  const auto back = job_request_from_text(to_text(request));
  ASSERT_TRUE(back.ok()) << back.error().message;
  EXPECT_EQ(to_text(*back), to_text(request));
  EXPECT_EQ(back->picture.prompt, request.picture.prompt);
  EXPECT_EQ(back->picture.seed, request.picture.seed);
  EXPECT_EQ(back->picture.guidance_scale, 0.1);
  EXPECT_EQ(back->picture.height, std::nullopt);
  EXPECT_EQ(back->picture.micro.crop_left, 7);
  EXPECT_EQ(back->adapters, request.adapters);
  EXPECT_EQ(back->output, request.output);
  EXPECT_EQ(back->webhook, request.webhook);
  EXPECT_EQ(back->metadata, request.metadata);
}

TEST(JobRequestText, RefusesWhatItDoesNotWrite) {
  const std::string text = to_text(full_request());
  for (const std::string& broken :
       {std::string(), std::string("[]"), text.substr(0, text.size() / 2),
        "{\"more\":1," + text.substr(1)}) {
    const auto back = job_request_from_text(broken);
    ASSERT_FALSE(back.ok()) << broken;
    EXPECT_EQ(back.error().code, ErrorCode::kInternal);
  }
}

TEST(JobRequestText, AMissingFieldKeepsItsDefault) {
  const auto back = job_request_from_text(R"({"model":"miniature","picture":{"prompt":"a"}})");
  ASSERT_TRUE(back.ok()) << back.error().message;
  EXPECT_EQ(back->picture.prompt, "a");
  EXPECT_EQ(back->picture.num_images, 1);
  EXPECT_EQ(back->output.format, "png");
}

TEST(JobResultText, ComesBackWhole) {
  JobResult result;
  result.images = {{.image = {.key = "hot/a/b.png",
                              .format = "png",
                              .width = 128,
                              .height = 64,
                              .bytes = 1234,
                              .sha256 = std::string(64, 'a')},
                    .thumbnails = {{.key = "hot/a/c.jpg", .format = "jpeg", .width = 64}},
                    .seed = ~std::uint64_t{0} >> 1,
                    .index = 3}};
  result.model_name = "miniature";
  result.timings.denoise = 12.5;
  result.steps = 32;
  result.warnings = {"cut"};
  const auto back = job_result_from_text(to_text(result));
  ASSERT_TRUE(back.ok()) << back.error().message;
  EXPECT_EQ(to_text(*back), to_text(result));
  EXPECT_EQ(back->steps, 32);
  EXPECT_EQ(back->images.at(0).seed, result.images[0].seed);
  EXPECT_EQ(back->images.at(0).thumbnails.at(0).key, "hot/a/c.jpg");
}

}  // namespace
}  // namespace limner::contract
