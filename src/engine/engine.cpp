#include "engine/engine.h"

#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <list>
#include <new>

#include "base/human_bytes.h"
#include "base/system_memory.h"
#include "engine/pipelines/denoiser.h"
#include "engine/pipelines/dump.h"
#include "engine/pipelines/model_adapters.h"
#include "engine/pipelines/picture_state.h"
#include "engine/pipelines/placement.h"
#include "engine/pipelines/preview.h"
#include "engine/pipelines/registry.h"
#include "engine/plan.h"
#include "engine/samplers/registry.h"
#include "prompt/negative_section.h"

namespace limner::engine {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kPromptsKept = 16;

// Every exception of the tensor library and of the rooms below ends here.
template <typename Work>
auto guarded(const char* where, Work work) -> Result<decltype(work())> {
  const c10::InferenceMode no_gradients;
  try {
    if constexpr (std::is_void_v<decltype(work())>) {
      work();
      return {};
    } else {
      return work();
    }
  } catch (const Failure& failure) {
    return failure.error();
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::kOutOfMemory, fmt::format("[{}] memory ran out", where)};
  } catch (const c10::OutOfMemoryError& error) {
    return Error{ErrorCode::kOutOfMemory, fmt::format("[{}] device memory ran out: {}", where,
                                                      error.what_without_backtrace())};
  } catch (const c10::Error& error) {
    const std::string what = error.what_without_backtrace();
    const bool memory = what.find("can't allocate memory") != std::string::npos;
    return Error{memory ? ErrorCode::kOutOfMemory : ErrorCode::kInternal,
                 fmt::format("[{}] {}", where, what)};
  } catch (const std::exception& error) {
    return Error{ErrorCode::kInternal, fmt::format("[{}] {}", where, error.what())};
  }
}

}  // namespace

Result<ModelDescription> describe(const Composition& composition) {
  return guarded("describe", [&] { return plan_model(composition).description; });
}

void set_threads(int threads) {
  if (threads > 0) at::set_num_threads(threads);
}

Result<std::uint64_t> free_memory(const std::string& device) {
  return guarded("memory", [&]() -> std::uint64_t { return pipelines::free_memory(device); });
}

Result<Precision> precision_from_name(std::string_view name) {
  if (name == "auto") return Precision::kAuto;
  if (name == "float32") return Precision::kFloat32;
  if (name == "bfloat16") return Precision::kBFloat16;
  if (name == "float16") return Precision::kFloat16;
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("dtype '{}' is not known; want auto, float32, bfloat16 or float16",
                           name.substr(0, 64))};
}

Result<Offload> offload_from_name(std::string_view name) {
  if (name == "auto") return Offload::kAuto;
  if (name == "none") return Offload::kNone;
  if (name == "model") return Offload::kModel;
  if (name == "sequential") return Offload::kSequential;
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("offload '{}' is not known; want auto, none, model or sequential",
                           name.substr(0, 64))};
}

std::vector<std::string> sampler_names() {
  std::vector<std::string> names;
  for (const samplers::SamplerInfo& sampler : samplers::all_samplers())
    names.push_back(sampler.name);
  return names;
}

std::vector<std::string> schedule_names() {
  return samplers::all_schedules();
}

std::string Composition::key() const {
  return fmt::format("{}|{}|{}|{}|{}|{}|{}|{}|{}", model.string(), variant,
                     static_cast<int>(precision), device, vae_tiling, vae_slicing,
                     static_cast<int>(offload), tokenizer.string(), prediction);
}

struct Picture::State : pipelines::PictureState {
  std::vector<std::string> warnings;
  std::int64_t rows = 1;
};

