// Adapters at a checkpoint's real shapes:
//
//   adapter_bench MODEL_FOLDER [RANK] [LATENT_SIDE]
//
// Prints how long an adapter of that rank for every attention and feed-forward layer takes from the
// disk (beside reading its bytes), from the cache to a batch, and what four rows with four adapters
// cost beside four rows with none (0 for LATENT_SIDE leaves that out).
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <chrono>
#include <fstream>
#include <vector>

#include "engine/lora/adapter_cache.h"
#include "engine/models/unet_2d_condition_model.h"
#include "engine/weights/model_folder.h"

namespace limner {
namespace {

using namespace engine;
namespace fs = std::filesystem;

template <typename Work>
double best_ms(int times, Work work) {
  double best = 1e300;
  for (int i = 0; i < times; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
    best = std::min(best, took.count());
  }
  return best;
}

bool is_adapted(const std::string& name) {
  return name.find(".attn") != std::string::npos || name.find(".ff.net.") != std::string::npos;
}

fs::path write_adapter(const lora::ModelLayers& layers, std::int64_t rank, int number) {
  std::vector<at::Tensor> kept;
  std::vector<weights::TensorToWrite> list;
  for (const lora::Layer& layer : layers.layers()) {
    if (!is_adapted(layer.name)) continue;
    const auto add = [&](const std::string& part, std::vector<std::int64_t> shape) {
      kept.push_back((at::randn(shape) * 0.01).to(at::kHalf));
      list.push_back(
          {"unet." + layer.name + part,
           weights::DType::kF16,
           shape,
           {static_cast<const std::byte*>(kept.back().const_data_ptr()), kept.back().nbytes()}});
    };
    add(".lora_A.weight", {rank, layer.weight.shape[1]});
    add(".lora_B.weight", {layer.weight.shape[0], rank});
  }
  const fs::path file =
      fs::temp_directory_path() / fmt::format("limner_adapter_bench_{}.safetensors", number);
  weights::write_safetensors(file, std::move(list)).value_or_throw();
  return file;
}

double read_ms(const fs::path& file) {
  std::vector<char> buffer(fs::file_size(file));
  return best_ms(3, [&] {
    std::ifstream(file, std::ios::binary).read(buffer.data(), static_cast<long>(buffer.size()));
  });
}

// Four rows of one forward, with and without.
void time_forward(const weights::ModelFolder& folder, const nn::Placement& placement,
                  const nn::RowAdapters& adapters, std::int64_t side) {
  const models::UNet2DConditionModel unet(
      folder.config("unet"),
      nn::TensorSource(folder.weights("unet", "").value_or_throw(), placement));
  const auto& traits = unet.traits();
  models::UNetInput input;
  input.sample = at::randn({4, traits.in_channels, side, side});
  input.timesteps = at::full({4}, 500.0f);
  input.encoder_hidden_states = at::randn({4, 77, traits.cross_attention_dim});
  if (traits.addition_embed_type == "text_time") {
    input.time_ids = at::full({4, 6}, 512.0f);
    input.text_embeds = at::randn(
        {4, traits.projection_class_embeddings_input_dim - 6 * traits.addition_time_embed_dim});
  }
  unet.forward(input);
  const double none = best_ms(2, [&] { unet.forward(input); });
  const double four = best_ms(2, [&] { unet.forward(input, adapters); });
  fmt::print(
      "4 rows, {0}x{0} latents: {1:.0f} ms without, {2:.0f} ms with 4 adapters: {3:.2f} of the "
      "throughput\n",
      side, none, four, none / four);
}

void run(const fs::path& model, std::int64_t rank, std::int64_t side) {
  const c10::InferenceMode no_gradients;
  const weights::ModelFolder folder = weights::read_model(model, {}).value_or_throw();
  const lora::ModelLayers layers({{"unet", folder.weights("unet", "").value_or_throw()}});
  const nn::Placement placement{at::kBFloat16, at::kFloat, at::kCPU};
  lora::AdapterCache cache(std::uint64_t{4} << 30);
  const auto load = [&](const fs::path& file) {
    return cache.get(file.string(), [&] {
      return lora::attach(*lora::AdapterFile::read(file).value_or_throw(), layers, placement);
    });
  };
  std::vector<fs::path> files;
  for (int i = 0; i < 4; ++i) files.push_back(write_adapter(layers, rank, i));
  const double reading = read_ms(files.front());
  const double loading = best_ms(3, [&] {
    lora::attach(*lora::AdapterFile::read(files.front()).value_or_throw(), layers, placement);
  });
  const auto megabytes = static_cast<double>(fs::file_size(files.front())) / 1e6;
  fmt::print(
      "{:.0f} MB: reading its bytes {:.1f} ms, reading, checking and attaching {:.1f} ms: {:.2f}\n",
      megabytes, reading, loading, loading / reading);

  std::vector<lora::AdapterList> lists;
  for (const fs::path& file : files) lists.push_back({{load(file), {}}});
  const std::vector<const lora::AdapterList*> one = {&lists[0]};
  fmt::print("from the cache to a batch of one row: {:.2f} ms\n", best_ms(5, [&] {
               load(files.front());
               lora::row_adapters("unet", one);
             }));
  std::vector<const lora::AdapterList*> rows;
  for (const auto& list : lists) rows.push_back(&list);
  fmt::print("four adapters to a batch of four rows: {:.1f} ms, once per batch\n",
             best_ms(3, [&] { lora::row_adapters("unet", rows); }));
  if (side > 0) time_forward(folder, placement, lora::row_adapters("unet", rows), side);
  for (const fs::path& file : files) fs::remove(file);
}

}  // namespace
}  // namespace limner

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "adapter_bench MODEL_FOLDER [RANK] [LATENT_SIDE]\n");
    return 2;
  }
  try {
    limner::run(argv[1], argc > 2 ? std::atoll(argv[2]) : 16, argc > 3 ? std::atoll(argv[3]) : 32);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
