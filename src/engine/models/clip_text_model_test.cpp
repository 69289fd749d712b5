#include "engine/models/clip_text_model.h"

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

struct ClipCase {
  const char* name;
  bool with_projection;
};

class ClipTextModelTest : public testing::TestWithParam<ClipCase> {};

TEST_P(ClipTextModelTest, EqualsTransformers) {
  const Fixture fixture(GetParam().name);
  const ClipTextModel model(fixture.config(), fixture.source(), GetParam().with_projection);
  const ClipTextOutput output = model.forward(fixture.tensor("ids"));
  ASSERT_EQ(output.hidden_states.size(), static_cast<std::size_t>(model.layers()) + 1);
  for (std::size_t i = 0; i < output.hidden_states.size(); ++i) {
    const std::string name = "hidden_states." + std::to_string(i);
    EXPECT_LT(relative_error(output.hidden_states[i], fixture.tensor(name)), kBound) << name;
  }
  EXPECT_LT(relative_error(output.last_hidden_state, fixture.tensor("last_hidden_state")), kBound);
  EXPECT_LT(relative_error(output.pooled, fixture.tensor("pooled")), kBound);
}

INSTANTIATE_TEST_SUITE_P(Cases, ClipTextModelTest,
                         testing::Values(ClipCase{"clip_quick_gelu", false},
                                         ClipCase{"clip_transformers_4", false},
                                         ClipCase{"clip_projection_gelu", true},
                                         ClipCase{"clip_projection_first_eos", true}),
                         [](const auto& test) { return std::string(test.param.name); });

std::string failure_of(const nlohmann::json& changes, const at::Tensor& ids = {}) {
  const Fixture fixture("clip_quick_gelu");
  nlohmann::json json = nlohmann::json::parse(std::ifstream(fixture.folder() / "config.json"));
  if (!changes.is_null()) json.update(changes);
  try {
    const ClipTextModel model(weights::Config(json, "text_encoder/config.json"), fixture.source(),
                              false);
    if (ids.defined()) static_cast<void>(model.forward(ids));
  } catch (const Failure& failure) {
    return failure.what();
  }
  return "";
}

TEST(ClipTextModelErrors, NameTheKeyThatIsWrong) {
  EXPECT_EQ(failure_of({}), "");
  EXPECT_NE(failure_of({{"sliding_window", 4}}).find("sliding_window"), std::string::npos);
  EXPECT_NE(failure_of({{"num_attention_heads", 3}}).find("num_attention_heads"),
            std::string::npos);
  EXPECT_NE(failure_of({{"hidden_act", "snake"}}).find("snake"), std::string::npos);
  EXPECT_NE(failure_of({{"is_decoder", true}}).find("is_decoder"), std::string::npos);
  EXPECT_NE(failure_of({{"num_hidden_layers", 4}}).find("encoder.layers.3"), std::string::npos);
  EXPECT_NE(failure_of({{"num_hidden_layers", 2}}).find("encoder.layers.2"), std::string::npos);
}

TEST(ClipTextModelErrors, IdsOutsideTheTablesAreRefused) {
  EXPECT_NE(failure_of({}, at::full({1, 4}, 60, at::kLong)).find("id 60"), std::string::npos);
  EXPECT_NE(failure_of({}, at::zeros({1, 13}, at::kLong)).find("13 positions"), std::string::npos);
}

}  // namespace
}  // namespace limner::engine::models