Picture::Picture(std::unique_ptr<State> state) : state_(std::move(state)) {}
Picture::Picture(Picture&&) noexcept = default;
Picture& Picture::operator=(Picture&&) noexcept = default;
Picture::~Picture() = default;
std::uint64_t Picture::seed() const {
  return state_->seed;
}
std::int64_t Picture::step() const {
  return static_cast<std::int64_t>(state_->sampler->history().position);
}
std::int64_t Picture::steps() const {
  return static_cast<std::int64_t>(state_->sampler->timesteps().size());
}
bool Picture::done() const {
  return state_->sampler->done();
}
std::int64_t Picture::rows() const {
  return state_->rows;
}
std::vector<fs::path> Picture::adapters() const {
  std::vector<fs::path> files;
  for (const auto& [adapter, scales] : state_->adapters) {
    if (std::ranges::find(files, adapter->report.path) == files.end()) {
      files.push_back(adapter->report.path);
    }
  }
  return files;
}
const std::vector<std::string>& Picture::warnings() const {
  return state_->warnings;
}

struct Engine::State {
  std::shared_ptr<const pipelines::Pipeline> pipeline;
  nn::Placement placement;
  bool shareable = true;  // no network leaves the device
  nlohmann::json sampler_config;
  ModelInfo info;
  contract::Limits limits;
  std::uint64_t weight_bytes = 0;
  std::optional<std::uint64_t> memory_budget;
  std::optional<pipelines::PreviewMap> preview;
  std::shared_ptr<pipelines::ModelAdapters> adapters;  // safe to call from many threads
  pipelines::BatchAdapters batch_adapters;
  // Least recently used last.
  std::list<std::pair<pipelines::PromptText, std::shared_ptr<const pipelines::EncodedPrompt>>>
      prompts;

  std::uint64_t memory_free() const {
    if (!memory_budget) return available_memory_bytes();
    const std::uint64_t taken = weight_bytes + adapters->attached().bytes;
    return *memory_budget > taken ? *memory_budget - taken : 0;
  }

  std::shared_ptr<const pipelines::EncodedPrompt> encode_prompt(pipelines::PromptText text,
                                                                const lora::AdapterList& list) {
    text.adapters = pipelines::text_key(list);
    const auto found = std::find_if(prompts.begin(), prompts.end(),
                                    [&](const auto& entry) { return entry.first == text; });
    if (found != prompts.end()) {
      prompts.splice(prompts.begin(), prompts, found);
    } else {
      const pipelines::TextRows rows(list);
      prompts.emplace_front(text, std::make_shared<const pipelines::EncodedPrompt>(
                                      pipeline->encode_prompt(text, rows.view())));
      if (prompts.size() > kPromptsKept) prompts.pop_back();
    }
    return prompts.front().second;
  }
};

Engine::Engine(std::unique_ptr<State> state) : state_(std::move(state)) {}
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;
Engine::~Engine() = default;
int Engine::threads() const {
  return at::get_num_threads();
}
const ModelInfo& Engine::info() const {
  return state_->info;
}
const contract::Limits& Engine::limits() const {
  return state_->limits;
}

Result<Engine> Engine::load(const Composition& composition, const EngineOptions& options) {
  return guarded("load", [&]() -> Engine {
    set_threads(options.threads);
    ModelPlan plan = plan_model(composition);
    check_room(plan, options.memory_budget.value_or(available_memory_bytes()));
    const bool offload = plan.offload != Offload::kNone;

    auto state = std::make_unique<State>();
    state->pipeline =
        pipelines::load_pipeline({plan.folder, composition.variant, plan.placement, offload,
                                  models::AutoencoderOptions{.slicing = composition.vae_slicing,
                                                             .tiling = composition.vae_tiling},
                                  options.embedding_folders});
    state->adapters = std::make_shared<pipelines::ModelAdapters>(
        pipelines::ModelAdapters::Model{plan.folder, composition.variant, plan.placement}, options);
    state->placement = plan.placement;
    state->shareable = !offload;
    state->memory_budget = options.memory_budget;
    state->weight_bytes = plan.description.weight_bytes;
    state->sampler_config = std::move(plan.sampler_config);
    state->info = std::move(plan.description.info);
    state->limits = std::move(plan.description.limits);
    return Engine(std::move(state));
  });
}

