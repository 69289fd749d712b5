#include "engine/weights/checkpoint/name_table.h"

#include <gtest/gtest.h>

#include <fstream>

namespace limner::engine::weights {
namespace {

// Pairs "<ldm name> <component>/<diffusers name>" as diffusers' own conversion scripts make them
// (tools/parity/single_file_fixtures.py).
std::vector<std::pair<std::string, std::string>> pairs_of(const std::string& family) {
  std::ifstream in(std::string(LIMNER_SOURCE_DIR) + "/tests/parity/fixtures/single_file/" + family +
                   ".txt");
  std::vector<std::pair<std::string, std::string>> pairs;
  for (std::string ldm, diffusers; in >> ldm >> diffusers;) pairs.emplace_back(ldm, diffusers);
  return pairs;
}

struct Network {
  const char* family;
  const char* component;
  const char* prefix;
  NameTable (*table)(const NameSet&);
};

class Published : public testing::TestWithParam<Network> {};

// The table made from names of one spelling gives the other, both ways.
TEST_P(Published, TableIsThatOfDiffusersScripts) {
  const Network& network = GetParam();
  const std::string prefix = network.prefix, component = std::string(network.component) + "/";
  NameSet ldm_names, diffusers_names;
  std::vector<std::pair<std::string, std::string>> inside;
  for (const auto& [ldm, diffusers] : pairs_of(network.family)) {
    if (!ldm.starts_with(prefix) || !diffusers.starts_with(component)) continue;
    inside.emplace_back(ldm.substr(prefix.size()), diffusers.substr(component.size()));
    ldm_names.insert(inside.back().first);
    diffusers_names.insert(inside.back().second);
  }
  ASSERT_FALSE(inside.empty());
  for (const NameSet& names : {ldm_names, diffusers_names}) {
    const NameTable table = network.table(names);
    for (const auto& [ldm, diffusers] : inside) {
      const auto back = table.to_ldm(diffusers);
      ASSERT_TRUE(back) << diffusers;
      EXPECT_EQ(back->name, ldm);
      const auto there = table.to_diffusers(ldm);
      ASSERT_TRUE(there) << ldm;
      if (there->form == TensorForm::kThirds) {
        EXPECT_EQ(thirds_of(there->name)[static_cast<std::size_t>(part_of(diffusers))], diffusers);
      } else {
        EXPECT_EQ(there->name, diffusers);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Networks, Published,
    testing::Values(
        Network{"sd1", "unet", "model.diffusion_model.", unet_names},
        Network{"sd1", "vae", "first_stage_model.", vae_names},
        Network{"sd1", "text_encoder", "cond_stage_model.transformer.", clip_names},
        Network{"sd2", "text_encoder", "cond_stage_model.model.", open_clip_names},
        Network{"sdxl", "unet", "model.diffusion_model.", unet_names},
        Network{"sdxl", "vae", "first_stage_model.", vae_names},
        Network{"sdxl", "text_encoder", "conditioner.embedders.0.transformer.", clip_names},
        Network{"sdxl", "text_encoder_2", "conditioner.embedders.1.model.", open_clip_names}),
    [](const auto& test) { return std::string(test.param.family) + "_" + test.param.component; });

TEST(NameTable, KnowsNoNamesThatANetworkDoesNotHave) {
  const NameTable table =
      unet_names({"input_blocks.0.0.weight", "input_blocks.1.0.in_layers.0.bias",
                  "output_blocks.0.0.in_layers.0.bias"});
  EXPECT_TRUE(table.to_diffusers("input_blocks.1.0.in_layers.0.bias"));
  EXPECT_FALSE(table.to_diffusers("input_blocks.2.0.in_layers.0.bias"));
  EXPECT_FALSE(table.to_diffusers("input_blocks.1.0"));
  EXPECT_FALSE(table.to_diffusers("control_model.input_blocks.0.0.weight"));
  EXPECT_FALSE(table.to_diffusers(""));
}

TEST(NameTable, OldClipNamesWithoutThePrefixAreUnderstood) {
  const NameTable table = clip_names({"embeddings.token_embedding.weight"});
  EXPECT_EQ(table.to_diffusers("encoder.layers.0.mlp.fc1.bias")->name,
            "text_model.encoder.layers.0.mlp.fc1.bias");
}

}  // namespace
}  // namespace limner::engine::weights
