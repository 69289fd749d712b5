#include "runpod/job_drawer.h"

#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cmath>
#include <cstring>
#include <map>

#include "delivery/crypto.h"
#include "image/decode.h"
#include "image/encode.h"
#include "prompt/picture_parameters.h"
#include "runpod/job_error.h"

namespace limner::runpod {
namespace {

using nlohmann::json;
using worker::WorkerState;

// A small picture makes what is made on first use: threads, kernels, plans of products. On the CPU
// that is some 50 ms, while even a small picture of a larger model reads a second's worth of
// weights.
constexpr std::uint64_t kLargeModel = std::uint64_t{1} << 30;
constexpr std::uint64_t kMostImageBytes = std::uint64_t{64} << 20;  // of a file to draw from

std::uint64_t random_seed() {
  const auto bytes = delivery::random_bytes(4);
  std::uint32_t seed = 0;
  std::memcpy(&seed, bytes.data(), sizeof(seed));
  return seed;
}

double ms_since(std::chrono::steady_clock::time_point began) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began)
      .count();
}

// The least that uses every part of the model.
contract::JobRequest smallest_picture(const contract::ModelCard& model) {
  constexpr std::int64_t kSide = 64;
  const contract::Limits& limits = model.limits;
  const std::int64_t least = std::max(kSide, limits.smallest_side);
  const std::int64_t side = (least + limits.multiple - 1) / limits.multiple * limits.multiple;
  contract::JobRequest request;
  request.model = model.name;
  request.picture.prompt = "a picture";
  request.picture.width = request.picture.height = side;
  request.picture.steps = 1;
  request.picture.seed = 0;
  return request;
}

// Of a picture that nobody gets.
worker::DrawingHooks unseen(const std::stop_token& stop) {
  worker::DrawingHooks hooks;
  hooks.enter = [](WorkerState, const std::string&) {};
  hooks.stopped = [stop] { return stop.stop_requested(); };
  hooks.loaded = [](double) {};
  hooks.stepped = [](std::int64_t, std::int64_t, double, std::size_t) {};
  hooks.wants_preview = [] { return false; };
  hooks.drawn = [](const worker::DrawnPicture&) {};
  return hooks;
}

// As a part of a stored file's name.
std::string plain(std::string text) {
  std::ranges::replace_if(
      text, [](unsigned char c) { return std::isalnum(c) == 0 && c != '-' && c != '_'; }, '_');
  return text.substr(0, 64);
}

// "20261121T180000.000Z": the timestamp without what names of files had better not hold.
std::string compact(std::string timestamp) {
  std::erase_if(timestamp, [](char c) { return c == '-' || c == ':'; });
  return timestamp;
}

json list_of(const platform::Templates* templates) {
  json list = {{"templates", json::object()}, {"default_template", nullptr}};
  if (templates == nullptr) return list;
  for (const auto& [key, made] : templates->by_key) {
    list["templates"][key] = {{"name", made.name}, {"description", made.description}};
  }
  if (!templates->default_template.empty()) {
    list["default_template"] = templates->default_template;
  }
  return list;
}

// An error of a field of the input.
Failure in_field(std::string_view field, const Error& error) {
  return Failure(Error{error.code, fmt::format("{}: {}", field, error.message), error.retryable});
}

struct Picture {
  std::vector<std::uint8_t> png{};
  std::uint64_t seed = 0;
};

}  // namespace

// One job; throws Failure.
class JobDrawer::Run {
 public:
  Run(JobDrawer& drawer, const std::string& job, const DrawerHooks& hooks, std::stop_token stop)
      : drawer_(drawer),
        services_(drawer.services_),
        options_(drawer.options_),
        job_(job),
        hooks_(hooks),
        stop_(std::move(stop)) {}

