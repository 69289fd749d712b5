#include "runpod/job_drawer.h"

#include <fmt/format.h>

#include <chrono>
#include <cstring>

#include "delivery/crypto.h"
#include "image/encode.h"
#include "prompt/picture_parameters.h"
#include "runpod/job_input.h"

namespace limner::runpod {
namespace {

using nlohmann::json;

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

struct Picture {
  std::vector<std::uint8_t> png{};
  std::uint64_t seed = 0;
};

}  // namespace

// One job; throws Failure.
class JobDrawer::Run {
 public:
  Run(const JobDrawer& drawer, const std::string& job, const DrawerHooks& hooks,
      std::stop_token stop)
      : services_(drawer.services_),
        options_(drawer.options_),
        job_(job),
        hooks_(hooks),
        stop_(std::move(stop)) {}

  Drawn draw(const json& input) {
    const auto began = std::chrono::steady_clock::now();
    worker::DrawingOrder order;
    order.catalog = services_.catalog.catalog();
    const InputContext context{*order.catalog, services_.network, random_seed(),
                               options_.most_pixels};
    JobInput read = read_input(input, context).value_or_throw();
    streamed_ = read.stream && hooks_.partial;
    tells_progress_ = read.progress;
    order.request = std::move(read.request);
    const auto place = services_.catalog.place(order.request.model);
    if (!place) {
      throw Failure(ErrorCode::kNotFound,
                    fmt::format("there is no model '{}' any more", order.request.model));
    }
    order.place = *place;
    order.adapters = services_.adapters.resolve(order.request.adapters, stop_).value_or_throw();
    const double prepared = ms_since(began);
    worker::Pulse pulse;
    const auto report = worker::draw(order, services_.models, pulse, drawing_hooks(), stop_);
    if (!report.ok()) {
      if (report.error().code == ErrorCode::kInternal) services_.models.discard(order.place.name);
      throw Failure(report.error());
    }
    return {.output = answer(*report, prepared, ms_since(began)), .streamed = streamed_};
  }

 private:
  worker::DrawingHooks drawing_hooks() {
    worker::DrawingHooks hooks;
    hooks.enter = [](worker::WorkerState, const std::string&) {};
    hooks.stopped = [this] { return stop_.stop_requested(); };
    hooks.loaded = [this](double seconds) {
      load_ms_ = seconds * 1e3;
      services_.log.info("a model was loaded", {{"request_id", job_}, {"seconds", seconds}});
    };
    hooks.stepped = [this](std::int64_t step, std::int64_t steps, double, std::size_t) {
      if (!tells_progress_ || !hooks_.progress) return;
      hooks_.progress({{"step", step},
                       {"steps", steps},
                       {"value", static_cast<double>(step) / static_cast<double>(steps)}});
    };
    hooks.wants_preview = [] { return false; };
    hooks.drawn = [this](worker::DrawnPicture picture) { keep(std::move(picture)); };
    return hooks;
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

  json answer(const worker::DrawingReport& report, double prepared, double total) {
    json output = {
        {"images", json::array()},
        {"seeds", json::array()},
        {"timings",
         {{"prepare_ms", prepared},
          {"load_ms", load_ms_},
          {"encode_ms", report.encode_ms},
          {"denoise_ms", report.denoise_ms},
          {"decode_ms", report.decode_ms},
          {"post_ms", post_ms_},
          {"total_ms", total}}},
        {"model", {{"name", report.model}, {"hash", report.model_hash}}},
    };
    if (!report.warnings.empty()) output["warnings"] = report.warnings;
    std::size_t bytes = 0;
    for (const auto& [index, picture] : pictures_) bytes += (picture.png.size() + 2) / 3 * 4;
    const bool inside = bytes <= options_.most_bytes;
    for (const auto& [index, picture] : pictures_) {
      output["seeds"].push_back(picture.seed);
      output["images"].push_back(inside ? delivery::base64(picture.png)
                                        : uploaded(index, picture, bytes));
    }
    output["images_are"] = inside ? "base64" : "urls";
    return output;
  }

  std::string uploaded(std::int64_t index, const Picture& picture, std::size_t bytes) {
    if (!options_.upload) {
      throw Failure(
          ErrorCode::kUnsupported,
          fmt::format("the pictures are {} bytes as text, and an answer holds {} at most: ask for "
                      "fewer or smaller ones, or set BUCKET_ENDPOINT_URL, BUCKET_ACCESS_KEY_ID "
                      "and BUCKET_SECRET_ACCESS_KEY so that they can be uploaded",
                      bytes, options_.most_bytes));
    }
    return options_.upload(job_, index, picture.png).value_or_throw();
  }

  const DrawerServices& services_;
  const DrawerOptions& options_;
  const std::string& job_;
  const DrawerHooks& hooks_;
  const std::stop_token stop_;
  bool streamed_ = false, tells_progress_ = false;
  double load_ms_ = 0, post_ms_ = 0;
  std::map<std::int64_t, Picture> pictures_;
};

Result<Drawn> JobDrawer::draw(const std::string& job, const json& input, const DrawerHooks& hooks,
                              std::stop_token stop) {
  try {
    return Run(*this, job, hooks, std::move(stop)).draw(input);
  } catch (const Failure& failure) {
    return failure.error();
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::kOutOfMemory, "[runpod] memory ran out"};
  } catch (const std::exception& error) {
    return Error{ErrorCode::kInternal, fmt::format("[runpod] {}", error.what())};
  }
}

Result<std::string> JobDrawer::warm_up(std::stop_token stop) {
  const auto catalog = services_.catalog.catalog();
  const auto place = services_.catalog.place(catalog->default_model);
  if (!place) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("there is no model '{}'; limner looks for models in $LIMNER_MODELS, "
                             "the data folder and /runpod-volume/models",
                             catalog->default_model)};
  }
  if (!place->problem.empty()) {
    return Error{ErrorCode::kInvalidModel,
                 fmt::format("model '{}' cannot be used: {}", place->name, place->problem)};
  }
  const auto lease = services_.models.acquire(*place, *catalog, {}, std::move(stop));
  if (!lease.ok()) return lease.error();
  return place->name;
}

}  // namespace limner::runpod
