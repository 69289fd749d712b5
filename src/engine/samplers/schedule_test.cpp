// Timesteps, sigmas and flow schedules against published numbers and mathematics.
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "engine/samplers/sigma_curves.h"
#include "engine/samplers/toy_model.h"

namespace limner::engine::samplers {
namespace {

using nlohmann::json;

const json kLatent = {
    {"beta_start", 0.00085}, {"beta_end", 0.012}, {"beta_schedule", "scaled_linear"}};

std::unique_ptr<Sampler> sampler_of(const std::string& name, json config, int steps,
                                    const std::string& schedule = "default") {
  SamplerRequest request;
  request.name = name;
  request.steps = steps;
  request.schedule = schedule;
  return make_or_throw(config, request);
}

void expect_values(const std::vector<double>& got, const std::vector<double>& want,
                   double tolerance) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], tolerance) << i;
}

TEST(NoiseSchedule, LatentDiffusionConstants) {
  Settings settings;
  settings.beta_start = 0.00085;
  settings.beta_end = 0.012;
  settings.beta_schedule = "scaled_linear";
  const NoiseSchedule noise = make_noise_schedule(settings, true);
  ASSERT_EQ(noise.sigmas.size(), 1000U);
  EXPECT_NEAR(noise.alphas_cumprod.front(), 0.99915, 1e-7);
  EXPECT_NEAR(noise.alphas_cumprod.back(), 0.0046600985, 5e-9);
  EXPECT_NEAR(noise.sigmas.front(), 0.0291672, 5e-7);
  EXPECT_NEAR(noise.sigmas.back(), 14.6146412, 1e-5);
}

TEST(NoiseSchedule, ZeroTerminalSnrEndsInPureNoise) {
  Settings settings;
  settings.rescale_betas_zero_snr = true;
  EXPECT_EQ(make_noise_schedule(settings, false).alphas_cumprod.back(), 0.0);
  EXPECT_NEAR(make_noise_schedule(settings, true).sigmas.back(), 4096.0, 1.0);
}

TEST(Schedule, SdxlLeadingWithOffset) {
  json config = kLatent;
  config.update({{"timestep_spacing", "leading"}, {"steps_offset", 1}});
  const auto sampler = sampler_of("euler", config, 30);
  ASSERT_EQ(sampler->timesteps().size(), 30U);
  ASSERT_EQ(sampler->sigmas().size(), 31U);
  expect_values({sampler->timesteps().begin(), sampler->timesteps().begin() + 3}, {958, 925, 892},
                0);
  expect_values({sampler->timesteps().end() - 3, sampler->timesteps().end()}, {67, 34, 1}, 0);
  expect_values({sampler->sigmas().begin(), sampler->sigmas().begin() + 3},
                {11.476846, 9.543583, 8.004311}, 1e-5);
  expect_values({sampler->sigmas().end() - 4, sampler->sigmas().end()},
                {0.267652, 0.182166, 0.041314, 0.0}, 2e-6);
  EXPECT_NEAR(sampler->init_noise_sigma(), 11.520330, 1e-5);
}

TEST(Schedule, TrailingFourSteps) {
  const auto sampler = sampler_of("euler", kLatent, 4, "trailing");
  expect_values(sampler->timesteps(), {999, 749, 499, 249}, 0);
  expect_values(sampler->sigmas(), {14.614641, 4.081729, 1.612886, 0.693205, 0}, 1e-5);
  EXPECT_NEAR(sampler->init_noise_sigma(), 14.614641, 1e-5);
  EXPECT_EQ(sampler_of("euler", kLatent, 4, "sgm_uniform")->timesteps(), sampler->timesteps());
}

TEST(Schedule, KarrasTwentySteps) {
  const auto sampler = sampler_of("euler", kLatent, 20, "karras");
  const std::vector<double>& sigmas = sampler->sigmas();
  ASSERT_EQ(sigmas.size(), 21U);
  expect_values({sigmas.begin(), sigmas.begin() + 3}, {14.614641, 11.725365, 9.340203}, 1e-5);
  expect_values({sigmas.end() - 3, sigmas.end()}, {0.048481, 0.029167, 0.0}, 2e-6);
}

TEST(Schedule, DistilledTimesteps) {
  expect_values(sampler_of("lcm", kLatent, 1)->timesteps(), {999}, 0);
  expect_values(sampler_of("lcm", kLatent, 4)->timesteps(), {999, 759, 499, 259}, 0);
  expect_values(sampler_of("lcm", kLatent, 8)->timesteps(),
                {999, 879, 759, 639, 499, 379, 259, 139}, 0);
}

TEST(Schedule, DdimLeading) {
  const auto fifty = sampler_of("ddim", {{"steps_offset", 1}}, 50);
  expect_values({fifty->timesteps().begin(), fifty->timesteps().begin() + 3}, {981, 961, 941}, 0);
  expect_values(sampler_of("ddim", {{"steps_offset", 1}}, 5)->timesteps(), {801, 601, 401, 201, 1},
                0);
}

TEST(Schedule, SecondOrderSamplersCallTheModelTwicePerStepButTheLast) {
  for (const char* name : {"heun", "kdpm2", "kdpm2_a"}) {
    EXPECT_EQ(sampler_of(name, kLatent, 7)->timesteps().size(), 13U) << name;
  }
  EXPECT_EQ(sampler_of("pndm", {{"skip_prk_steps", true}}, 7)->timesteps().size(), 8U);
}