  Drawn draw(const json& input) {
    enter(WorkerState::kProcessingRequest);
    const auto catalog = services_.catalog.catalog();
    const auto templates = current_templates();
    read(input, *catalog, templates.get());
    if (input_.lists_templates) return {.output = told(list_of(templates.get()))};
    check_files(*catalog);
    const worker::ModelPlace place = place_of(input_.request.model);
    check_room(place);
    services_.log.info("a job is drawn",
                       {{"request_id", job_}, {"model", std::string_view(place.name)}});
    const auto report = draw_with(catalog, place);
    enter(WorkerState::kPostProcessing);
    return {.output = told(answer(report)), .streamed = streamed_};
  }

 private:
  void enter(WorkerState state) { drawer_.state_ = stage_ = state; }

  // ---- before the drawing

  std::shared_ptr<const platform::Templates> current_templates() {
    if (services_.templates == nullptr) return nullptr;
    if (const auto done = services_.templates->refresh(); !done.ok()) {
      services_.log.warning("templates.json is not read; the templates before stay in force",
                            {{"error", std::string_view(done.error().message)}});
    }
    return services_.templates->current();
  }

  void read(const json& input, const contract::Catalog& catalog,
            const platform::Templates* templates) {
    const InputContext context{.catalog = catalog,
                               .network = services_.network,
                               .random_seed = random_seed(),
                               .most_pixels = options_.most_pixels,
                               .kind = options_.kind,
                               .templates = templates,
                               .report_unknown = options_.report_unknown};
    input_ = read_input(input, context).value_or_throw();
    streamed_ = input_.stream && hooks_.partial;
    for (const std::string& field : input_.unknown_fields) {
      services_.log.warning("a field is not known and changes nothing",
                            {{"request_id", job_}, {"field", std::string_view(field)}});
    }
    if (input_.kind == JobKind::kHeadshot && !options_.upload) {
      throw Failure(ErrorCode::kUnsupported,
                    "headshots go to storage, and this worker has none: set SUPABASE_URL, "
                    "SUPABASE_SERVICE_ROLE_KEY and SUPABASE_BUCKET, or the BUCKET_* variables");
    }
  }

  void check_files(const contract::Catalog& catalog) {
    const bool wants_volume = !input_.image.empty() || !input_.output_path.empty();
    if (wants_volume && services_.volume == nullptr) {
      throw Failure(ErrorCode::kUnsupported,
                    "image and output_path are paths on a network volume, and this worker has "
                    "none");
    }
    if (!input_.output_path.empty()) {
      const auto fits = services_.volume->check_target(path_of(0));
      if (!fits.ok()) throw in_field("output_path", fits.error());
    }
    if (!input_.mask.empty()) check_image("mask", input_.mask);
    if (input_.image.empty()) return;
    check_image("image", input_.image);
    const contract::ModelCard& card = *catalog.model(input_.request.model);
    LIMNER_CHECK(!card.takes_images, "no pipeline is handed the images of a job");
    throw Failure(ErrorCode::kUnsupported,
                  fmt::format("image: model '{}' of the family {} draws from words alone; it takes "
                              "no image and no mask",
                              card.name, card.family));
  }

  void check_image(std::string_view field, const std::string& path) {
    const auto bytes = services_.volume->read(path, kMostImageBytes);
    if (!bytes.ok()) throw in_field(field, bytes.error());
    const auto picture = image::decode(*bytes, {.pixels = options_.most_pixels});
    if (!picture.ok()) throw in_field(field, picture.error());
  }

  worker::ModelPlace place_of(const std::string& model) const {
    const auto place = services_.catalog.place(model);
    if (!place) {
      throw Failure(ErrorCode::kNotFound, fmt::format("there is no model '{}' any more", model));
    }
    return *place;
  }

  // Models that nobody uses go where that is what the job needs.
  void check_room(const worker::ModelPlace& place) {
    const auto loaded = services_.models.loaded();
    const contract::GenerationRequest& picture = input_.request.picture;
    const auto raw = static_cast<std::uint64_t>(*picture.width * *picture.height * 3);
    JobNeed need;
    if (std::ranges::count(loaded, place.name) == 0) need.weights = place.weight_bytes;
    // The bitmap, its PNG and its text.
    need.pictures = raw * 3 * static_cast<std::uint64_t>(picture.num_images);
    need.on_volume = !input_.output_path.empty();
    auto fits = services_.monitor.can_run(need);
    if (!fits.ok() && fits.error().code == ErrorCode::kOutOfMemory && !loaded.empty()) {
      services_.models.clear();
      need.weights = place.weight_bytes;
      fits = services_.monitor.can_run(need);
    }
    fits.value_or_throw();
  }