Result<Engine> Engine::share() const {
  if (!state_->shareable) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("[load] {} leaves the device between its uses: its weights serve one "
                             "thread alone",
                             state_->info.name)};
  }
  auto other = std::make_unique<State>();
  other->pipeline = state_->pipeline;
  other->adapters = state_->adapters;
  other->placement = state_->placement;
  other->memory_budget = state_->memory_budget;
  other->weight_bytes = state_->weight_bytes;
  other->sampler_config = state_->sampler_config;
  other->info = state_->info;
  other->limits = state_->limits;
  return Engine(std::move(other));
}

MemoryNeed Engine::memory(std::int64_t width, std::int64_t height, std::int64_t rows) const {
  const std::int64_t factor = state_->pipeline->traits().spatial_factor;
  return {state_->weight_bytes,
          state_->pipeline->denoise_bytes(rows, height / factor, width / factor),
          state_->pipeline->decode_bytes(height / factor, width / factor, false),
          state_->pipeline->decode_bytes(height / factor, width / factor, true),
          state_->adapters->attached().bytes};
}

namespace {

// What the pipeline is to encode for a request whose sampler calls the model `steps` times.
pipelines::PromptText prompt_text(const contract::ValidRequest& request, std::int64_t steps) {
  prompt::PromptPair pair{request.prompt(), request.negative_prompt()};
  if (request.extract_negative()) pair = prompt::extract_negative(pair.prompt, pair.negative);
  return {std::move(pair.prompt), std::move(pair.negative), request.clip_skip(),
          request.prompt_options(), steps};
}

// What <lora:name:weight> in the prompt asks for.
std::vector<prompt::LoraTag> adapter_tags(const pipelines::PromptText& text) {
  return prompt::parse(text.positive, {.syntax = text.options.syntax, .steps = text.steps})
      .value_or_throw()
      .loras;
}

// The largest side of a square picture whose need fits into `room`, in steps of 64.
std::int64_t largest_square(const Engine& engine, std::uint64_t room) {
  std::int64_t side = 0;
  while (side < engine.limits().largest_side) {
    const MemoryNeed need = engine.memory(side + 64, side + 64, 2);
    if (std::max(need.denoise, need.tiled_decode) > room) break;
    side += 64;
  }
  return side;
}

// Decides whether the picture must be decoded in tiles; throws Failure(kOutOfMemory) when that does
// not help either. Memory of other devices is theirs to judge.
void make_room(const Engine& engine, const contract::ValidRequest& request, std::uint64_t room,
               Picture::State& picture) {
  const MemoryNeed need = engine.memory(request.width(), request.height(), picture.rows);
  const std::uint64_t least = std::max(need.denoise, need.tiled_decode);
  if (engine.info().device != "cpu") return;
  if (least > room) {
    const std::int64_t side = largest_square(engine, room);
    throw Failure(ErrorCode::kOutOfMemory,
                  fmt::format("{}x{} needs about {} of memory beside the model, and {} are free; "
                              "{}x{} would fit",
                              request.width(), request.height(), human_bytes(least),
                              human_bytes(room), side, side));
  }
  if (need.decode <= room) return;
  picture.tiled_decode = true;
  picture.warnings.push_back(
      fmt::format("the picture is decoded in tiles: as a whole it needs about {}, and {} are free",
                  human_bytes(need.decode), human_bytes(room)));
}

}  // namespace

Result<lora::AdapterReport> Engine::load_adapter(const std::filesystem::path& file,
                                                 bool allow_partial) {
  return guarded("adapter", [&] { return state_->adapters->load(file, allow_partial)->report; });
}

