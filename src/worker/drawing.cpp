#include "worker/drawing.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

namespace limner::worker {
namespace {

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

// "NAME:0.8", or the URL without its query, which may hold a key.
std::string shown(const contract::AdapterChoice& choice) {
  const std::string& name = choice.name.empty() ? choice.url : choice.name;
  return fmt::format("{}:{:g}", name.substr(0, name.find('?')), choice.weight);
}

class Drawing {
 public:
  Drawing(const DrawingOrder& order, ModelCache models, Pulse& pulse, const DrawingHooks& hooks,
          std::stop_token stop)
      : order_(order),
        models_(std::move(models)),
        pulse_(pulse),
        hooks_(hooks),
        stop_(std::move(stop)),
        observer_{[this](const std::string& model) { loading(model); },
                  [this](const std::string& model) {
                    pulse_.rest();
                    hooks_.enter(WorkerState::kUnloadingModel, fmt::format("model {}", model));
                  }} {}

  // Throws Failure.
  DrawingReport run() {
    place_model();
    auto validation =
        contract::validate(order_.request.picture, lease_->engine().limits(), /*random_seed=*/0);
    if (!validation.ok()) throw Failure(validation.error());
    request_ = std::make_shared<const contract::ValidRequest>(std::move(*validation.request));
    load_adapters();
    hooks_.enter(WorkerState::kGenerating,
                 fmt::format("{} picture(s) of {}x{}", request_->num_images(), request_->width(),
                             request_->height()));
    draw_all();
    hooks_.enter(WorkerState::kPostProcessing, "all pictures drawn");
    report_.model = order_.place.name;
    report_.model_hash = order_.place.hash;
    report_.images = request_->num_images();
    report_.steps = request_->steps() * report_.images;
    report_.calls = calls_per_picture_ * report_.images;
    report_.pixels = request_->width() * request_->height() * report_.images;
    return std::move(report_);
  }

 private:
  void go_on() const {
    if (hooks_.stopped()) throw Failure(ErrorCode::kCancelled, "the job was stopped");
  }

  // One call of the engine, as a sign of life.
  template <typename Call>
  auto alive(platform::Millis at_most, const char* point, Call call) {
    go_on();
    pulse_.expect(at_most);
    if (hooks_.at) hooks_.at(point);
    auto answer = call();
    pulse_.rest();
    return answer;
  }

  void loading(const std::string& model) {
    hooks_.enter(WorkerState::kLoadingModel, fmt::format("model {}", model));
    pulse_.expect(order_.patience.load);
    if (hooks_.at) hooks_.at("load");
  }

  void place_model() {
    go_on();
    auto lease = models_.acquire(order_.place, *order_.catalog, observer_, stop_);
    pulse_.rest();
    lease_.emplace(std::move(lease).value_or_throw());
    if (lease_->load_seconds()) hooks_.loaded(*lease_->load_seconds());
    hooks_.enter(WorkerState::kProcessingRequest,
                 fmt::format("model {} is there", order_.place.name));
  }

  void load_adapters() {
    if (order_.adapters.empty()) return;
    hooks_.enter(WorkerState::kLoadingAdapters,
                 fmt::format("{} adapter(s)", order_.adapters.size()));
    for (std::size_t index = 0; index < order_.adapters.size(); ++index) {
      const engine::PictureAdapter& adapter = order_.adapters[index];
      const auto loaded = alive(order_.patience.call, "adapter", [&] {
        return lease_->engine().load_adapter(adapter.file, adapter.allow_partial);
      });
      if (loaded.ok()) continue;
      Error error = loaded.error();
      error.message = fmt::format("loras[{}]: {}", index, error.message);
      throw Failure(std::move(error));
    }
  }

  void draw_all() {
    const std::int64_t images = request_->num_images();
    std::int64_t most = std::min(images, order_.most_batch);
    for (std::int64_t next = 0; next < images;) {
      std::int64_t count = std::min(most, images - next);
      try {
        count = draw_batch(next, count);
        next += count;
      } catch (const Failure& failure) {
        if (failure.error().code != ErrorCode::kOutOfMemory || failure.error().retryable ||
            count == 1) {
          throw;
        }
        most = count / 2;
        steps_done_ = next * calls_per_picture_;
      }
    }
  }

  engine::Picture begin(std::int64_t index) {
    engine::PictureOptions options;
    options.adapters = order_.adapters;
    options.memory_room = lease_->room();
    return alive(order_.patience.call, "begin",
                 [&] { return lease_->engine().begin(*request_, index, options); })
        .value_or_throw();
  }

  // How many pictures of so many rows each fit, and sets their memory aside.
  std::int64_t reserve(std::int64_t rows, std::int64_t count) {
    const std::uint64_t room = lease_->room();
    const auto need = [&](std::int64_t pictures) {
      return lease_->engine().memory(request_->width(), request_->height(), rows * pictures);
    };
    while (count > 1 && need(count).denoise > room) --count;
    const engine::MemoryNeed one = need(count);
    const std::uint64_t decode = one.decode <= room ? one.decode : one.tiled_decode;
    lease_->reserve(std::max(one.denoise, decode), observer_, stop_).value_or_throw();
    hooks_.enter(WorkerState::kGenerating, fmt::format("{} picture(s) at a time", count));
    return count;
  }

