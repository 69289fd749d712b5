#include "engine/samplers/registry.h"

#include <gtest/gtest.h>

#include <set>

#include "engine/samplers/toy_model.h"

namespace limner::engine::samplers {
namespace {

using nlohmann::json;

const json kSdxl = {{"_class_name", "EulerDiscreteScheduler"},
                    {"_diffusers_version", "0.19.0.dev0"},
                    {"beta_end", 0.012},
                    {"beta_schedule", "scaled_linear"},
                    {"beta_start", 0.00085},
                    {"clip_sample", false},
                    {"interpolation_type", "linear"},
                    {"num_train_timesteps", 1000},
                    {"prediction_type", "epsilon"},
                    {"sample_max_value", 1.0},
                    {"set_alpha_to_one", false},
                    {"skip_prk_steps", true},
                    {"steps_offset", 1},
                    {"timestep_spacing", "leading"},
                    {"trained_betas", nullptr},
                    {"use_karras_sigmas", false}};
const json kFlow = {{"_class_name", "FlowMatchEulerDiscreteScheduler"},
                    {"num_train_timesteps", 1000},
                    {"shift", 3.0}};

SamplerRequest request_of(const std::string& name, int steps = 5,
                          const std::string& schedule = "default") {
  SamplerRequest request;
  request.name = name;
  request.steps = steps;
  request.schedule = schedule;
  return request;
}

void expect_refused(const json& config, const SamplerRequest& request, ErrorCode code,
                    const std::vector<std::string>& parts) {
  const auto made = make_sampler(config, request);
  ASSERT_FALSE(made.ok());
  EXPECT_EQ(made.error().code, code) << made.error().message;
  for (const std::string& part : parts) {
    EXPECT_NE(made.error().message.find(part), std::string::npos)
        << "no '" << part << "' in: " << made.error().message;
  }
}

TEST(Registry, UnknownSamplerSuggestsNearNames) {
  expect_refused(kSdxl, request_of("eular"), ErrorCode::kInvalidArgument,
                 {"'eular'", "did you mean euler"});
}

TEST(Registry, UnknownScheduleSuggestsNearNames) {
  expect_refused(kSdxl, request_of("euler", 5, "karas"), ErrorCode::kInvalidArgument,
                 {"'karas'", "karras"});
}

TEST(Registry, StepsOutsideTheirRangeAreRefused) {
  for (const int steps : {-1, 0, 1001, 1000000}) {
    expect_refused(kSdxl, request_of("euler", steps), ErrorCode::kInvalidArgument,
                   {"1 to 1000", std::to_string(steps)});
    expect_refused(kFlow, request_of("", steps), ErrorCode::kInvalidArgument, {"1 to 1000"});
  }
  expect_refused(kSdxl, request_of("lcm", 51), ErrorCode::kInvalidArgument, {"1 to 50", "51"});
}

TEST(Registry, UnknownConfigKeyIsNamed) {
  json config = kSdxl;
  config["use_wobbly_sigmas"] = true;
  expect_refused(config, request_of("euler"), ErrorCode::kInvalidModel, {"use_wobbly_sigmas"});
}

TEST(Registry, ValueOutsideItsListIsNamed) {
  json config = kSdxl;
  config["timestep_spacing"] = "sideways";
  expect_refused(config, request_of("euler"), ErrorCode::kInvalidModel,
                 {"timestep_spacing", "sideways", "trailing"});
  config = kSdxl;
  config["beta_schedule"] = "loud";
  expect_refused(config, request_of("euler"), ErrorCode::kInvalidModel, {"beta_schedule", "loud"});
  config = kSdxl;
  config["use_karras_sigmas"] = true;
  config["use_beta_sigmas"] = true;
  expect_refused(config, request_of("euler"), ErrorCode::kInvalidModel, {"use_", "at most one"});
}

TEST(Registry, ScheduleASamplerCannotTakeSaysWhichSamplersCan) {
  expect_refused(kSdxl, request_of("ddim", 5, "karras"), ErrorCode::kInvalidArgument,
                 {"'ddim'", "'karras'", "euler", "trailing"});
  expect_refused(kSdxl, request_of("euler", 5, "lu"), ErrorCode::kInvalidArgument,
                 {"'lu'", "dpmpp_2m"});
  expect_refused(kSdxl, request_of("lcm", 4, "trailing"), ErrorCode::kInvalidArgument,
                 {"trailing"});
}

TEST(Registry, PredictionASamplerCannotTakeIsRefused) {
  json config = kSdxl;
  config["prediction_type"] = "sample";
  expect_refused(config, request_of("euler_a"), ErrorCode::kInvalidArgument, {"'sample'", "euler"});
}

TEST(Registry, FlowModelsAndNoiseSamplersDoNotMix) {
  expect_refused(kFlow, request_of("euler"), ErrorCode::kInvalidArgument, {"flow_euler"});
  expect_refused(kSdxl, request_of("flow_euler"), ErrorCode::kInvalidArgument, {"flow model"});
}

TEST(Registry, DynamicShiftWantsATokenCount) {
  json config = kFlow;
  config["use_dynamic_shifting"] = true;
  expect_refused(config, request_of(""), ErrorCode::kInvalidArgument, {"image tokens"});
}

TEST(Registry, ExplicitTimestepsMustFallAndFit) {
  SamplerRequest request = request_of("euler");
  request.timesteps = {999, 400, 400};
  expect_refused(kSdxl, request, ErrorCode::kInvalidArgument, {"fall"});
  request = request_of("ddpm");
  request.timesteps = {5000, 20};
  expect_refused(kSdxl, request, ErrorCode::kInvalidArgument, {"5000"});
  request = request_of("ddim");
  request.timesteps = {999, 20};
  expect_refused(kSdxl, request, ErrorCode::kInvalidArgument, {"ddim", "explicit timesteps"});
}

TEST(Registry, ExplicitTimestepsAreUsed) {
  SamplerRequest request = request_of("dpmpp_2m");
  request.timesteps = {999, 850, 500, 20};
  EXPECT_EQ(make_or_throw(kSdxl, request)->timesteps(), request.timesteps);
  request.name = "euler";
  EXPECT_EQ(make_or_throw(kSdxl, request)->timesteps(), request.timesteps);
}

TEST(Registry, ExplicitSigmasEndWhereTheCallerSays) {
  SamplerRequest request = request_of("euler");
  request.sigmas = {14.0, 3.0, 0.5, 0.0};
  const auto sampler = make_or_throw(kSdxl, request);
  EXPECT_EQ(sampler->sigmas(), request.sigmas);
  EXPECT_EQ(sampler->timesteps().size(), 3U);
}

TEST(Registry, EmptyNameMeansTheCheckpointsOwnSampler) {
  json config = kSdxl;
  config["_class_name"] = "PNDMScheduler";
  EXPECT_EQ(make_or_throw(config, request_of("", 7))->timesteps().size(), 8U);  // skip_prk_steps
  config["_class_name"] = "DPMSolverMultistepScheduler";
  config["algorithm_type"] = "sde-dpmsolver++";
  config["use_karras_sigmas"] = true;
  const auto sampler = make_or_throw(config, request_of("", 6));
  Noise first(1);
  Noise second(2);
  const at::Tensor x = toy_sample();
  const at::Tensor one = sampler->step(x, x, first);
  sampler->restore({});
  EXPECT_FALSE(at::equal(one, sampler->step(x, x, second)));  // the seed shows: it is the SDE kind
  expect_refused({{"_class_name", "UnheardOfScheduler"}}, request_of(""), ErrorCode::kInvalidModel,
                 {"UnheardOfScheduler", "euler"});
}

TEST(Registry, SharedSettingsCarryOverAndOthersTakeTheNamedClassDefaults) {
  json config = kSdxl;
  config["prediction_type"] = "v_prediction";
  config.erase("clip_sample");
  json same = {
      {"_class_name", "DDIMScheduler"}, {"beta_end", 0.012},   {"beta_schedule", "scaled_linear"},
      {"beta_start", 0.00085},          {"clip_sample", true}, {"prediction_type", "v_prediction"},
      {"set_alpha_to_one", false},      {"steps_offset", 1},   {"timestep_spacing", "leading"}};
  const auto carried = make_or_throw(config, request_of("ddim"));
  const auto own = make_or_throw(same, request_of(""));
  EXPECT_EQ(carried->timesteps(), own->timesteps());
  EXPECT_TRUE(at::equal(run_toy(*carried, toy_sample()), run_toy(*own, toy_sample())));
}

TEST(Registry, EverySamplerRunsEveryScheduleItTakesAtEveryStepCount) {
  for (const SamplerInfo& info : all_samplers()) {
    for (const std::string& schedule : all_schedules()) {
      for (const int steps : {1, 2, 3, 4, 9, 20, 50}) {
        const json& config = info.name == "flow_euler" ? kFlow : kSdxl;
        const auto made = make_sampler(config, request_of(info.name, steps, schedule));
        if (!made) {
          EXPECT_EQ(made.error().code, ErrorCode::kInvalidArgument);
          EXPECT_NE(schedule, "default") << info.name << ": " << made.error().message;
          continue;
        }
        Sampler& sampler = **made;
        const at::Tensor end = run_toy(sampler, toy_sample() * sampler.init_noise_sigma());
        EXPECT_TRUE(at::isfinite(end).all().item<bool>())
            << info.name << " " << schedule << " " << steps;
      }
    }
  }
}

TEST(Registry, APictureContinuesFromItsHistory) {
  for (const SamplerInfo& info : all_samplers()) {
    const json& config = info.name == "flow_euler" ? kFlow : kSdxl;
    const auto straight = make_or_throw(config, request_of(info.name, 6));
    const at::Tensor start = toy_sample() * straight->init_noise_sigma();
    const at::Tensor want = run_toy(*straight, start);

    Noise noise(0);
    at::Tensor x = start;
    auto sampler = make_or_throw(config, request_of(info.name, 6));
    while (!sampler->done()) {
      const History history = sampler->history();
      Noise moved(7);
      moved.restore(noise.state());
      sampler = make_or_throw(config, request_of(info.name, 6));
      sampler->restore(history);
      x = sampler->step(toy_output(sampler->model_input(x), sampler->timestep()), x, moved);
      noise.restore(moved.state());
    }
    EXPECT_TRUE(at::equal(x, want)) << info.name;
  }
}

TEST(Registry, OnlyStochasticSamplersDrawNoise) {
  for (const SamplerInfo& info : all_samplers()) {
    if (info.name == "tcd") continue;  // only with eta
    const json& config = info.name == "flow_euler" ? kFlow : kSdxl;
    const auto sampler = make_or_throw(config, request_of(info.name, 4));
    Noise noise(3);
    const at::Tensor before = noise.state();
    at::Tensor x = toy_sample();
    while (!sampler->done()) x = sampler->step(toy_output(x, sampler->timestep()), x, noise);
    EXPECT_EQ(at::equal(before, noise.state()), !info.stochastic) << info.name;
  }
}

TEST(Registry, NonsenseConfigsAreErrors) {
  const json configs[] = {
      nullptr,
      json::array({1, 2}),
      {{"_class_name", 7}},
      {{"num_train_timesteps", 0}},
      {{"num_train_timesteps", "many"}},
      {{"beta_start", -1.0}},
      {{"beta_end", 1e300}},
      {{"beta_start", 0.0}, {"beta_end", 0.0}},
      {{"beta_start", 0.99}, {"beta_end", 0.999}},
      {{"trained_betas", {0.1, 0.2}}},
      {{"solver_order", 9}},
  };
  for (const json& config : configs) {
    SCOPED_TRACE(config.dump());
    const auto made = make_sampler(config, request_of("euler"));
    ASSERT_FALSE(made.ok());
    EXPECT_EQ(made.error().code, ErrorCode::kInvalidModel) << made.error().message;
  }
}

TEST(Registry, NamesAndTitlesAreUnique) {
  std::set<std::string> names;
  std::set<std::string> titles;
  for (const SamplerInfo& info : all_samplers()) {
    names.insert(info.name);
    titles.insert(info.title);
  }
  EXPECT_EQ(names.size(), all_samplers().size());
  EXPECT_EQ(titles.size(), all_samplers().size());
}

}  // namespace
}  // namespace limner::engine::samplers
