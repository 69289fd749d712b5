#include "engine/models/autoencoder_kl.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <string>

#include "base/error.h"
#include "parity/fixture.h"

namespace limner::engine::models {
namespace {

using parity::Fixture;
using parity::relative_error;

constexpr double kBound = 1e-4;

class AutoencoderKLTest : public testing::TestWithParam<const char*> {};

TEST_P(AutoencoderKLTest, EqualsDiffusers) {
  const Fixture fixture(GetParam());
  const AutoencoderKL vae(fixture.config(), fixture.source());
  const AutoencoderOptions options{.tiling = std::string(GetParam()) == "vae_tiling"};
  EXPECT_LT(relative_error(vae.decode(fixture.tensor("z"), options), fixture.tensor("decoded")),
            kBound);
  const AutoencoderKL::Posterior posterior = vae.encode(fixture.tensor("x"), options);
  EXPECT_LT(relative_error(posterior.mean, fixture.tensor("mean")), kBound);
  EXPECT_LT(relative_error(posterior.logvar, fixture.tensor("logvar")), kBound);
}

INSTANTIATE_TEST_SUITE_P(Cases, AutoencoderKLTest,
                         testing::Values("vae_odd_groups", "vae_no_quant_16_latents",
                                         "vae_no_mid_attention", "vae_old_attention_names",
                                         "vae_tiling"),
                         [](const auto& test) { return std::string(test.param); });

TEST(AutoencoderKL, TellsWhatItsConfigSays) {
  const Fixture shifted("vae_no_quant_16_latents"), scaled("vae_no_mid_attention"),
      plain("vae_odd_groups");
  const AutoencoderKL a(shifted.config(), shifted.source()), b(scaled.config(), scaled.source()),
      c(plain.config(), plain.source());
  EXPECT_EQ(a.latent_channels(), 16);
  EXPECT_EQ(a.spatial_factor(), 2);
  EXPECT_DOUBLE_EQ(a.shift_factor(), 0.1159);
  EXPECT_FALSE(a.force_upcast());
  EXPECT_FALSE(a.latents_mean().has_value());
  ASSERT_TRUE(b.latents_std().has_value());
  EXPECT_EQ(*b.latents_std(), (std::vector<double>{1.0, 2.0, 0.5, 1.5}));
  EXPECT_DOUBLE_EQ(b.scaling_factor(), 0.18215);
  EXPECT_DOUBLE_EQ(c.scaling_factor(), 0.13025);
  EXPECT_TRUE(c.force_upcast());
}

TEST(AutoencoderKL, SlicingChangesNothing) {
  const Fixture fixture("vae_odd_groups");
  const AutoencoderKL vae(fixture.config(), fixture.source());
  EXPECT_LT(
      relative_error(vae.decode(fixture.tensor("z"), {.slicing = true}), fixture.tensor("decoded")),
      kBound);
  EXPECT_LT(relative_error(vae.encode(fixture.tensor("x"), {.slicing = true}).mean,
                           fixture.tensor("mean")),
            kBound);
}

TEST(AutoencoderKL, HalfStoredWeightsComputeInFloat32) {
  const Fixture fixture("vae_odd_groups");
  const AutoencoderKL vae(
      fixture.config(),
      fixture.source({.storage = at::kBFloat16, .compute = at::kFloat, .device = at::kCPU}));
  const at::Tensor decoded = vae.decode(fixture.tensor("z"));
  EXPECT_EQ(decoded.scalar_type(), at::kFloat);
  EXPECT_LT(relative_error(decoded, fixture.tensor("decoded")), 3e-2);
}

std::string failure_of(const nlohmann::json& changes, const at::Tensor& z = {}) {
  const Fixture fixture("vae_odd_groups");
  nlohmann::json json = nlohmann::json::parse(std::ifstream(fixture.folder() / "config.json"));
  if (!changes.is_null()) json.update(changes);
  try {
    const AutoencoderKL vae(weights::Config(json, "vae/config.json"), fixture.source());
    if (z.defined()) static_cast<void>(vae.decode(z));
  } catch (const Failure& failure) {
    return failure.what();
  }
  return "";
}

TEST(AutoencoderKLErrors, NameTheKeyThatIsWrong) {
  EXPECT_EQ(failure_of({}), "");
  EXPECT_NE(failure_of({{"double_attention", true}}).find("double_attention"), std::string::npos);
  EXPECT_NE(failure_of({{"block_out_channels", {6, -9}}}).find("block_out_channels"),
            std::string::npos);
  EXPECT_NE(failure_of({{"block_out_channels", {6, 9, 9}}}).find("down_block_types"),
            std::string::npos);
  EXPECT_NE(
      failure_of({{"up_block_types", {"UpDecoderBlock2D", "AttnUpDecoderBlock2D"}}}).find("AttnUp"),
      std::string::npos);
  EXPECT_NE(failure_of({{"norm_num_groups", 4}}).find("4 groups"), std::string::npos);
  EXPECT_NE(failure_of({{"use_quant_conv", false}}).find("quant_conv"), std::string::npos);
  EXPECT_NE(failure_of({{"latents_mean", {0.5}}}).find("latents_mean"), std::string::npos);
}

TEST(AutoencoderKLErrors, ChannelsMustFit) {
  EXPECT_EQ(failure_of({}, at::zeros({1, 16, 4, 4})),
            "[vae.decode] want [batch, 4 latent channels, height, width], got 16 channels");
}

}  // namespace
}  // namespace limner::engine::models
