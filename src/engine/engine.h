// The engine's front door: load a model, begin pictures, step them, finish them. No tensor type
// appears here, and no exception of the tensor library leaves it.
//
//   auto engine = Engine::load({.model = "models/miniature"}, {}).value();
//   auto picture = engine.begin(request, 0).value();
//   std::vector<Picture*> batch = {&picture};
//   while (!picture.done()) engine.step(batch).value_or_throw();
//   image::Bitmap bitmap = engine.finish(picture).value();
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "contract/validate.h"
#include "engine/lora/adapter_use.h"
#include "engine/lora/report.h"
#include "image/bitmap.h"

namespace limner::engine {

// kAuto: float32 for models up to 1 GiB, bfloat16 above (on the CPU); the checkpoint's own dtype on
// CUDA. On a CPU without fast bfloat16 instructions bfloat16 and float16 are how weights are
// stored; arithmetic is float32.
enum class Precision { kAuto, kFloat32, kBFloat16, kFloat16 };
Result<Precision> precision_from_name(std::string_view name);  // auto, float32, bfloat16, float16

// What stays on the device between its uses. kModel: one network at a time, built anew from the
// file when its turn comes. kSequential: of that network only the layer at work, the others wait in
// the file's map. kAuto: kModel on a GPU of less than 20 GB, else kNone. The picture is the same.
enum class Offload { kAuto, kNone, kModel, kSequential };
Result<Offload> offload_from_name(std::string_view name);  // auto, none, model, sequential

// What `limner generate --sampler` and `--schedule` take.
std::vector<std::string> sampler_names();
std::vector<std::string> schedule_names();

// What a request needs. A plain value with a key; adapters and controls join it here.
struct Composition {
  std::filesystem::path model{};  // a diffusers folder or a single-file checkpoint
  std::string variant{};          // "fp16" for *.fp16.safetensors; "": whatever is there
  Precision precision = Precision::kAuto;
  std::string device = "auto";  // auto, cpu, cuda, cuda:N
  bool vae_tiling = false;
  bool vae_slicing = false;
  Offload offload = Offload::kAuto;
  std::filesystem::path tokenizer{};  // CLIP's vocabulary, for models that come without one
  std::string prediction{};           // epsilon, v_prediction; "": what the model says
  std::string key() const;            // equal keys may share one Engine
};

struct EngineOptions {
  std::uint64_t adapter_cache_bytes = std::uint64_t{2} << 30;  // on the device
  // Of their files in the host's memory, where the device is another.
  std::uint64_t adapter_host_cache_bytes = std::uint64_t{4} << 30;
  std::vector<std::filesystem::path> adapter_folders{};    // for <lora:name:weight> in prompts
  std::vector<std::filesystem::path> embedding_folders{};  // textual inversions, by name in prompts
  int threads = 0;                                         // 0: one per core
  std::optional<std::uint64_t>
      memory_budget{};  // bytes the engine may use; absent: what the machine has free
};

// What drawing one picture needs, in bytes, estimated before anything is allocated.
struct MemoryNeed {
  std::uint64_t weights = 0;       // as loaded
  std::uint64_t denoise = 0;       // activations of one forward of the batch
  std::uint64_t decode = 0;        // activations of the VAE
  std::uint64_t tiled_decode = 0;  // of the VAE when it decodes in tiles
  std::uint64_t adapters = 0;      // that are on the device now
  std::uint64_t peak() const { return weights + adapters + (denoise > decode ? denoise : decode); }
};

struct ModelInfo {
  std::string name;           // the folder's name
  std::string family;         // "sd1", "sd2", "sdxl"
  std::string pipeline;       // "StableDiffusionXLPipeline"
  std::string device;         // "cpu", "cuda:0"
  std::string storage_dtype;  // "float32", "bfloat16", "float16"
  std::string compute_dtype;
  std::string sampler;  // the checkpoint's own, by our name
};

// A model before anything of it is loaded.
struct ModelDescription {
  ModelInfo info;
  contract::Limits limits;
  std::uint64_t weight_bytes = 0;  // that loading it takes, as MemoryNeed::weights
};

// From the configs and the headers of the weights alone, by the code that Engine::load runs before
// it builds anything; what is wrong there is said here, what is wrong with the weights is not. Safe
// to call from many threads.
Result<ModelDescription> describe(const Composition& composition);

// Of the CPU's arithmetic on the calling thread; 0 changes nothing.
void set_threads(int threads);

// Bytes that are free on a device ("cpu", "cuda:0"), as seen from this process.
Result<std::uint64_t> free_memory(const std::string& device);

struct PictureAdapter {
  std::filesystem::path file;
  lora::AdapterScales scales;
  bool allow_partial = false;  // take a file some of whose keys match nothing
};

struct PictureOptions {
  std::vector<PictureAdapter> adapters{};
  bool keep_trace = false;  // remember every step's tensors for write_dump()
  // Bytes that activations may take; absent: what the engine's own budget leaves.
  std::optional<std::uint64_t> memory_room{};
};

// One image being drawn: everything that changes while it is. Movable; owned by one thread at a
// time; may be dropped at any step.
class Picture {
 public:
  Picture(Picture&&) noexcept;
  Picture& operator=(Picture&&) noexcept;
  ~Picture();

