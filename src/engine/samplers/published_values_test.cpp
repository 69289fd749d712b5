// Sums over |x| that diffusers' own scheduler tests publish for the toy model, 10 steps unless said
// otherwise; digits beyond those published do not count.
#include <gtest/gtest.h>

#include "engine/samplers/toy_model.h"

namespace limner::engine::samplers {
namespace {

using nlohmann::json;

struct Run {
  std::string name;
  json config;
  int steps = 10;
  std::size_t start = 0;  // call position to begin at, from a noised sample
  bool feed_scaled = false;
  std::string schedule = "default";
};

at::Tensor result_of(const Run& run) {
  SamplerRequest request;
  request.name = run.name;
  request.steps = run.steps;
  request.schedule = run.schedule;
  const std::unique_ptr<Sampler> sampler = make_or_throw(run.config, request);
  at::Tensor x = toy_sample() * sampler->init_noise_sigma();
  if (run.start > 0) {
    x = sampler->add_noise(x, toy_noise(), run.start);
    sampler->restore(History{.position = run.start, .counter = 0, .tensors = {}});
  }
  return run_toy(*sampler, x, run.feed_scaled);
}

double sum_of(const Run& run) {
  return absolute_sum(result_of(run));
}
double mean_of(const Run& run) {
  return sum_of(run) / static_cast<double>(kToyCount);
}

json with(json config, const json& more) {
  config.update(more);
  return config;
}

const json kLinear = {{"beta_start", 0.0001}, {"beta_end", 0.02}, {"beta_schedule", "linear"}};
const json kEleven = with(kLinear, {{"num_train_timesteps", 1100}});
const json kVelocity = {{"prediction_type", "v_prediction"}};
const json kKarras = {{"use_karras_sigmas", true}};
const json kMinimum = with(kLinear, {{"final_sigmas_type", "sigma_min"}});
const json kMulti = with(kMinimum, {{"lower_order_final", false}});
const json kClose = with(kLinear, {{"beta_start", 0.01}, {"set_alpha_to_one", false}});
const json kCloseToOne = with(kLinear, {{"beta_start", 0.01}, {"set_alpha_to_one", true}});

TEST(PublishedValues, Ddim) {
  EXPECT_NEAR(sum_of({"ddim", kLinear}), 172.0067, 2e-3);
  EXPECT_NEAR(sum_of({"ddim", with(kLinear, kVelocity)}), 52.5302, 2e-3);
  EXPECT_NEAR(sum_of({"ddim", kCloseToOne}), 149.8295, 2e-3);
  EXPECT_NEAR(sum_of({"ddim", kClose}), 149.0784, 2e-3);
  EXPECT_NEAR(sum_of({"ddim", kLinear, 10, 8}), 354.5418, 4e-3);
}

TEST(PublishedValues, Ddpm) {
  EXPECT_NEAR(sum_of({"ddpm", kLinear, 1000}), 258.9606, 5e-3);
  EXPECT_NEAR(sum_of({"ddpm", with(kLinear, kVelocity), 1000}), 202.0296, 5e-3);
  EXPECT_NEAR(sum_of({"ddpm", kLinear, 1000, 998}), 387.9466, 5e-3);
}

TEST(PublishedValues, DpmSolverMultistep) {
  EXPECT_NEAR(sum_of({"dpmpp_2m", kMulti}), 253.5529, 5e-3);
  EXPECT_NEAR(mean_of({"dpmpp_2m", with(kMulti, kVelocity)}), 0.2251, 6e-5);
  EXPECT_NEAR(mean_of({"dpmpp_2m", with(with(kMulti, kVelocity), kKarras)}), 0.2092, 6e-5);
  EXPECT_NEAR(mean_of({"dpmpp_2m", with(kMulti, kVelocity), 10, 0, false, "lu"}), 0.1554, 6e-5);
  const json thresholding = {
      {"thresholding", true}, {"dynamic_thresholding_ratio", 0.87}, {"sample_max_value", 0.5}};
  EXPECT_NEAR(mean_of({"dpmpp_2m", with(kMulti, thresholding)}), 1.1364, 1.2e-4);
  EXPECT_NEAR(sum_of({"dpmpp_2m", kMulti, 10, 5}), 318.4111, 5e-3);
}

TEST(PublishedValues, DpmSolverSinglestep) {
  EXPECT_NEAR(mean_of({"dpmpp_2s", kMulti}), 0.2791, 6e-5);
  EXPECT_NEAR(mean_of({"dpmpp_2s", kMulti, 10, 0, false, "karras"}), 0.2248, 6e-5);
  EXPECT_NEAR(mean_of({"dpmpp_2s", with(kMulti, kVelocity)}), 0.1453, 6e-5);
  EXPECT_NEAR(mean_of({"dpmpp_2s", with(kMulti, kVelocity), 10, 0, false, "karras"}), 0.0649, 6e-5);
  EXPECT_NEAR(sum_of({"dpmpp_2s", kMulti, 10, 5}), 269.2187, 5e-3);
}

TEST(PublishedValues, SinglestepGroupsMayStartAnywhere) {
  SamplerRequest request;
  request.name = "dpmpp_2s";
  request.steps = 50;
  const auto sampler = make_or_throw(kMulti, request);
  sampler->restore(History{.position = 3, .counter = 0, .tensors = {}});
  const double mean =
      absolute_sum(run_toy(*sampler, toy_sample())) / static_cast<double>(kToyCount);
  EXPECT_NEAR(mean, 0.2574, 6e-5);
}

TEST(PublishedValues, Euler) {
  EXPECT_NEAR(sum_of({"euler", kEleven, 10, 0, true}), 10.0807, 2e-4);
  EXPECT_NEAR(sum_of({"euler", with(kEleven, kVelocity), 10, 0, true}), 2.418e-10, 1e-13);
  EXPECT_NEAR(sum_of({"euler", kEleven, 10, 0, true, "karras"}), 124.52299, 2e-3);
  EXPECT_NEAR(sum_of({"euler", kEleven, 10, 8, true}), 57062.9297, 1.0);
}

TEST(PublishedValues, EulerAncestral) {
  EXPECT_NEAR(sum_of({"euler_a", kEleven, 10, 0, true}), 152.3192, 2e-3);
  EXPECT_NEAR(sum_of({"euler_a", with(kEleven, kVelocity), 10, 0, true}), 108.4439, 2e-3);
  EXPECT_NEAR(sum_of({"euler_a", kEleven, 10, 8, true}), 56163.0508, 1.0);
}

TEST(PublishedValues, EulerSteppedAsAPipelineDoes) {
  EXPECT_NEAR(sum_of({"euler_a", kEleven}), 233.2862, 3e-3);
  const json sdxl = {{"_class_name", "EulerDiscreteScheduler"},
                     {"beta_start", 0.00085},
                     {"beta_end", 0.012},
                     {"beta_schedule", "scaled_linear"},
                     {"timestep_spacing", "leading"},
                     {"steps_offset", 1}};
  EXPECT_NEAR(sum_of({"", sdxl, 30}), 192.5599, 3e-3);
}

TEST(PublishedValues, ConsistencyModels) {
  EXPECT_NEAR(sum_of({"lcm", json::object(), 1}), 18.7097, 2e-4);
  EXPECT_NEAR(sum_of({"lcm", json::object(), 4}), 189.0072, 3e-3);
  EXPECT_NEAR(sum_of({"lcm", json::object(), 10}), 197.7616, 3e-3);
  EXPECT_NEAR(sum_of({"tcd", json::object(), 1}), 29.8715, 4e-4);
  EXPECT_NEAR(sum_of({"tcd", json::object(), 10}), 181.2040, 3e-3);
}

TEST(PublishedValues, UniPc) {
  EXPECT_NEAR(mean_of({"unipc", kMinimum}), 0.2464, 6e-5);
  EXPECT_NEAR(mean_of({"unipc", kMinimum, 10, 0, false, "karras"}), 0.2925, 6e-5);
  EXPECT_NEAR(mean_of({"unipc", with(kMinimum, kVelocity)}), 0.1014, 6e-5);
  EXPECT_NEAR(mean_of({"unipc", with(kMinimum, kVelocity), 10, 0, false, "karras"}), 0.1962, 6e-5);
  EXPECT_NEAR(sum_of({"unipc", kMinimum, 10, 8}), 315.5757, 5e-3);
}

TEST(PublishedValues, Heun) {
  EXPECT_NEAR(sum_of({"heun", kEleven, 10, 0, true}), 0.1233, 1e-4);
  EXPECT_NEAR(mean_of({"heun", with(kEleven, kVelocity), 10, 0, true}), 0.0, 1e-5);
  EXPECT_NEAR(sum_of({"heun", kEleven, 10, 0, true, "karras"}), 0.000152598, 1e-8);
  EXPECT_NEAR(sum_of({"heun", kEleven, 10, 16, true}), 75074.8906, 2.0);
}

TEST(PublishedValues, Lms) {
  EXPECT_NEAR(sum_of({"lms", kEleven, 10, 0, true}), 1006.388, 2e-2);
  EXPECT_NEAR(sum_of({"lms", with(kEleven, kVelocity), 10, 0, true}), 0.0017, 1e-4);
  EXPECT_NEAR(sum_of({"lms", kEleven, 10, 0, true, "karras"}), 3812.9927, 0.1);
  EXPECT_NEAR(sum_of({"lms", kEleven, 10, 8, true}), 27663.6895, 1.0);
}

TEST(PublishedValues, Pndm) {
  EXPECT_NEAR(sum_of({"pndm", kLinear}), 198.1318, 3e-3);
  EXPECT_NEAR(sum_of({"pndm", with(kLinear, kVelocity)}), 67.3986, 2e-3);
  EXPECT_NEAR(sum_of({"pndm", kCloseToOne}), 230.0399, 1e-2);
  EXPECT_NEAR(sum_of({"pndm", kClose}), 186.9482, 1e-2);
}

TEST(PublishedValues, Deis) {
  EXPECT_NEAR(mean_of({"deis", kLinear}), 0.23916, 2e-5);
  EXPECT_NEAR(mean_of({"deis", with(kLinear, kVelocity)}), 0.091, 6e-4);
  EXPECT_NEAR(sum_of({"deis", kLinear, 10, 8}), 315.3016, 5e-3);
}

TEST(PublishedValues, Kdpm2) {
  EXPECT_NEAR(sum_of({"kdpm2", kEleven, 10, 0, true}), 20.4125, 3e-4);
  EXPECT_NEAR(sum_of({"kdpm2", kEleven, 10, 16, true}), 70408.4062, 2.0);
  EXPECT_NEAR(sum_of({"kdpm2_a", kEleven, 10, 0, true}), 13979.9433, 0.5);
  EXPECT_NEAR(sum_of({"kdpm2_a", with(kEleven, kVelocity), 10, 0, true}), 331.8133, 1e-2);
  EXPECT_NEAR(sum_of({"kdpm2_a", kEleven, 10, 16, true}), 93087.3437, 3.0);
}

}  // namespace
}  // namespace limner::engine::samplers