AdapterCacheStats Engine::adapter_cache() const {
  const lora::AdapterCacheStats stats = state_->adapters->attached();
  const lora::AdapterCacheStats files = state_->adapters->files();
  return {stats.hits, stats.misses, stats.bytes, stats.adapters, files.hits, files.bytes};
}

Result<Picture> Engine::begin(const contract::ValidRequest& request, std::int64_t index,
                              const PictureOptions& options) {
  return guarded("begin", [&]() -> Picture {
    const pipelines::Traits& traits = state_->pipeline->traits();
    auto picture = std::make_unique<Picture::State>();
    picture->seed = request.seed(index);
    picture->guidance_scale = request.guidance_scale();
    picture->guidance_rescale = request.guidance_rescale();
    samplers::SamplerRequest wanted;
    wanted.name = request.sampler();
    wanted.schedule = request.schedule();
    wanted.steps = static_cast<int>(request.steps());
    wanted.eta = request.eta();
    picture->sampler = samplers::make_sampler(state_->sampler_config, wanted).value_or_throw();

    const pipelines::PromptText text =
        prompt_text(request, static_cast<std::int64_t>(picture->sampler->timesteps().size()));
    picture->adapters = state_->adapters->list(options.adapters, adapter_tags(text));
    picture->prompt = state_->encode_prompt(text, picture->adapters);
    picture->warnings = picture->prompt->warnings;
    picture->time_ids = state_->pipeline->time_ids(request);

    picture->rows = pipelines::rows_of(*state_->pipeline, *picture);
    make_room(*this, request, options.memory_room.value_or(state_->memory_free()), *picture);
    const std::int64_t h = request.height() / traits.spatial_factor,
                       w = request.width() / traits.spatial_factor;

    // prepare_latents
    picture->noise = samplers::Noise(picture->seed);
    picture->latents = (picture->noise.normal({1, traits.latent_channels, h, w}) *
                        picture->sampler->init_noise_sigma())
                           .to(state_->placement.device);
    if (options.keep_trace) picture->trace.emplace().initial = picture->latents.clone();
    return Picture(std::move(picture));
  });
}

Result<void> Engine::step(std::span<Picture* const> pictures) {
  return guarded("denoise", [&] {
    std::vector<pipelines::PictureState*> states;
    for (Picture* picture : pictures) {
      LIMNER_CHECK(!picture->done(), "a finished picture cannot step");
      if (picture->state().latents.sizes() != pictures.front()->state().latents.sizes()) {
        throw Failure(ErrorCode::kInvalidArgument, "pictures of one batch must have one size");
      }
      states.push_back(&picture->state());
    }
    if (!states.empty()) pipelines::step(*state_->pipeline, state_->batch_adapters, states);
  });
}

Result<image::Bitmap> Engine::preview(const Picture& picture) {
  return guarded("preview", [&] {
    if (!state_->preview) state_->preview.emplace(*state_->pipeline, state_->placement.device);
    return state_->preview->draw(picture.state().latents);
  });
}

Result<image::Bitmap> Engine::finish(Picture& picture) {
  return guarded("decode", [&] {
    const at::Tensor image =
        state_->pipeline->decode(picture.state().latents, picture.state().tiled_decode);
    if (!at::isfinite(image).all().item<bool>()) {
      throw Failure(
          ErrorCode::kInternal,
          fmt::format("[decode] the picture of seed {} holds NaN or infinity", picture.seed()));
    }
    if (picture.state().trace) picture.state().trace->image = image;
    return pipelines::to_bitmap(image);
  });
}

Result<void> Engine::write_dump(std::span<Picture* const> pictures,
                                const std::filesystem::path& file) const {
  const auto work = [&] {
    std::vector<const pipelines::PictureState*> states;
    for (const Picture* picture : pictures) states.push_back(&picture->state());
    pipelines::write_dump(*state_->pipeline, states, file).value_or_throw();
  };
  return guarded("dump", work);
}

}  // namespace limner::engine