  // ---- the drawing

  worker::DrawingReport draw_with(const std::shared_ptr<const contract::Catalog>& catalog,
                                  const worker::ModelPlace& place) {
    worker::DrawingOrder order;
    order.catalog = catalog;
    order.place = place;
    order.request = input_.request;
    order.patience = options_.patience;
    order.adapters = services_.adapters.resolve(order.request.adapters, stop_).value_or_throw();
    prepare_ms_ = ms_since(began_);
    platform::CircuitBreaker& breaker = drawer_.breakers_.of(place.name);
    breaker.enter().value_or_throw();
    worker::Pulse unwatched;
    worker::Pulse& pulse = hooks_.pulse != nullptr ? *hooks_.pulse : unwatched;
    auto report = worker::draw(order, services_.models, pulse, drawing_hooks(), stop_);
    if (!report.ok()) throw Failure(judged(report.error(), place.name, breaker));
    breaker.succeeded();
    return std::move(*report);
  }

  worker::DrawingHooks drawing_hooks() {
    worker::DrawingHooks hooks;
    hooks.enter = [this](WorkerState state, const std::string&) { enter(state); };
    hooks.stopped = [this] { return stop_.stop_requested(); };
    hooks.loaded = [this](double seconds) {
      load_ms_ = seconds * 1e3;
      services_.log.info("a model was loaded", {{"request_id", job_}, {"seconds", seconds}});
    };
    hooks.stepped = [this](std::int64_t step, std::int64_t steps, double, std::size_t) {
      if (!input_.progress || !hooks_.progress) return;
      hooks_.progress({{"step", step},
                       {"steps", steps},
                       {"value", static_cast<double>(step) / static_cast<double>(steps)}});
    };
    hooks.wants_preview = [] { return false; };
    hooks.drawn = [this](worker::DrawnPicture picture) { keep(std::move(picture)); };
    hooks.at = hooks_.at;
    return hooks;
  }

  // What the failure says about the model: one that broke is dropped, so that it is loaded anew,
  // and left alone for a while when that goes on.
  Error judged(Error error, const std::string& model, platform::CircuitBreaker& breaker) {
    const bool out_of_memory = error.code == ErrorCode::kOutOfMemory;
    const bool loading = stage_ == WorkerState::kLoadingModel && !out_of_memory &&
                         error.code != ErrorCode::kCancelled;
    if (loading || error.code == ErrorCode::kInternal) {
      breaker.failed();
      services_.models.discard(model);
      services_.log.error("a model broke and is loaded anew for the next job",
                          {{"request_id", job_},
                           {"model", std::string_view(model)},
                           {"error", std::string_view(error.message)}});
    }
    if (out_of_memory) services_.models.clear();
    if (!loading || error.code == ErrorCode::kInternal) return error;
    return {ErrorCode::kInvalidModel,
            fmt::format("model '{}' could not be loaded: {}", model, error.message),
            error.retryable};
  }

  // The infotext stands in the PNG, as in every picture of limner.
  void keep(worker::DrawnPicture drawn) {
    const auto began = std::chrono::steady_clock::now();
    const auto parameters = prompt::picture_parameters(*drawn.request, drawn.drawn_with);
    image::EncodeOptions options;
    options.text = {{"parameters", prompt::write_infotext(parameters).value_or_throw()}};
    Picture picture{image::encode(drawn.bitmap, options).value_or_throw(), drawn.drawn_with.seed};
    if (streamed_) {
      hooks_.partial({{"index", drawn.index},
                      {"seed", picture.seed},
                      {"image", delivery::base64(picture.png)}});
    }
    post_ms_ += ms_since(began);
    pictures_[drawn.index] = std::move(picture);
  }

