// Every sampler against what diffusers gave for the toy model: tests/parity/fixtures/samplers.json,
// written by tools/parity/sampler_fixtures.py.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "engine/samplers/toy_model.h"

namespace limner::engine::samplers {
namespace {

using nlohmann::json;

const json& fixture() {
  static const json kFixture = [] {
    std::ifstream file(std::string(LIMNER_SOURCE_DIR) + "/tests/parity/fixtures/samplers.json");
    return json::parse(file);
  }();
  return kFixture;
}

SamplerRequest request_of(const json& one) {
  SamplerRequest request;
  request.name = one.at("name").get<std::string>();
  request.steps = one.at("steps").get<int>();
  request.schedule = one.value("schedule", "default");
  request.eta = one.value("eta", 0.0);
  request.image_tokens = one.value("tokens", 0);
  request.sigmas = one.value("given_sigmas", std::vector<double>());
  return request;
}

// 1e-4 of the value; values near zero are what is left of larger ones, so some rounding of the
// `largest` mean magnitude on the way is allowed too.
void expect_close(double got, double want, double largest, const char* what) {
  EXPECT_LE(std::abs(got - want), 1e-4 * std::abs(want) + 2e-6 * largest)
      << what << ": got " << got << ", want " << want;
}

void expect_list(const std::vector<double>& got, const json& want, double absolute,
                 const char* what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double value = want[i].get<double>();
    ASSERT_LE(std::abs(got[i] - value), 2e-6 * std::abs(value) + absolute)
        << what << " at " << i << ": got " << got[i] << ", want " << value;
  }
}

TEST(Reference, EverySamplerScheduleAndPrediction) {
  const json& cases = fixture().at("cases");
  ASSERT_GE(cases.size(), 300U);
  for (const json& one : cases) {
    json head = one;
    for (const char* key : {"timesteps", "sigmas", "trace", "some"}) head.erase(key);
    SCOPED_TRACE(head.dump());
    Result<std::unique_ptr<Sampler>> made = make_sampler(one.at("config"), request_of(one));
    if (!made) {
      ADD_FAILURE() << made.error().message;
      continue;
    }
    Sampler& sampler = **made;
    // A timestep between two training ones comes from float32 logarithms.
    expect_list(sampler.timesteps(), one.at("timesteps"), 2e-3, "timestep");
    expect_list(sampler.sigmas(), one.at("sigmas"), 1e-7, "sigma");
    expect_close(sampler.init_noise_sigma(), one.at("init").get<double>(), 0.0, "init_noise_sigma");
    const auto start = one.value("start", std::size_t{0});
    at::Tensor x = toy_sample() * sampler.init_noise_sigma();
    if (start > 0) {
      x = sampler.add_noise(toy_sample(), toy_noise(), start);
      sampler.restore(History{.position = start, .counter = 0, .tensors = {}});
    }
    Noise noise(0);
    const json& trace = one.at("trace");
    double largest = absolute_sum(x) / static_cast<double>(kToyCount);
    for (std::size_t i = 0; !sampler.done(); ++i) {
      const at::Tensor scaled = sampler.model_input(x);
      x = sampler.step(toy_output(scaled, sampler.timestep()), x, noise);
      const double mean = absolute_sum(x) / static_cast<double>(kToyCount);
      if (i < trace.size()) expect_close(mean, trace[i].get<double>(), largest, "step");
      largest = std::max(largest, mean);
    }
    const double count = static_cast<double>(kToyCount);
    expect_close(absolute_sum(x), one.at("sum").get<double>(), largest * count, "sum");
    const at::Tensor flat = x.reshape({-1});
    const std::vector<std::int64_t> places = {0, 1, 191, 384, 700, 767};
    for (std::size_t i = 0; i < places.size(); ++i) {
      expect_close(flat[places[i]].item<double>(), one.at("some")[i].get<double>(), 10.0 * largest,
                   "element");
    }
  }
}

TEST(Reference, CoversEverySampler) {
  for (const SamplerInfo& info : all_samplers()) {
    const json& cases = fixture().at("cases");
    EXPECT_TRUE(std::any_of(cases.begin(), cases.end(), [&](const json& one) {
      return one.at("name") == info.name;
    })) << info.name;
  }
}

}  // namespace
}  // namespace limner::engine::samplers
