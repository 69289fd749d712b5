#include "engine/samplers/noise.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace limner::engine::samplers {
namespace {

void expect_start(std::uint64_t seed, at::IntArrayRef shape, const std::vector<double>& want) {
  Noise noise(seed);
  const at::Tensor values = noise.normal(shape).reshape({-1});
  for (std::size_t i = 0; i < want.size(); ++i) {
    EXPECT_NEAR(values[static_cast<std::int64_t>(i)].item<double>(), want[i], 5.1e-5) << i;
  }
}

TEST(Noise, FewValuesTakeTheScalarPath) {
  expect_start(0, {8}, {1.5410, -0.2934, -2.1788, 0.5684, -1.0845, -1.3986, 0.4033, 0.8380});
}

TEST(Noise, SixteenAndMoreTakeTheBlockPath) {
  expect_start(0, {16},
               {-1.1258, -1.1524, -0.2506, -0.4339, 0.8487, 0.6920, -0.3160, -2.1152, 0.3223,
                -1.2633, 0.3500, 0.3081, 0.1198, 1.2377, 1.1168, -0.2473});
  expect_start(42, {16}, {1.9269, 1.4873, 0.9007, -2.1055});
}

TEST(Noise, LatentOfSeedZero) {
  Noise noise(0);
  const at::Tensor latent = noise.normal({1, 4, 64, 64});
  EXPECT_NEAR(latent.to(at::kDouble).sum().item<double>(), -124.113, 1e-3);
  const at::Tensor end = latent.reshape({-1}).slice(0, -4);
  const std::vector<double> want = {-1.0407, 0.0908, -1.3665, -1.0782};
  for (std::int64_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(end[i].item<double>(), want[static_cast<std::size_t>(i)], 5.1e-5);
  }
}

TEST(Noise, StateCanBeStoredAndRestored) {
  Noise noise(5);
  (void)noise.normal({1, 4, 8, 8});
  const at::Tensor state = noise.state().clone();
  const at::Tensor want = noise.normal({3, 7});
  Noise other(6);
  other.restore(state);
  EXPECT_TRUE(at::equal(other.normal({3, 7}), want));
}

}  // namespace
}  // namespace limner::engine::samplers
