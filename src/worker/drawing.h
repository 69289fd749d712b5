// Drawing: one job on the device, from a placed model to bitmaps.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "base/error.h"
#include "contract/catalog.h"
#include "contract/job_request.h"
#include "engine/engine.h"
#include "prompt/picture_parameters.h"
#include "worker/model_cache.h"
#include "worker/worker_state.h"

namespace limner::worker {

// The sign of life of a thread that calls the engine: each call says how long it may take. The
// thread that looks has the clock. Any thread may call.
class Pulse {
 public:
  struct Beat {
    std::uint64_t number = 0;   // another one for every call
    platform::Millis limit{0};  // 0: no call is under way
  };
  void expect(platform::Millis at_most);
  void rest() { expect(platform::Millis{0}); }
  Beat read() const;

 private:
  std::atomic<std::uint64_t> number_{0};
  std::atomic<std::int64_t> limit_{0};
};

// How long the engine may stay silent before its thread is given up.
struct Patience {
  platform::Millis load{std::chrono::minutes(30)};
  platform::Millis call{std::chrono::minutes(2)};  // any other call, at least
  double steps = 20.0;  // and a step: so many times the longest one of the job so far
};

// What a drawing needs, as values: it outlives the worker when its thread hangs.
struct DrawingOrder {
  contract::JobRequest request{};
  ModelPlace place{};
  std::shared_ptr<const contract::Catalog> catalog{};
  std::vector<engine::PictureAdapter> adapters{};  // one for each of the request's
  std::int64_t most_batch = 8;                     // pictures in one model call
  Patience patience{};
};

struct DrawnPicture {
  image::Bitmap bitmap{};
  std::int64_t index = 0;
  // For its infotext; hashes of the adapters are still to be filled in.
  std::shared_ptr<const contract::ValidRequest> request{};
  prompt::DrawnWith drawn_with{};
  std::vector<std::filesystem::path> adapter_files{};
};

struct DrawingReport {
  std::string model{};
  std::string model_hash{};
  double encode_ms = 0, denoise_ms = 0, decode_ms = 0;
  std::int64_t images = 0, steps = 0, pixels = 0;
  std::int64_t calls = 0;  // of the model, as DrawingHooks::stepped counts its steps
  std::vector<std::string> warnings{};
};

// Told on the drawing's thread, between calls of the engine.
struct DrawingHooks {
  std::function<void(WorkerState state, const std::string& reason)> enter{};
  std::function<bool()> stopped{};  // asked before every call of the engine
  std::function<void(double seconds)> loaded{};
  // After every step: of all steps of the job, and how long this one took.
  std::function<void(std::int64_t step, std::int64_t steps, double seconds, std::size_t pictures)>
      stepped{};
  std::function<bool()> wants_preview{};
  std::function<void(image::Bitmap bitmap)> preview{};
  std::function<void(DrawnPicture picture)> drawn{};
  // At the end of a stage of pictures that were drawn together: "encode", "denoise", "decode".
  std::function<void(std::string_view stage, double milliseconds)> timed{};
  std::function<void(std::string_view point)> at{};  // named points; a test holds the thread there
};

// Validates the request against the model, loads its adapters, and draws its pictures, as many at a
// time as the memory takes. Errors: as contract::validate and the engine; kOutOfMemory naming what
// would fit, after trying with fewer at a time; kCancelled when stopped.
Result<DrawingReport> draw(const DrawingOrder& order, ModelCache models, Pulse& pulse,
                           const DrawingHooks& hooks, std::stop_token stop);

}  // namespace limner::worker