  // ---- the answer

  json told(json output) const {
    if (!input_.unknown_fields.empty()) output["unknown_fields"] = input_.unknown_fields;
    return output;
  }

  json answer(const worker::DrawingReport& report) {
    json output = {{"model", {{"name", report.model}, {"hash", report.model_hash}}}};
    if (!input_.request.template_name.empty()) output["template"] = input_.request.template_name;
    if (!report.warnings.empty()) output["warnings"] = report.warnings;
    if (!input_.output_path.empty()) output["files"] = saved();
    input_.kind == JobKind::kHeadshot ? add_headshot(output) : add_pictures(output, report);
    return output;
  }

  std::string path_of(std::int64_t index) const {
    return output_path_of(input_, index,
                          static_cast<std::uint64_t>(*input_.request.picture.seed + index));
  }

  json saved() const {
    json files = json::array();
    for (const auto& [index, picture] : pictures_) {
      const std::string path = path_of(index);
      const auto done = services_.volume->write(path, picture.png);
      if (!done.ok()) throw in_field("output_path", done.error());
      files.push_back(path);
    }
    return files;
  }

  void add_headshot(json& output) {
    const auto& [index, picture] = *pictures_.begin();
    const std::string key = fmt::format("{}/{}-{}.png", input_.user_id,
                                        compact(timestamp(services_.clock.wall())), plain(job_));
    output["image_url"] = uploaded({{.key = key, .bytes = picture.png}}).front();
    output["seed"] = picture.seed;
    output["status"] = "success";
    output["processing_time"] = std::round(ms_since(began_)) / 1e3;
  }

  void add_pictures(json& output, const worker::DrawingReport& report) {
    output["seeds"] = json::array();
    for (const auto& [index, picture] : pictures_) output["seeds"].push_back(picture.seed);
    if (input_.include_images) add_images(output);
    output["timings"] = {{"prepare_ms", prepare_ms_},     {"load_ms", load_ms_},
                         {"encode_ms", report.encode_ms}, {"denoise_ms", report.denoise_ms},
                         {"decode_ms", report.decode_ms}, {"post_ms", post_ms_},
                         {"total_ms", ms_since(began_)}};
  }

  void add_images(json& output) {
    std::size_t bytes = 0;
    for (const auto& [index, picture] : pictures_) bytes += (picture.png.size() + 2) / 3 * 4;
    output["images"] = json::array();
    if (bytes <= options_.most_bytes) {
      output["images_are"] = "base64";
      for (const auto& [index, picture] : pictures_) {
        output["images"].push_back(delivery::base64(picture.png));
      }
      return;
    }
    if (!options_.upload) {
      throw Failure(
          ErrorCode::kUnsupported,
          fmt::format("the pictures are {} bytes as text, and an answer holds {} at most: ask for "
                      "fewer or smaller ones, or set BUCKET_ENDPOINT_URL, BUCKET_ACCESS_KEY_ID "
                      "and BUCKET_SECRET_ACCESS_KEY so that they can be uploaded",
                      bytes, options_.most_bytes));
    }
    std::vector<ResultFile> files;
    for (auto& [index, picture] : pictures_) {
      files.push_back(
          {.key = fmt::format("{}/{}.png", plain(job_), index), .bytes = std::move(picture.png)});
    }
    output["images_are"] = "urls";
    output["images"] = uploaded(std::move(files));
  }

  std::vector<std::string> uploaded(std::vector<ResultFile> files) const {
    if (hooks_.uploading) hooks_.uploading();
    return options_.upload(std::move(files), stop_).value_or_throw();
  }

  JobDrawer& drawer_;
  const DrawerServices& services_;
  const DrawerOptions& options_;
  const std::string& job_;
  const DrawerHooks& hooks_;
  const std::stop_token stop_;
  const std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
  JobInput input_{};
  WorkerState stage_ = WorkerState::kProcessingRequest;
  bool streamed_ = false;
  double prepare_ms_ = 0, load_ms_ = 0, post_ms_ = 0;
  std::map<std::int64_t, Picture> pictures_;
};

