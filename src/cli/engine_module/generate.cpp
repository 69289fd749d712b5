// `limner generate`: from options to pictures on the disk.
#include <fmt/format.h>

#include <unistd.h>

#include <chrono>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>

#include "cli/engine_module/commands.h"
#include "cli/model_paths.h"
#include "image/encode.h"
#include "prompt/infotext.h"
#include "prompt/negative_section.h"
#include "prompt/parsed_prompt.h"

namespace limner::cli {
namespace {

namespace fs = std::filesystem;
using engine::Picture;

class Stopwatch {
 public:
  double lap_ms() {
    const auto now = std::chrono::steady_clock::now();
    const double ms = std::chrono::duration<double, std::milli>(now - last_).count();
    last_ = now;
    return ms;
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

struct Timings {
  double load_ms = 0, encode_ms = 0, denoise_ms = 0, decode_ms = 0, save_ms = 0;
};

struct Written {
  std::string file;
  std::uint64_t seed;
};

// The file of image `index`: {seed} and {index} filled in; with several images and neither,
// "-index" is added.
fs::path output_path(const GenerateOptions& options, std::uint64_t seed, std::int64_t index) {
  std::string path = options.output;
  if (options.request.num_images > 1 && path.find("{seed}") == std::string::npos &&
      path.find("{index}") == std::string::npos) {
    const fs::path plain = path;
    path = (plain.parent_path() / (plain.stem().string() + "-{index}" + plain.extension().string()))
               .string();
  }
  const auto fill = [&](const std::string& key, const std::string& value) {
    for (auto at = path.find(key); at != std::string::npos;
         at = path.find(key, at + value.size())) {
      path.replace(at, key.size(), value);
    }
  };
  fill("{seed}", std::to_string(seed));
  fill("{index}", std::to_string(index));
  return path;
}

// By --format, or by the output's extension.
Result<image::Format> output_format(const GenerateOptions& options) {
  if (!options.format.empty()) return image::format_from_name(options.format);
  const std::string extension = fs::path(options.output).extension().string();
  if (extension.empty()) return image::Format::kPng;
  return image::format_from_name(extension.substr(1));
}

// The prompt "-": all of standard input, without its last line end.
std::string read_standard_input() {
  std::string text{std::istreambuf_iterator<char>(std::cin), {}};
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

// Says no before an hour of drawing, not after.
Result<void> check_writable(const fs::path& file) {
  const fs::path folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) {
    return Error{ErrorCode::kIo, fmt::format("cannot write {}: there is no folder {}",
                                             file.string(), folder.string())};
  }
  if (fs::is_directory(file, ignored)) {
    return Error{ErrorCode::kIo, fmt::format("cannot write {}: it is a folder", file.string())};
  }
  if (access(folder.c_str(), W_OK) != 0) {
    return Error{ErrorCode::kIo, fmt::format("cannot write {}: no permission for {}", file.string(),
                                             folder.string())};
  }
  return {};
}

// What can be refused before a model is loaded: its own limits come later.
contract::Limits limits_of_any_model() {
  contract::Limits limits;
  limits.multiple = 1;
  limits.smallest_side = 1;
  limits.most_clip_skip = 64;
  limits.samplers = engine::sampler_names();
  limits.schedules = engine::schedule_names();
  return limits;
}

// How the prompt is to be read again; what is usual stays unsaid.
void add_prompt_options(const contract::PromptOptions& options, prompt::Infotext& text) {
  using contract::PromptSyntax, contract::Weighting;
  if (options.syntax != PromptSyntax::kA1111) {
    text.parameters.emplace_back("Prompt syntax",
                                 options.syntax == PromptSyntax::kCompel ? "compel" : "plain");
  }
  if (options.weighting != Weighting::kA1111) {
    text.parameters.emplace_back("Weighting",
                                 options.weighting == Weighting::kLpw ? "lpw" : "compel");
  }
  if (options.long_prompt == contract::LongPrompt::kTruncate) {
    text.parameters.emplace_back("Long prompt", "truncate");
  }
}

// A prompt that cannot be read is refused before a model is loaded, too.
Result<void> check_prompts(const contract::ValidRequest& request) {
  prompt::PromptPair pair{request.prompt(), request.negative_prompt()};
  if (request.extract_negative()) pair = prompt::extract_negative(pair.prompt, pair.negative);
  prompt::ParseOptions options{.syntax = request.prompt_options().syntax};
  if (const auto good = prompt::parse(pair.prompt, options); !good.ok()) return good.error();
  options.negative = true;
  if (const auto good = prompt::parse(pair.negative, options); !good.ok()) return good.error();
  return {};
}

class Run {
 public:
  Run(const GenerateOptions& options, const Console& console)
      : options_(options), console_(console) {}

  Result<void> draw() {
    const auto format = output_format(options_);
    if (!format.ok()) return format.error();
    format_ = *format;
    const std::uint64_t random_seed = std::random_device{}();
    contract::GenerationRequest asked = options_.request;
    if (asked.prompt == "-") asked.prompt = read_standard_input();
    if (!options_.prompt_prefix.empty())
      asked.prompt = options_.prompt_prefix + (asked.prompt.empty() ? "" : ", ") + asked.prompt;
    if (!asked.seed) asked.seed = static_cast<std::int64_t>(random_seed);
    const auto early = contract::validate(asked, limits_of_any_model(), 0);
    if (!early.ok()) return early.error();
    if (const auto good = check_prompts(*early.request); !good.ok()) return good;
    if (const auto good =
            check_writable(output_path(options_, static_cast<std::uint64_t>(*asked.seed), 0));
        !good.ok()) {
      return good;
    }

    auto place = composition(options_.place);
    if (!place.ok()) return place.error();
    const auto folders = lora_folders(options_.loras.folders, place->model);
    auto adapters = picture_adapters(options_.loras, folders, console_);
    if (!adapters.ok()) return adapters.error();
    adapters_ = std::move(*adapters);
    hash_ = model_hash(place->model);
    auto engine = engine::Engine::load(
        *place, {.adapter_folders = folders.folders(),
                 .embedding_folders = embedding_folders(options_.embeddings, place->model),
                 .threads = options_.place.threads,
                 .memory_budget = {}});
    if (!engine.ok()) return engine.error();
    engine_.emplace(std::move(*engine));
    if (const auto loaded = load_adapters(); !loaded.ok()) return loaded;
    timings_.load_ms = watch_.lap_ms();

    auto validation = contract::validate(asked, engine_->limits(), 0);
    if (!validation.ok()) return validation.error();
    request_ = std::move(validation.request);
    const std::int64_t images = request_->num_images();
    for (std::int64_t first = 0; first < images; first += options_.batch_size) {
      const auto done = draw_batch(first, std::min(images, first + options_.batch_size));
      if (!done.ok()) return done;
    }
    return write_dump();
  }

  void report() {
    if (!console_.json()) {
      for (const Written& picture : written_) console_.result(picture.file);
      return;
    }
    nlohmann::json body = {
        {"files", nlohmann::json::array()},
        {"seeds", nlohmann::json::array()},
        {"model", engine_->info().name},
        {"family", engine_->info().family},
        {"hash", hash_text()},
        {"device", engine_->info().device},
        {"dtype",
         {{"storage", engine_->info().storage_dtype}, {"compute", engine_->info().compute_dtype}}},
        {"sampler", sampler()},
        {"schedule", request_->schedule()},
        {"width", request_->width()},
        {"height", request_->height()},
        {"steps", request_->steps()},
        {"guidance_scale", request_->guidance_scale()},
        {"loras", loras_json()},
        {"warnings", warnings_},
        {"timings",
         {{"load_ms", timings_.load_ms},
          {"encode_ms", timings_.encode_ms},
          {"denoise_ms", timings_.denoise_ms},
          {"decode_ms", timings_.decode_ms},
          {"save_ms", timings_.save_ms}}}};
    for (const Written& picture : written_) {
      body["files"].push_back(picture.file);
      body["seeds"].push_back(picture.seed);
    }
    console_.result(body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  }

 private:
  // Says what each file has before the first picture is begun.
  Result<void> load_adapters() {
    for (const engine::PictureAdapter& adapter : adapters_) {
      auto report = engine_->load_adapter(adapter.file, adapter.allow_partial);
      if (!report.ok()) return report.error();
      console_.note(describe(*report));
      reports_.push_back(std::move(*report));
    }
    return {};
  }

  nlohmann::json loras_json() const {
    nlohmann::json list = nlohmann::json::array();
    for (std::size_t i = 0; i < reports_.size(); ++i) {
      nlohmann::json unmatched = nlohmann::json::array();
      for (const auto& key : reports_[i].unmatched) unmatched.push_back(key.name);
      list.push_back({{"use", options_.loras.use[i]},
                      {"file", adapters_[i].file.string()},
                      {"kinds", reports_[i].kinds},
                      {"layers", reports_[i].matched},
                      {"unmatched", unmatched},
                      {"rank", reports_[i].highest_rank},
                      {"bytes", reports_[i].bytes}});
    }
    return list;
  }

  Result<void> draw_batch(std::int64_t first, std::int64_t last) {
    std::vector<Picture> pictures;
    std::vector<Picture*> batch;
    watch_.lap_ms();
    for (std::int64_t index = first; index < last; ++index) {
      auto picture = engine_->begin(
          *request_, index, {.adapters = adapters_, .keep_trace = !options_.dump_tensors.empty()});
      if (!picture.ok()) return picture.error();
      pictures.push_back(std::move(*picture));
    }
    for (Picture& picture : pictures) batch.push_back(&picture);
    warn(pictures.front().warnings());
    timings_.encode_ms += watch_.lap_ms();

    if (const auto done = denoise(batch, first, last); !done.ok()) return done;
    timings_.denoise_ms += watch_.lap_ms();

    for (std::size_t i = 0; i < pictures.size(); ++i) {
      auto bitmap = engine_->finish(pictures[i]);
      if (!bitmap.ok()) return bitmap.error();
      timings_.decode_ms += watch_.lap_ms();
      const auto saved = save(*bitmap, pictures[i].seed(), first + static_cast<std::int64_t>(i));
      if (!saved.ok()) return saved;
      timings_.save_ms += watch_.lap_ms();
      if (!options_.dump_tensors.empty()) traced_.push_back(std::move(pictures[i]));
    }
    return {};
  }

  Result<void> denoise(const std::vector<Picture*>& batch, std::int64_t first, std::int64_t last) {
    const std::string which =
        request_->num_images() == 1 ? "drawing"
        : last - first == 1
            ? fmt::format("picture {}/{}", last, request_->num_images())
            : fmt::format("pictures {}-{}/{}", first + 1, last, request_->num_images());
    ProgressBar bar(console_, which, batch.front()->steps());
    bar.update(0);
    while (!batch.front()->done()) {
      if (InterruptGuard::requested()) {
        return Error{ErrorCode::kCancelled,
                     fmt::format("stopped at step {} of {}; {} picture{} written",
                                 batch.front()->step(), batch.front()->steps(),
                                 written_.empty() ? "no" : std::to_string(written_.size()),
                                 written_.size() > 1 ? "s were" : " was")};
      }
      const auto stepped = engine_->step(batch);
      if (!stepped.ok()) return stepped;
      bar.update(batch.front()->step());
      if (!options_.preview.empty()) {
        if (const auto shown = save_preview(*batch.front()); !shown.ok()) return shown;
      }
    }
    return {};
  }

  Result<void> save_preview(const Picture& picture) {
    const auto bitmap = engine_->preview(picture);
    if (!bitmap.ok()) return bitmap.error();
    const auto bytes = image::encode(*bitmap, {.format = image::Format::kPng, .text = {}});
    if (!bytes.ok()) return bytes.error();
    return image::write_file(options_.preview, *bytes);
  }

  Result<void> save(const image::Bitmap& bitmap, std::uint64_t seed, std::int64_t index) {
    const auto parameters = infotext(seed);
    if (!parameters.ok()) return parameters.error();
    const auto bytes = image::encode(
        bitmap,
        {.format = format_, .quality = options_.quality, .text = {{"parameters", *parameters}}});
    if (!bytes.ok()) return bytes.error();
    const fs::path file = output_path(options_, seed, index);
    if (const auto wrote = image::write_file(file, *bytes); !wrote.ok()) return wrote;
    written_.push_back({file.string(), seed});
    return {};
  }

  Result<std::string> infotext(std::uint64_t seed) {
    prompt::Infotext text;
    text.prompt = request_->prompt();
    text.negative_prompt = request_->negative_prompt();
    const auto add = [&](const char* key, std::string value) {
      text.parameters.emplace_back(key, std::move(value));
    };
    add("Steps", std::to_string(request_->steps()));
    add("Sampler", sampler());
    if (request_->schedule() != "default") add("Schedule type", request_->schedule());
    add("CFG scale", fmt::format("{:g}", request_->guidance_scale()));
    if (request_->guidance_rescale() > 0)
      add("CFG Rescale", fmt::format("{:g}", request_->guidance_rescale()));
    add("Seed", std::to_string(seed));
    add("Size", fmt::format("{}x{}", request_->width(), request_->height()));
    add("Model hash", hash_text().substr(0, 10));
    add("Model", engine_->info().name);
    if (request_->clip_skip() > 0) add("Clip skip", std::to_string(request_->clip_skip() + 1));
    if (!options_.loras.use.empty()) {
      add("Loras", fmt::format("{}", fmt::join(options_.loras.use, ", ")));
    }
    add_prompt_options(request_->prompt_options(), text);
    if (request_->eta() > 0) add("Eta", fmt::format("{:g}", request_->eta()));
    add("Version", "limner " LIMNER_VERSION);
    return prompt::write_infotext(text);
  }

  Result<void> write_dump() {
    if (options_.dump_tensors.empty()) return {};
    std::vector<Picture*> pictures;
    for (Picture& picture : traced_) pictures.push_back(&picture);
    return engine_->write_dump(pictures, options_.dump_tensors);
  }

  void warn(const std::vector<std::string>& warnings) {
    for (const std::string& warning : warnings) {
      if (std::find(warnings_.begin(), warnings_.end(), warning) != warnings_.end()) continue;
      warnings_.push_back(warning);
      if (!console_.json()) console_.warning(warning);
    }
  }

  std::string sampler() const {
    return request_->sampler().empty() ? engine_->info().sampler : request_->sampler();
  }

  const std::string& hash_text() {
    if (hash_.valid()) hash_known_ = hash_.get();
    return hash_known_;
  }

  const GenerateOptions& options_;
  const Console& console_;
  Stopwatch watch_;
  Timings timings_;
  image::Format format_ = image::Format::kPng;
  std::vector<engine::PictureAdapter> adapters_;
  std::vector<engine::lora::AdapterReport> reports_;  // one per adapter
  std::optional<engine::Engine> engine_;
  std::optional<contract::ValidRequest> request_;
  std::future<std::string> hash_;
  std::string hash_known_;
  std::vector<Written> written_;
  std::vector<Picture> traced_;
  std::vector<std::string> warnings_;
};

}  // namespace

Result<engine::Composition> composition(const ModelOptions& options) {
  engine::Composition place;
  const auto model = resolve_model(options.model, model_folders());
  if (!model.ok()) return model.error();
  const auto precision = engine::precision_from_name(options.dtype);
  if (!precision.ok()) return precision.error();
  place.model = *model;
  place.variant = options.variant;
  place.tokenizer = resolve_tokenizer(options.tokenizer, model_folders());
  place.prediction = options.prediction;
  place.precision = *precision;
  place.device = options.device;
  place.vae_tiling = options.vae_tiling;
  place.vae_slicing = options.vae_slicing;
  const auto offload = engine::offload_from_name(options.offload);
  if (!offload.ok()) return offload.error();
  place.offload = *offload;
  return place;
}

int generate(const GenerateOptions& options, const Console& console) {
  const InterruptGuard interrupts;
  Run run(options, console);
  if (const auto drawn = run.draw(); !drawn.ok()) return console.fail(drawn.error());
  run.report();
  return 0;
}

}  // namespace limner::cli