  std::uint64_t seed() const;
  std::int64_t step() const;   // model calls done
  std::int64_t steps() const;  // model calls in all
  bool done() const;
  std::int64_t rows() const;  // that it adds to a step at most
  // The files of its adapters, in order, each once: those asked for and those of the prompt.
  std::vector<std::filesystem::path> adapters() const;
  const std::vector<std::string>& warnings() const;  // e.g. what of the prompt was cut

  struct State;
  explicit Picture(std::unique_ptr<State> state);
  State& state() { return *state_; }
  const State& state() const { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

struct AdapterCacheStats {
  std::uint64_t hits = 0;
  std::uint64_t misses = 0;
  std::uint64_t bytes = 0;
  std::size_t adapters = 0;
  // Of the files kept in the host's memory; all 0 where the device is the host. A hit is a miss
  // above that needed no disk.
  std::uint64_t host_hits = 0;
  std::uint64_t host_bytes = 0;
};

// Owned and called by one thread at a time. Weights are shared and immutable; nothing of a request
// stays here but cached encodings of prompts.
class Engine {
 public:
  static Result<Engine> load(const Composition& composition, const EngineOptions& options);
  // Another engine over the same weights and adapters, for another thread. kUnsupported where
  // networks leave the device between their uses. May be called from any thread.
  Result<Engine> share() const;
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;
  ~Engine();

  const ModelInfo& info() const;
  const contract::Limits& limits() const;

  int threads() const;  // of the CPU's arithmetic

  // For a batch of `rows` pictures of this size.
  MemoryNeed memory(std::int64_t width, std::int64_t height, std::int64_t rows) const;

  // Reads an adapter and fits it to the model, or finds it in the cache: what begin does for each
  // of a picture's. May be called from any thread while others draw. kInvalidModel names the keys
  // that match nothing, the tensor that is not finite, the layer whose shape is another.
  Result<lora::AdapterReport> load_adapter(const std::filesystem::path& file, bool allow_partial);
  AdapterCacheStats adapter_cache() const;

  // encode_prompt and prepare_latents for image `index` of the request. A picture whose decoding
  // fits only in tiles is decoded so, with a warning. kOutOfMemory, naming a size that would fit,
  // when even that does not.
  Result<Picture> begin(const contract::ValidRequest& request, std::int64_t index,
                        const PictureOptions& options = {});
  // One model call for all of them, then each one's own sampler. Pictures agree in size; they may
  // differ in everything else. None may be done.
  Result<void> step(std::span<Picture* const> pictures);
  // A rough picture of where it stands, 1/8 of the size: a linear map of the latents.
  Result<image::Bitmap> preview(const Picture& picture);
  // decode: latents to pixels. kInternal when they hold NaN or infinity: never a black picture
  // without a word.
  Result<image::Bitmap> finish(Picture& picture);

  // Tensors of traced, finished pictures, stacked along the first axis, under the names diffusers'
  // own would have: prompt_embeds, timesteps, sigmas, latents.initial, noise_pred.NNN, latents.NNN,
  // latents.final, image, ...
  Result<void> write_dump(std::span<Picture* const> pictures,
                          const std::filesystem::path& file) const;

  struct State;

 private:
  explicit Engine(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace limner::engine
