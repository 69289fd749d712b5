#include "contract/validate.h"

#include <gtest/gtest.h>

#include <cmath>

namespace limner::contract {
namespace {

Limits limits() {
  Limits limits;
  limits.samplers = {"euler", "euler_a", "ddim"};
  limits.schedules = {"default", "karras"};
  return limits;
}

TEST(Validate, FillsInWhatIsAbsent) {
  GenerationRequest request;
  request.prompt = "a red circle";
  const Validation validation = validate(request, limits(), 42);
  ASSERT_TRUE(validation.ok()) << validation.error().message;
  EXPECT_EQ(validation.request->width(), 1024);
  EXPECT_EQ(validation.request->steps(), 30);
  EXPECT_EQ(validation.request->guidance_scale(), 5.0);
  EXPECT_EQ(validation.request->seed(), 21u);
  EXPECT_EQ(validation.request->seed(3), 24u);
  EXPECT_EQ(*validation.request->micro().original_width, 1024);
}

TEST(Validate, NamesEveryWrongFieldAtOnce) {
  GenerationRequest request;
  request.prompt = std::string(1'000'000, 'a');
  request.width = 0;
  request.height = 1'000'000'000;
  request.steps = 1'000'000;
  request.guidance_scale = std::nan("");
  request.sampler = "eular";
  request.seed = -1;
  const Validation validation = validate(request, limits(), 0);
  ASSERT_FALSE(validation.ok());
  std::vector<std::string> fields;
  for (const FieldError& wrong : validation.errors) fields.push_back(wrong.field);
  EXPECT_EQ(fields, (std::vector<std::string>{"prompt", "width", "height", "steps",
                                              "guidance_scale", "sampler", "seed"}));
  EXPECT_NE(validation.error().message.find("did you mean euler"), std::string::npos);
  EXPECT_EQ(validation.error().code, ErrorCode::kInvalidArgument);
}

TEST(Validate, NamesTheNearestSizes) {
  GenerationRequest request;
  request.width = 517;
  const Validation validation = validate(request, limits(), 0);
  ASSERT_FALSE(validation.ok());
  EXPECT_EQ(validation.errors[0].message,
            "must be divisible by 8, got 517; the nearest are 512 and 520");
}

TEST(Validate, RefusesMicroConditioningWhereTheModelHasNone) {
  Limits limits_without = limits();
  limits_without.micro_conditioning = false;
  GenerationRequest request;
  EXPECT_TRUE(validate(request, limits_without, 0).ok());
  request.micro.crop_left = 0;
  request.micro.crop_top = 0;
  request.micro.target_width = 512;
  const Validation validation = validate(request, limits_without, 0);
  ASSERT_EQ(validation.errors.size(), 2U);
  EXPECT_EQ(validation.errors[0].field, "crop");
  EXPECT_EQ(validation.errors[1].field, "target_size");
  EXPECT_TRUE(validate(request, limits(), 0).ok());
}

TEST(Validate, HowAPromptIsReadFollowsFromWhatWasNamed) {
  const auto options = [](const char* syntax, const char* long_prompt, const char* weighting) {
    GenerationRequest request;
    request.prompt_syntax = syntax;
    request.long_prompt = long_prompt;
    request.weighting = weighting;
    return validate(request, limits(), 0).request.value().prompt_options();
  };
  EXPECT_EQ(options("", "chunk", ""), PromptOptions{});
  EXPECT_EQ(options("compel", "chunk", ""),
            (PromptOptions{PromptSyntax::kCompel, LongPrompt::kChunk, Weighting::kCompel}));
  EXPECT_EQ(options("", "truncate", "lpw"),
            (PromptOptions{PromptSyntax::kPlain, LongPrompt::kTruncate, Weighting::kLpw}));
  EXPECT_EQ(options("a1111", "truncate", "").syntax, PromptSyntax::kA1111);
  const GenerationRequest wrong{.prompt_syntax = "compell", .weighting = "gaudy"};
  EXPECT_EQ(validate(wrong, limits(), 0).errors.size(), 2u);
}

TEST(Validate, TheLargestSeedStillLeavesRoomForEveryImage) {
  GenerationRequest request;
  request.seed = std::numeric_limits<std::int64_t>::max();
  EXPECT_FALSE(validate(request, limits(), 0).ok());
}

}  // namespace
}  // namespace limner::contract
