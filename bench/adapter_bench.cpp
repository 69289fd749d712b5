// Adapters at a checkpoint's real shapes:
//
//   adapter_bench MODEL_FOLDER [RANK] [LATENT_SIDE] [FOLDER]
//
// Prints as JSON how long an adapter of that rank for every attention and feed-forward layer takes
// from the disk (beside a plain read of the file into memory just allocated, from the disk and from
// the page cache), from the cache to a batch, and what four rows with four adapters cost beside
// four rows with none (0 for LATENT_SIDE leaves that out). The adapters are left in FOLDER when it
// is named. bench/adapters.py runs this beside diffusers.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "engine/lora/adapter_cache.h"
#include "engine/models/unet_2d_condition_model.h"
#include "engine/weights/model_folder.h"

namespace limner {
namespace {

using namespace engine;
namespace fs = std::filesystem;

template <typename Work>
double ms(Work work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
  return took.count();
}

template <typename Work>
double best_ms(int times, Work work) {
  double best = 1e300;
  for (int i = 0; i < times; ++i) best = std::min(best, ms(work));
  return best;
}

bool is_adapted(const std::string& name) {
  return name.find(".attn") != std::string::npos || name.find(".ff.net.") != std::string::npos;
}

fs::path write_adapter(const lora::ModelLayers& layers, std::int64_t rank, const fs::path& file) {
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
  weights::write_safetensors(file, std::move(list)).value_or_throw();
  return file;
}

class Descriptor {
 public:
  explicit Descriptor(const fs::path& file) : value_(::open(file.c_str(), O_RDONLY)) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { ::close(value_); }
  int value() const { return value_; }

 private:
  int value_;
};

// Out of the page cache: the next read comes from the disk.
void evict(const fs::path& file) {
  const Descriptor descriptor(file);
  ::posix_fadvise(descriptor.value(), 0, 0, POSIX_FADV_DONTNEED);
}

void read_plainly(const fs::path& file) {
  const std::size_t size = fs::file_size(file);
  const std::unique_ptr<char[]> buffer(new char[size]);
  const Descriptor descriptor(file);
  for (std::size_t done = 0; done < size;) {
    const ssize_t got = ::read(descriptor.value(), buffer.get() + done, size - done);
    if (got <= 0) throw std::runtime_error(file.string() + " cannot be read");
    done += static_cast<std::size_t>(got);
  }
}

// Both take turns, so that what else the machine does meets both.
template <typename Load>
nlohmann::json beside_a_read(const fs::path& file, bool from_disk, Load load) {
  std::vector<double> reads, loads;
  for (int i = 0; i < 7; ++i) {
    if (from_disk) evict(file);
    reads.push_back(ms([&] { read_plainly(file); }));
    if (from_disk) evict(file);
    loads.push_back(ms(load));
  }
  std::ranges::sort(reads);
  std::ranges::sort(loads);
  const double read = reads[reads.size() / 2], whole = loads[loads.size() / 2];
  return {{"read_ms", read},
          {"load_ms", whole},
          {"ratio", whole / read},
          {"best_ratio", loads.front() / reads.front()}};
}

// Four rows of one forward, with and without.
nlohmann::json time_forward(const weights::ModelFolder& folder, const nn::Placement& placement,
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
  return {
      {"latent_side", side}, {"without_ms", none}, {"with_ms", four}, {"throughput", none / four}};
}

void run(const fs::path& model, std::int64_t rank, std::int64_t side, const fs::path& adapters) {
  const c10::InferenceMode no_gradients;
  const weights::ModelFolder folder = weights::read_model(model, {}).value_or_throw();
  const lora::ModelLayers layers({{"unet", folder.weights("unet", "").value_or_throw()}});
  const nn::Placement placement{at::kBFloat16, at::kFloat, at::kCPU};
  const auto load = [&](const fs::path& file) {
    return lora::attach(*lora::AdapterFile::read(file).value_or_throw(), layers, placement);
  };
  std::vector<fs::path> files;
  for (int i = 0; i < 4; ++i) {
    files.push_back(
        write_adapter(layers, rank, adapters / fmt::format("adapter_{}.safetensors", i)));
  }
  const fs::path& first = files.front();
  lora::AdapterCache cache(std::uint64_t{4} << 30);
  std::vector<lora::AdapterList> lists;
  for (const fs::path& file : files) {
    lists.push_back({{cache.get(file.string(), [&] { return load(file); }), {}}});
  }
  const std::vector<const lora::AdapterList*> one = {&lists[0]};
  std::vector<const lora::AdapterList*> rows;
  for (const auto& list : lists) rows.push_back(&list);
  nlohmann::json result = {{"model", model.filename().string()},
                           {"rank", rank},
                           {"bytes", fs::file_size(first)},
                           {"layers", lists.front().front().adapter->layers.size()},
                           {"threads", at::get_num_threads()},
                           {"from_disk", beside_a_read(first, true, [&] { load(first); })},
                           {"from_page_cache", beside_a_read(first, false, [&] { load(first); })},
                           {"attach_cached_ms", best_ms(5,
                                                        [&] {
                                                          cache.get(first.string(),
                                                                    [&] { return load(first); });
                                                          lora::row_adapters("unet", one);
                                                        })},
                           {"four_rows_ms", best_ms(3, [&] { lora::row_adapters("unet", rows); })}};
  if (side > 0) {
    result["four_rows"] = time_forward(folder, placement, lora::row_adapters("unet", rows), side);
  }
  fmt::print("{}\n", result.dump(1));
}

}  // namespace
}  // namespace limner

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "adapter_bench MODEL_FOLDER [RANK] [LATENT_SIDE] [FOLDER]\n");
    return 2;
  }
  namespace fs = std::filesystem;
  const fs::path own = fs::temp_directory_path() / fmt::format("limner_adapters_{}", getpid());
  const fs::path folder = argc > 4 ? fs::path(argv[4]) : own;
  int exit_code = 0;
  try {
    fs::create_directories(folder);
    limner::run(argv[1], argc > 2 ? std::atoll(argv[2]) : 16, argc > 3 ? std::atoll(argv[3]) : 32,
                folder);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    exit_code = 1;
  }
  std::error_code ignored;
  fs::remove_all(own, ignored);
  return exit_code;
}
