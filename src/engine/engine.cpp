#include "engine/engine.h"

#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <list>
#include <new>
#include <set>

#include "base/system_memory.h"
#include "engine/pipelines/denoiser.h"
#include "engine/pipelines/dump.h"
#include "engine/pipelines/picture_state.h"
#include "engine/pipelines/placement.h"
#include "engine/pipelines/preview.h"
#include "engine/pipelines/registry.h"
#include "engine/samplers/registry.h"
#include "engine/weights/config.h"
#include "engine/weights/weights.h"

namespace limner::engine {
namespace {

constexpr std::size_t kConditioningsKept = 16;

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

std::string human_bytes(std::uint64_t bytes) {
  constexpr double kMiB = 1024.0 * 1024.0;
  const double mib = static_cast<double>(bytes) / kMiB;
  return mib < 1024 ? fmt::format("{:.0f} MiB", mib) : fmt::format("{:.1f} GiB", mib / 1024);
}

// The weight components of a folder: their bytes, and the dtype of most of them.
pipelines::CheckpointFacts facts_of(const weights::ModelFolder& folder,
                                    const std::string& variant) {
  pipelines::CheckpointFacts facts;
  std::map<std::string, std::uint64_t> by_dtype;
  for (const auto& [component, entry] : folder.components) {
    if (!std::filesystem::exists(folder.config_file(component))) continue;
    const auto opened = weights::Weights::open_component(folder.root / component, variant);
    if (!opened.ok()) continue;  // loading it will say what is wrong
    facts.weight_bytes += (*opened)->bytes();
    for (const std::string& name : (*opened)->names()) {
      const weights::TensorView* tensor = (*opened)->find(name);
      by_dtype[std::string(weights::name(tensor->dtype))] += tensor->bytes.size();
    }
  }
  std::uint64_t most = 0;
  for (const auto& [dtype, bytes] : by_dtype) {
    if (bytes > most) {
      most = bytes;
      facts.dtype = dtype;
    }
  }
  return facts;
}

// A variant that no component has is a mistake; one that only some have is usual.
void check_variant(const weights::ModelFolder& folder, const std::string& variant) {
  if (variant.empty()) return;
  std::set<std::string> known;
  for (const auto& [component, entry] : folder.components) {
    for (const std::string& name : weights::Weights::variants(folder.root / component)) {
      if (name == variant) return;
      if (!name.empty()) known.insert(name);
    }
  }
  throw Failure(
      ErrorCode::kInvalidArgument,
      fmt::format("{} has no variant '{}'; {}", folder.root.string(), variant.substr(0, 64),
                  known.empty() ? "its weights have none"
                                : fmt::format("there are: {}", fmt::join(known, ", "))));
}

// limner.json beside model_index.json may carry the defaults its maker recommends.
void read_defaults(const std::filesystem::path& folder, contract::Limits& limits) {
  const std::filesystem::path file = folder / "limner.json";
  if (!std::filesystem::exists(file)) return;
  const weights::Config root = weights::Config::read(file);
  const weights::Config defaults(root.raw("defaults"), file.string() + ": defaults");
  limits.default_width = defaults.integer_in("width", limits.default_width, 8, limits.largest_side);
  limits.default_height =
      defaults.integer_in("height", limits.default_height, 8, limits.largest_side);
  limits.default_steps = defaults.integer_in("steps", limits.default_steps, 1, limits.most_steps);
  limits.default_guidance_scale = defaults.number("guidance_scale", limits.default_guidance_scale);
  defaults.finish();
  root.finish();
}

}  // namespace

Result<Precision> precision_from_name(std::string_view name) {
  if (name == "auto") return Precision::kAuto;
  if (name == "float32") return Precision::kFloat32;
  if (name == "bfloat16") return Precision::kBFloat16;
  if (name == "float16") return Precision::kFloat16;
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("dtype '{}' is not known; want auto, float32, bfloat16 or float16",
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
  return fmt::format("{}|{}|{}|{}|{}|{}", model.string(), variant, static_cast<int>(precision),
                     device, vae_tiling, vae_slicing);
}

struct Picture::State : pipelines::PictureState {
  std::vector<std::string> warnings;
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
const std::vector<std::string>& Picture::warnings() const {
  return state_->warnings;
}

struct Engine::State {
  std::unique_ptr<const pipelines::Pipeline> pipeline;
  nn::Placement placement;
  nlohmann::json sampler_config;
  ModelInfo info;
  contract::Limits limits;
  std::uint64_t weight_bytes = 0;
  std::optional<std::uint64_t> memory_budget;
  std::optional<pipelines::PreviewMap> preview;
  // Least recently used last.
  std::list<std::pair<pipelines::PromptText, std::shared_ptr<const pipelines::Conditioning>>>
      conditionings;

  std::uint64_t memory_free() const {
    if (!memory_budget) return available_memory_bytes();
    return *memory_budget > weight_bytes ? *memory_budget - weight_bytes : 0;
  }

  std::shared_ptr<const pipelines::Conditioning> encode_prompt(const pipelines::PromptText& text) {
    const auto found = std::find_if(conditionings.begin(), conditionings.end(),
                                    [&](const auto& entry) { return entry.first == text; });
    if (found != conditionings.end()) {
      conditionings.splice(conditionings.begin(), conditionings, found);
    } else {
      conditionings.emplace_front(
          text, std::make_shared<const pipelines::Conditioning>(pipeline->encode_prompt(text)));
      if (conditionings.size() > kConditioningsKept) conditionings.pop_back();
    }
    return conditionings.front().second;
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
    if (options.threads > 0) at::set_num_threads(options.threads);
    const weights::ModelFolder folder =
        weights::read_model_folder(composition.model).value_or_throw();
    check_variant(folder, composition.variant);
    const pipelines::CheckpointFacts facts = facts_of(folder, composition.variant);

    auto state = std::make_unique<State>();
    state->placement = pipelines::place(composition.precision, composition.device, facts);
    state->memory_budget = options.memory_budget;
    const std::uint64_t stored = facts.dtype == "F32" ? 4 : 2;
    state->weight_bytes = facts.weight_bytes / stored * c10::elementSize(state->placement.storage);
    const std::uint64_t room = options.memory_budget.value_or(available_memory_bytes());
    if (state->placement.device.is_cpu() && state->weight_bytes > room) {
      throw Failure(
          ErrorCode::kOutOfMemory,
          fmt::format(
              "{}: the weights need {} as {}, and {} are free{}", folder.root.string(),
              human_bytes(state->weight_bytes), pipelines::dtype_name(state->placement.storage),
              human_bytes(room),
              state->placement.storage == at::kFloat ? "; --dtype bfloat16 needs half" : ""));
    }
    state->sampler_config =
        weights::Config::read(folder.root / "scheduler" / "scheduler_config.json").object();
    state->pipeline =
        pipelines::load_pipeline({folder, composition.variant, state->placement,
                                  models::AutoencoderOptions{.slicing = composition.vae_slicing,
                                                             .tiling = composition.vae_tiling}});

    const pipelines::Traits& traits = state->pipeline->traits();
    contract::Limits& limits = state->limits;
    limits.default_width = limits.default_height = traits.default_side;
    limits.default_steps = traits.default_steps;
    limits.default_guidance_scale = traits.default_guidance_scale;
    limits.multiple = limits.smallest_side = traits.spatial_factor;
    limits.most_clip_skip = traits.clip_layers - 1;
    limits.samplers = sampler_names();
    limits.schedules = schedule_names();
    read_defaults(folder.root, limits);
    // A checkpoint whose own sampler cannot be made is refused now, not at the first picture.
    state->info.sampler = samplers::checkpoint_sampler(state->sampler_config).value_or_throw();

    state->info.name = folder.root.filename().string();
    state->info.family = traits.family;
    state->info.pipeline = folder.pipeline_class;
    state->info.device = state->placement.device.str();
    state->info.storage_dtype = pipelines::dtype_name(state->placement.storage);
    state->info.compute_dtype = pipelines::dtype_name(state->placement.compute);
    return Engine(std::move(state));
  });
}

MemoryNeed Engine::memory(std::int64_t width, std::int64_t height, std::int64_t rows) const {
  const std::int64_t factor = state_->pipeline->traits().spatial_factor;
  return {state_->weight_bytes,
          state_->pipeline->denoise_bytes(rows, height / factor, width / factor),
          state_->pipeline->decode_bytes(height / factor, width / factor)};
}

namespace {

// The largest side of a square picture whose need fits into `room`, in steps of 64.
std::int64_t largest_square(const Engine& engine, std::uint64_t room) {
  std::int64_t side = 0;
  while (side < engine.limits().largest_side) {
    const MemoryNeed need = engine.memory(side + 64, side + 64, 2);
    if (std::max(need.denoise, need.decode) > room) break;
    side += 64;
  }
  return side;
}

}  // namespace

Result<Picture> Engine::begin(const contract::ValidRequest& request, std::int64_t index,
                              const PictureOptions& options) {
  return guarded("begin", [&]() -> Picture {
    const pipelines::Traits& traits = state_->pipeline->traits();
    const MemoryNeed need =
        memory(request.width(), request.height(), request.guidance_scale() > 1 ? 2 : 1);
    const std::uint64_t room = state_->memory_free();
    if (state_->placement.device.is_cpu() && std::max(need.denoise, need.decode) > room) {
      throw Failure(
          ErrorCode::kOutOfMemory,
          fmt::format(
              "{}x{} needs about {} of memory beside the model, and {} are free; {}x{} would fit",
              request.width(), request.height(), human_bytes(std::max(need.denoise, need.decode)),
              human_bytes(room), largest_square(*this, room), largest_square(*this, room)));
    }
    auto picture = std::make_unique<Picture::State>();
    picture->seed = request.seed(index);
    picture->guidance_scale = request.guidance_scale();
    picture->guidance_rescale = request.guidance_rescale();
    picture->conditioning =
        state_->encode_prompt({request.prompt(), request.negative_prompt(), request.clip_skip()});
    picture->warnings = picture->conditioning->warnings;
    picture->time_ids = state_->pipeline->time_ids(request);

    const std::int64_t h = request.height() / traits.spatial_factor,
                       w = request.width() / traits.spatial_factor;
    samplers::SamplerRequest wanted;
    wanted.name = request.sampler();
    wanted.schedule = request.schedule();
    wanted.steps = static_cast<int>(request.steps());
    wanted.eta = request.eta();
    picture->sampler = samplers::make_sampler(state_->sampler_config, wanted).value_or_throw();

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
    if (!states.empty()) pipelines::step(*state_->pipeline, states);
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
    const at::Tensor image = state_->pipeline->decode(picture.state().latents);
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
