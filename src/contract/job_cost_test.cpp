#include "contract/job_cost.h"

#include <gtest/gtest.h>

namespace limner::contract {
namespace {

ValidRequest request(GenerationRequest asked) {
  asked.prompt = "a cat";
  return *validate(asked, Limits{.samplers = {}, .schedules = {"default"}}, 1).request;
}

TEST(JobCost, SizesWithinAFactorOfTwoShareAClass) {
  EXPECT_EQ(job_class("m", request({.width = 512, .height = 512})), "m/262144");
  EXPECT_EQ(job_class("m", request({.width = 504, .height = 512})), "m/262144");
  EXPECT_EQ(job_class("m", request({.width = 520, .height = 512})), "m/524288");
  EXPECT_NE(job_class("m", request({.width = 512, .height = 512})),
            job_class("n", request({.width = 512, .height = 512})));
}

TEST(JobCost, WorkGrowsWithPixelsStepsImagesAndGuidance) {
  const auto work = [](std::int64_t steps, double guidance, std::int64_t images) {
    return job_work(request({.width = 64,
                             .height = 32,
                             .steps = steps,
                             .guidance_scale = guidance,
                             .num_images = images}));
  };
  EXPECT_EQ(work(1, 1.0, 1), 64 * 32);
  EXPECT_EQ(work(5, 1.0, 3), 64 * 32 * 15);
  EXPECT_EQ(work(5, 4.0, 3), 64 * 32 * 30);
}

}  // namespace
}  // namespace limner::contract