TEST(BetaQuantile, OneHalfIsTheArcsineLaw) {
  for (const double p : {0.0, 1e-6, 0.01, 0.2, 0.5, 0.77, 0.999, 1.0}) {
    const double sine = std::sin(std::numbers::pi / 2.0 * p);
    EXPECT_NEAR(symmetric_beta_quantile(p, 0.5), sine * sine, 1e-13) << p;
  }
}

TEST(BetaQuantile, OneIsTheUniformLaw) {
  for (const double p : {0.0, 0.1, 0.5, 0.9, 1.0}) {
    EXPECT_NEAR(symmetric_beta_quantile(p, 1.0), p, 1e-14) << p;
  }
}

struct FlowCase {
  const char* title;
  json config;
  int steps;
  bool evenly;  // explicit sigmas 1 .. 1/steps, as the pipelines of dynamic models give them
  std::int64_t tokens;
  std::vector<double> first;
  std::vector<double> last;
  double sum;
};

const json kQwen = {
    {"use_dynamic_shifting", true}, {"base_shift", 0.5},         {"max_shift", 0.9},
    {"base_image_seq_len", 256},    {"max_image_seq_len", 8192}, {"shift_terminal", 0.02}};
const json kFlux = {{"use_dynamic_shifting", true},
                    {"base_shift", 0.5},
                    {"max_shift", 1.15},
                    {"base_image_seq_len", 256},
                    {"max_image_seq_len", 4096}};

TEST(FlowSchedule, KnownModels) {
  const FlowCase cases[] = {
      {"plain", json::object(), 10, false, 0, {1, .889, .778, .667}, {.112, .001}, 133.3620},
      {"sd3",
       {{"shift", 3.0}},
       10,
       false,
       0,
       {1, .960129, .913349, .857692},
       {.278049, .008929},
       129.3495},
      {"sd3 28",
       {{"shift", 3.0}},
       28,
       false,
       0,
       {1, .987381, .974108, .960129},
       {.199827, .110906, .008929},
       137.8103},
      {"schnell", json::object(), 4, true, 0, {1, .75, .5, .25}, {}, 121.6783},
      {"flux 28",
       kFlux,
       28,
       true,
       4096,
       {1, .988409, .976222, .963394},
       {.274828, .195455, .104721},
       137.6387},
      {"flux 10",
       kFlux,
       10,
       true,
       4096,
       {1, .966014, .926647, .880513},
       {.441200, .259758},
       129.9095},
      {"qwen 50",
       kQwen,
       50,
       true,
       4096,
       {1, .989701, .979192, .968465},
       {.095499, .058476, .02},
       140.0363},
      {"qwen 10", kQwen, 10, true, 4096, {1, .936978, .866951, .788682}, {.20153, .02}, 132.5446},
  };
  for (const FlowCase& one : cases) {
    SCOPED_TRACE(one.title);
    SamplerRequest request;
    request.name = "flow_euler";
    request.steps = one.steps;
    request.image_tokens = one.tokens;
    if (one.evenly) request.sigmas = linspace(1.0, 1.0 / one.steps, one.steps);
    const auto sampler = make_or_throw(one.config, request);
    const std::vector<double>& sigmas = sampler->sigmas();
    ASSERT_EQ(sigmas.size(), static_cast<std::size_t>(one.steps) + 1);
    EXPECT_EQ(sigmas.back(), 0.0);
    // Published with three to six digits.
    const double tolerance = std::string(one.title) == "plain" ? 6e-4 : 2e-6;
    expect_values({sigmas.begin(), sigmas.begin() + static_cast<std::ptrdiff_t>(one.first.size())},
                  one.first, tolerance);
    expect_values(
        {sigmas.end() - 1 - static_cast<std::ptrdiff_t>(one.last.size()), sigmas.end() - 1},
        one.last, tolerance);
    EXPECT_NEAR(sampler->timesteps().front(), 1000.0 * sigmas.front(), 1e-3);
    EXPECT_NEAR(absolute_sum(run_toy(*sampler, toy_sample())), one.sum, 3e-3);
  }
}

TEST(FlowSchedule, OneStepFromPureNoiseIsNotStretched) {
  const auto sampler = sampler_of("flow_euler", {{"shift", 1.5}, {"shift_terminal", 0.02}}, 1);
  expect_values(sampler->sigmas(), {1.0, 0.0}, 0.0);
}

TEST(FlowSchedule, ShiftGrowsWithTheTokenCount) {
  Settings flux;
  EXPECT_NEAR(dynamic_mu(flux, 1024), 0.63, 1e-9);
  EXPECT_NEAR(dynamic_mu(flux, 3072), 0.976667, 1e-6);
  Settings qwen;
  qwen.max_shift = 0.9;
  qwen.max_image_seq_len = 8192;
  EXPECT_NEAR(dynamic_mu(qwen, 4096), 0.693548, 1e-6);
  EXPECT_NEAR(dynamic_mu(qwen, 83 * 83), 0.834325, 1e-6);
}

}  // namespace
}  // namespace limner::engine::samplers
