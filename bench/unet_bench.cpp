// Times one UNet forward: unet_bench FOLDER [float32|bfloat16] [batch] [latent side] [runs]
// FOLDER is a component folder (config.json and its safetensors). Prints the milliseconds of
// loading, of the first forward and of the fastest of the runs after it. bench/peers/unet_peer.py
// makes such folders and times diffusers.
#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "engine/models/unet_2d_condition_model.h"

namespace {

using Clock = std::chrono::steady_clock;
using namespace limner::engine;

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

models::UNetInput random_input(const models::UNet2DConditionModel::Traits& traits, int64_t batch,
                               int64_t side) {
  models::UNetInput input;
  input.sample = at::randn({batch, traits.in_channels, side, side});
  input.timesteps = at::full({batch}, 500.0);
  input.encoder_hidden_states = at::randn({batch, 77, traits.cross_attention_dim});
  if (traits.addition_embed_type == "text_time") {
    constexpr int64_t kIds = 6;
    const int64_t pooled =
        traits.projection_class_embeddings_input_dim - kIds * traits.addition_time_embed_dim;
    input.text_embeds = at::randn({batch, pooled});
    input.time_ids = at::full({batch, kIds}, 512.0);
  }
  return input;
}

void run(const std::string& folder, bool half, int64_t batch, int64_t side, int runs) {
  const c10::InferenceMode no_gradients;
  const at::ScalarType dtype = half ? at::kBFloat16 : at::kFloat;
  auto start = Clock::now();
  const auto tensors = weights::Weights::open_component(folder).value_or_throw();
  const models::UNet2DConditionModel unet(
      weights::Config::read(folder + "/config.json"),
      nn::TensorSource(tensors, {.storage = dtype, .compute = dtype, .device = at::kCPU}));
  std::printf("load %.0f ms\n", milliseconds_since(start));

  const models::UNetInput input = random_input(unet.traits(), batch, side);
  double fastest = 0;
  for (int i = 0; i <= runs; ++i) {
    start = Clock::now();
    const at::Tensor output = unet.forward(input);
    const double took = milliseconds_since(start);
    if (i == 0)
      std::printf("first forward %.1f ms (mean %.4f)\n", took, output.mean().item<double>());
    if (i > 0) fastest = i == 1 ? took : std::min(fastest, took);
  }
  if (runs > 0) std::printf("forward %.1f ms, fastest of %d\n", fastest, runs);
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) {
    std::fprintf(stderr,
                 "usage: unet_bench FOLDER [float32|bfloat16] [batch] [latent side] [runs]\n");
    return 2;
  }
  const auto number = [&](int index, int fallback) {
    return count > index ? std::max(0, std::atoi(arguments[index])) : fallback;
  };
  try {
    run(arguments[1], count > 2 && std::string(arguments[2]) == "bfloat16", number(3, 2),
        number(4, 64), number(5, 3));
  } catch (const limner::Failure& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
  }
}
