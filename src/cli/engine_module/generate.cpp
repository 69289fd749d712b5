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
#include "cli/prompt_file.h"
#include "engine/lora/adapter_hash.h"
#include "image/encode.h"
#include "prompt/negative_section.h"
#include "prompt/parsed_prompt.h"
#include "prompt/picture_parameters.h"

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
  std::string prompt;
};

// The file of picture `index`: {seed} and {index} filled in. Where that would not tell all pictures
// apart, "-index" is added: several prompts share their seeds.
fs::path output_path(const GenerateOptions& options, std::uint64_t seed, std::int64_t index) {
  std::string path = options.output;
  const bool several = options.request.num_images > 1 || !options.prompts_file.empty();
  const bool told_by_seed =
      options.prompts_file.empty() && path.find("{seed}") != std::string::npos;
  if (several && !told_by_seed && path.find("{index}") == std::string::npos) {
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

// What is to be drawn: the one prompt, or every line of a file, with the template's words before
// it.
Result<std::vector<PromptLine>> prompts_of(const GenerateOptions& options) {
  std::vector<PromptLine> prompts;
  if (options.prompts_file.empty()) {
    const std::string& text = options.request.prompt;
    prompts.push_back({text == "-" ? read_standard_input() : text, 0});
  } else {
    auto read = read_prompt_file(options.prompts_file);
    if (!read.ok()) return read.error();
    prompts = std::move(*read);
  }
  for (PromptLine& prompt : prompts) {
    if (options.prompt_prefix.empty()) continue;
    prompt.text = options.prompt_prefix + (prompt.text.empty() ? "" : ", ") + prompt.text;
  }
  return prompts;
}

// One request per prompt, all with the same seeds. Errors name the line of the file.
Result<std::vector<contract::ValidRequest>> validated(contract::GenerationRequest asked,
                                                      const std::vector<PromptLine>& prompts,
                                                      const contract::Limits& limits) {
  std::vector<contract::ValidRequest> requests;
  for (const PromptLine& prompt : prompts) {
    asked.prompt = prompt.text;
    const auto validation = contract::validate(asked, limits, 0);
    Error error = validation.ok() ? Error{} : validation.error();
    if (validation.ok()) {
      const auto good = check_prompts(*validation.request);
      if (good.ok()) {
        requests.push_back(*validation.request);
        continue;
      }
      error = good.error();
    }
    if (prompt.line > 0) error.message = fmt::format("line {}: {}", prompt.line, error.message);
    return error;
  }
  return requests;
}

class Run {
 public:
  Run(const GenerateOptions& options, const Console& console)
      : options_(options), console_(console) {}

  Result<void> draw() {
    const auto format = output_format(options_);
    if (!format.ok()) return format.error();
    format_ = *format;
    contract::GenerationRequest asked = options_.request;
    if (!asked.seed) asked.seed = static_cast<std::int64_t>(std::random_device{}());
    const auto prompts = prompts_of(options_);
    if (!prompts.ok()) return prompts.error();
    const auto early = validated(asked, *prompts, limits_of_any_model());
    if (!early.ok()) return early.error();
    if (const auto good = check_writable(output_path(options_, early->front().seed(), 0));
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

    auto requests = validated(asked, *prompts, engine_->limits());
    if (!requests.ok()) return requests.error();
    requests_ = std::move(*requests);
    for (std::int64_t first = 0; first < total(); first += options_.batch_size) {
      const auto done = draw_batch(first, std::min(total(), first + options_.batch_size));
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
        {"schedule", requests_.front().schedule()},
        {"width", requests_.front().width()},
        {"height", requests_.front().height()},
        {"steps", requests_.front().steps()},
        {"guidance_scale", requests_.front().guidance_scale()},
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
      if (!options_.prompts_file.empty()) body["prompts"].push_back(picture.prompt);
    }
    console_.result(body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  }

 private:
  // All pictures, by number: those of the first prompt, of the second, ...
  std::int64_t total() const { return std::ssize(requests_) * requests_.front().num_images(); }
  const contract::ValidRequest& request_of(std::int64_t picture) const {
    return requests_[static_cast<std::size_t>(picture / requests_.front().num_images())];
  }

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
      const contract::ValidRequest& request = request_of(index);
      auto picture =
          engine_->begin(request, index % request.num_images(),
                         {.adapters = adapters_, .keep_trace = !options_.dump_tensors.empty()});
      if (!picture.ok()) return picture.error();
      pictures.push_back(std::move(*picture));
    }
    for (Picture& picture : pictures) batch.push_back(&picture);
    for (const Picture& picture : pictures) warn(picture.warnings());
    timings_.encode_ms += watch_.lap_ms();

    if (const auto done = denoise(batch, first, last); !done.ok()) return done;
    timings_.denoise_ms += watch_.lap_ms();

    for (std::size_t i = 0; i < pictures.size(); ++i) {
      auto bitmap = engine_->finish(pictures[i]);
      if (!bitmap.ok()) return bitmap.error();
      timings_.decode_ms += watch_.lap_ms();
      const auto saved = save(*bitmap, pictures[i], first + static_cast<std::int64_t>(i));
      if (!saved.ok()) return saved;
      timings_.save_ms += watch_.lap_ms();
      if (!options_.dump_tensors.empty()) traced_.push_back(std::move(pictures[i]));
    }
    return {};
  }

  Result<void> denoise(const std::vector<Picture*>& batch, std::int64_t first, std::int64_t last) {
    const std::string which = total() == 1 ? "drawing"
                              : last - first == 1
                                  ? fmt::format("picture {}/{}", last, total())
                                  : fmt::format("pictures {}-{}/{}", first + 1, last, total());
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

  Result<void> save(const image::Bitmap& bitmap, const Picture& picture, std::int64_t index) {
    const contract::ValidRequest& request = request_of(index);
    const auto parameters = infotext(request, picture);
    if (!parameters.ok()) return parameters.error();
    const auto bytes = image::encode(
        bitmap,
        {.format = format_, .quality = options_.quality, .text = {{"parameters", *parameters}}});
    if (!bytes.ok()) return bytes.error();
    const fs::path file = output_path(options_, picture.seed(), index);
    if (const auto wrote = image::write_file(file, *bytes); !wrote.ok()) return wrote;
    written_.push_back({file.string(), picture.seed(), request.prompt()});
    return {};
  }

  Result<std::string> infotext(const contract::ValidRequest& request, const Picture& picture) {
    return prompt::write_infotext(prompt::picture_parameters(
        request, {picture.seed(), sampler(), engine_->info().name, hash_text(), options_.loras.use,
                  adapter_hashes_.notes(picture.adapters())}));
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
    const std::string& asked = requests_.front().sampler();
    return asked.empty() ? engine_->info().sampler : asked;
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
  std::vector<contract::ValidRequest> requests_;  // one per prompt; alike but for it
  engine::lora::AdapterHashes adapter_hashes_;
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
