// Times one UNet forward: unet_bench FOLDER [float32|bfloat16] [batch] [latent side] [runs]
// [profile] FOLDER is a component folder (config.json and its safetensors). Prints the milliseconds
// of loading, of the first forward and of the fastest of the runs after it.
// bench/peers/unet_peer.py makes such folders and times diffusers.
#include <ATen/ATen.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/kernels/cpu_features.h"
#include "engine/models/unet_2d_condition_model.h"

namespace {

using Clock = std::chrono::steady_clock;
using namespace limner::engine;

struct Stopwatch {
  Clock::time_point wall = Clock::now();
  std::clock_t processor = std::clock();

  double wall_ms() const {
    return std::chrono::duration<double, std::milli>(Clock::now() - wall).count();
  }
  double processor_ms() const {
    return 1e3 * static_cast<double>(std::clock() - processor) / CLOCKS_PER_SEC;
  }
};

// Processor time by operator, outermost calls only.
struct Profile {
  std::map<std::string, std::pair<double, int>> operators;
  int depth = 0;
};
Profile profile;

struct Call : at::ObserverContext {
  Stopwatch watch;
};

std::unique_ptr<at::ObserverContext> enter(const at::RecordFunction&) {
  return profile.depth++ == 0 ? std::make_unique<Call>() : nullptr;
}

void leave(const at::RecordFunction& function, at::ObserverContext* context) {
  if (--profile.depth != 0) return;
  auto& [milliseconds, calls] = profile.operators[function.name()];
  milliseconds += static_cast<Call*>(context)->watch.processor_ms();
  ++calls;
}

void print_profile(const models::UNet2DConditionModel& unet, const models::UNetInput& input) {
  const auto handle = at::addThreadLocalCallback(
      at::RecordFunctionCallback(enter, leave).scopes({at::RecordScope::FUNCTION}));
  const Stopwatch watch;
  unet.forward(input);
  const double all = watch.processor_ms();
  at::removeCallback(handle);
  std::vector<std::pair<double, std::string>> rows;
  double seen = 0;
  for (const auto& [name, cost] : profile.operators) {
    rows.emplace_back(cost.first, name + " x " + std::to_string(cost.second));
    seen += cost.first;
  }
  rows.emplace_back(all - seen, "the rest");
  std::sort(rows.rbegin(), rows.rend());
  for (const auto& [cost, name] : rows) std::printf("%10.1f ms  %s\n", cost, name.c_str());
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

struct Options {
  std::string folder;
  bool half = false;
  int64_t batch = 2;
  int64_t side = 64;
  int runs = 3;
  bool with_profile = false;
};

void run(const Options& options) {
  const c10::InferenceMode no_gradients;
  const at::ScalarType storage = options.half ? at::kBFloat16 : at::kFloat;
  const bool compute_half = options.half && kernels::has_fast_bfloat16();
  const at::ScalarType compute = compute_half ? at::kBFloat16 : at::kFloat;
  const Stopwatch loading;
  const auto tensors = weights::Weights::open_component(options.folder).value_or_throw();
  const models::UNet2DConditionModel unet(
      weights::Config::read(options.folder + "/config.json"),
      nn::TensorSource(tensors, {.storage = storage, .compute = compute, .device = at::kCPU}));
  std::printf("load %.0f ms, processor %.0f ms\n", loading.wall_ms(), loading.processor_ms());

  const models::UNetInput input = random_input(unet.traits(), options.batch, options.side);
  double wall = 0, processor = 0;
  for (int i = 0; i <= options.runs; ++i) {
    const Stopwatch watch;
    unet.forward(input);
    if (i == 0) {
      std::printf("first forward %.1f ms, processor %.1f ms\n", watch.wall_ms(),
                  watch.processor_ms());
      continue;
    }
    wall = i == 1 ? watch.wall_ms() : std::min(wall, watch.wall_ms());
    processor = i == 1 ? watch.processor_ms() : std::min(processor, watch.processor_ms());
  }
  if (options.runs > 0) {
    std::printf("forward %.1f ms, processor %.1f ms, fastest of %d\n", wall, processor,
                options.runs);
  }
  if (options.with_profile) print_profile(unet, input);
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) {
    std::fprintf(
        stderr,
        "usage: unet_bench FOLDER [float32|bfloat16] [batch] [latent side] [runs] [profile]\n");
    return 2;
  }
  const auto number = [&](int index, int fallback) {
    return count > index ? std::max(0, std::atoi(arguments[index])) : fallback;
  };
  try {
    run({.folder = arguments[1],
         .half = count > 2 && std::string(arguments[2]) == "bfloat16",
         .batch = number(3, 2),
         .side = number(4, 64),
         .runs = number(5, 3),
         .with_profile = count > 6});
  } catch (const limner::Failure& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
  }
}
