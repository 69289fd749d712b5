#include "runpod/volume/weights_kind.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <vector>

#include "engine/weights/safetensors.h"

namespace limner::runpod {
namespace {

namespace fs = std::filesystem;

// Files of every kind of adapter, as the trainers' own programs wrote them.
TEST(WeightsKind, EveryAdapterIsOne) {
  std::size_t count = 0;
  for (const auto& entry :
       fs::directory_iterator(LIMNER_SOURCE_DIR "/tests/parity/fixtures/adapters")) {
    const std::string name = entry.path().filename().string();
    if (!name.ends_with(".safetensors") || name.ends_with(".latents.safetensors")) continue;
    const auto kind = weights_kind(entry.path());
    ASSERT_TRUE(kind.ok()) << kind.error().message;
    EXPECT_EQ(*kind, WeightsKind::kAdapter) << name;
    ++count;
  }
  EXPECT_GT(count, 30u);
}

WeightsKind kind_of(const std::string& tensor, std::vector<std::int64_t> shape) {
  const fs::path file =
      fs::temp_directory_path() / ("limner-kind-" + std::to_string(getpid()) + ".safetensors");
  std::int64_t count = 4;
  for (const std::int64_t side : shape) count *= side;
  const std::vector<std::byte> bytes(static_cast<std::size_t>(count));
  EXPECT_TRUE(engine::weights::write_safetensors(
                  file, {{tensor, engine::weights::DType::kF32, std::move(shape), bytes}})
                  .ok());
  const auto kind = weights_kind(file);
  fs::remove(file);
  return kind.value();
}

TEST(WeightsKind, OthersAreToldByTheirTensors) {
  EXPECT_EQ(kind_of("model.diffusion_model.out.2.weight", {2, 2}), WeightsKind::kCheckpoint);
  EXPECT_EQ(kind_of("emb_params", {3, 8}), WeightsKind::kEmbedding);
  EXPECT_EQ(kind_of("<cat-toy>", {8}), WeightsKind::kEmbedding);
  EXPECT_EQ(kind_of("decoder.conv_in.weight", {2, 2, 3, 3}), WeightsKind::kOther);
  EXPECT_EQ(weights_kind("/nowhere/x.safetensors").error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace limner::runpod