JobDrawer::JobDrawer(DrawerServices services, DrawerOptions options)
    : services_(std::move(services)),
      options_(std::move(options)),
      breakers_(options_.breaker, services_.clock) {}

Result<Drawn> JobDrawer::draw(const std::string& job, const json& input, const DrawerHooks& hooks,
                              std::stop_token stop) {
  Result<Drawn> drawn = Error{ErrorCode::kInternal, "[runpod] the job was not drawn"};
  try {
    drawn = Run(*this, job, hooks, std::move(stop)).draw(input);
  } catch (const Failure& failure) {
    drawn = failure.error();
  } catch (const std::bad_alloc&) {
    drawn = Error{ErrorCode::kOutOfMemory, "[runpod] memory ran out"};
  } catch (const std::exception& error) {
    drawn = Error{ErrorCode::kInternal, fmt::format("[runpod] {}", error.what())};
  }
  clean_up(job, drawn);
  return drawn;
}

void JobDrawer::clean_up(const std::string& job, const Result<Drawn>& drawn) {
  drawn.ok() ? ++completed_ : ++failed_;
  // A failure leaves standing what the worker failed in, for who asks for state().
  if (drawn.ok()) state_ = WorkerState::kIdle;
  const ResourceReport now = services_.monitor.look();
  services_.log.info(
      "resources after a job",
      {{"request_id", job},
       {"memory_available_mb", static_cast<std::int64_t>(now.memory.available / 1'000'000)},
       {"process_mb", static_cast<std::int64_t>(now.resident / 1'000'000)},
       {"disk_available_mb", static_cast<std::int64_t>(now.data_disk.available / 1'000'000)}});
  if (!services_.monitor.under_pressure()) return;
  services_.log.warning("memory is short; models that nobody uses are let go",
                        {{"usage_percent", now.memory.usage_percent()}});
  services_.models.clear();
  malloc_trim(0);
}

Result<std::string> JobDrawer::warm_up(std::stop_token stop) {
  const auto catalog = services_.catalog.catalog();
  const auto place = services_.catalog.place(catalog->default_model);
  const contract::ModelCard* card = catalog->model(catalog->default_model);
  if (!place || card == nullptr) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("there is no model '{}'; limner looks for models in $LIMNER_MODELS, "
                             "the data folder and the volume's models/",
                             catalog->default_model)};
  }
  if (!place->problem.empty()) {
    return Error{ErrorCode::kInvalidModel,
                 fmt::format("model '{}' cannot be used: {}", place->name, place->problem)};
  }
  if (const auto lease = services_.models.acquire(*place, *catalog, {}, stop); !lease.ok()) {
    return lease.error();
  }
  if (services_.models.device() != "cpu" || card->bytes <= kLargeModel) {
    worker::DrawingOrder order;
    order.catalog = catalog;
    order.place = *place;
    order.request = smallest_picture(*card);
    order.patience = options_.patience;
    worker::Pulse unwatched;
    const auto drawn = worker::draw(order, services_.models, unwatched, unseen(stop), stop);
    if (!drawn.ok()) return drawn.error();
  }
  state_ = WorkerState::kIdle;
  return place->name;
}

json JobDrawer::state() const {
  json state = to_json(services_.monitor.look());
  const auto catalog = services_.catalog.catalog();
  const auto loaded = services_.models.loaded();
  const worker::ModelCacheStats stats = services_.models.stats();
  const std::string device = services_.models.device();
  state["model"] = {{"name", catalog->default_model},
                    {"is_loaded", std::ranges::count(loaded, catalog->default_model) > 0},
                    {"memory_mb", static_cast<double>(stats.weight_bytes / 1'000'000)}};
  state["device"] = device.empty() ? json() : json(device);
  state["worker"] = {{"state", worker::name(state_.load())},
                     {"jobs_completed", completed_.load()},
                     {"jobs_failed", failed_.load()}};
  return state;
}

}  // namespace limner::runpod