  // Draws up to `count` pictures together; how many there were.
  std::int64_t draw_batch(std::int64_t first, std::int64_t count) {
    watch_.lap_ms();
    std::vector<engine::Picture> pictures;
    pictures.push_back(begin(first));
    count = reserve(pictures.front().rows(), count);
    while (std::cmp_less(pictures.size(), count)) {
      pictures.push_back(begin(first + static_cast<std::int64_t>(pictures.size())));
    }
    for (const std::string& warning : pictures.front().warnings()) warn(warning);
    report_.encode_ms += lap("encode");
    denoise(pictures);
    report_.denoise_ms += lap("denoise");
    for (std::size_t i = 0; i < pictures.size(); ++i) {
      decode(pictures[i], first + static_cast<std::int64_t>(i));
    }
    report_.decode_ms += lap("decode");
    return count;
  }

  double lap(std::string_view stage) {
    const double milliseconds = watch_.lap_ms();
    if (hooks_.timed) hooks_.timed(stage, milliseconds);
    return milliseconds;
  }

  void denoise(std::vector<engine::Picture>& pictures) {
    std::vector<engine::Picture*> batch;
    for (engine::Picture& picture : pictures) batch.push_back(&picture);
    const auto count = static_cast<std::int64_t>(batch.size());
    // A sampler may call the model more than once per step asked for.
    calls_per_picture_ = pictures.front().steps();
    const std::int64_t all = calls_per_picture_ * request_->num_images();
    while (!batch.front()->done()) {
      const auto began = std::chrono::steady_clock::now();
      alive(step_limit(), "step", [&] { return lease_->engine().step(batch); }).value_or_throw();
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
      longest_step_ = std::max(longest_step_, took.count());
      steps_done_ += count;
      hooks_.stepped(steps_done_, all, took.count(), batch.size());
      if (!batch.front()->done() && hooks_.wants_preview()) {
        hooks_.preview(alive(order_.patience.call, "preview", [&] {
                         return lease_->engine().preview(*batch.front());
                       }).value_or_throw());
      }
    }
  }

  platform::Millis step_limit() const {
    const platform::Millis expected{
        static_cast<std::int64_t>(longest_step_ * 1e3 * order_.patience.steps)};
    return std::max(order_.patience.call, expected);
  }

  void decode(engine::Picture& picture, std::int64_t index) {
    DrawnPicture drawn;
    drawn.bitmap = alive(order_.patience.call, "decode", [&] {
                     return lease_->engine().finish(picture);
                   }).value_or_throw();
    drawn.index = index;
    drawn.request = request_;
    drawn.adapter_files = picture.adapters();
    prompt::DrawnWith& with = drawn.drawn_with;
    const engine::ModelInfo& model = lease_->engine().info();
    with.seed = picture.seed();
    with.sampler = request_->sampler().empty() ? model.sampler : request_->sampler();
    with.model = model.name;
    with.model_hash = order_.place.hash;
    for (const contract::AdapterChoice& choice : order_.request.adapters) {
      with.loras.push_back(shown(choice));
    }
    hooks_.drawn(std::move(drawn));
  }

  void warn(const std::string& warning) {
    if (std::ranges::count(report_.warnings, warning) == 0) report_.warnings.push_back(warning);
  }

  const DrawingOrder& order_;
  ModelCache models_;
  Pulse& pulse_;
  const DrawingHooks& hooks_;
  const std::stop_token stop_;
  const CacheObserver observer_;
  std::optional<EngineLease> lease_;
  std::shared_ptr<const contract::ValidRequest> request_;
  Stopwatch watch_;
  double longest_step_ = 0.0;    // seconds
  std::int64_t steps_done_ = 0;  // model calls of all pictures together
  std::int64_t calls_per_picture_ = 0;
  DrawingReport report_;
};

}  // namespace

void Pulse::expect(platform::Millis at_most) {
  number_.fetch_add(1);
  limit_.store(at_most.count());
}

Pulse::Beat Pulse::read() const {
  return {number_.load(), platform::Millis{limit_.load()}};
}

Result<DrawingReport> draw(const DrawingOrder& order, ModelCache models, Pulse& pulse,
                           const DrawingHooks& hooks, std::stop_token stop) {
  try {
    return Drawing(order, std::move(models), pulse, hooks, std::move(stop)).run();
  } catch (const Failure& failure) {
    pulse.rest();
    return failure.error();
  } catch (const std::bad_alloc&) {
    pulse.rest();
    return Error{ErrorCode::kOutOfMemory, "[worker] memory ran out"};
  } catch (const std::exception& error) {
    pulse.rest();
    return Error{ErrorCode::kInternal, fmt::format("[worker] {}", error.what())};
  }
}

}  // namespace limner::worker
