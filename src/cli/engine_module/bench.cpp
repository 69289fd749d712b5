// `limner bench`: what loading, encoding, a step and decoding cost here.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/system_memory.h"
#include "cli/engine_module/commands.h"

namespace limner::cli {
namespace {

double since_ms(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin)
      .count();
}

struct Spread {
  double min = 0, median = 0, mean = 0;
};

Spread spread(std::vector<double> times) {
  std::sort(times.begin(), times.end());
  return {times.front(), times[times.size() / 2],
          std::accumulate(times.begin(), times.end(), 0.0) / static_cast<double>(times.size())};
}

struct Figures {
  double load_ms = 0, encode_ms = 0;
  Spread step, decode;
  std::uint64_t loaded_bytes = 0, peak_bytes = 0;
};

Result<std::vector<double>> time_steps(engine::Engine& engine,
                                       const std::vector<engine::Picture*>& batch,
                                       const Console& console) {
  std::vector<double> times;
  ProgressBar bar(console, "steps", batch.front()->steps());
  while (!batch.front()->done()) {
    if (InterruptGuard::requested()) return Error{ErrorCode::kCancelled, "stopped"};
    const auto begin = std::chrono::steady_clock::now();
    if (const auto stepped = engine.step(batch); !stepped.ok()) return stepped.error();
    times.push_back(since_ms(begin));
    bar.update(batch.front()->step());
  }
  return times;
}

Result<Figures> measure(engine::Engine& engine, const contract::ValidRequest& request,
                        const BenchOptions& options, const Console& console) {
  Figures figures;
  std::vector<engine::Picture> pictures;
  std::vector<engine::Picture*> batch;
  const auto begin = std::chrono::steady_clock::now();
  for (std::int64_t index = 0; index < options.batch_size; ++index) {
    auto picture = engine.begin(request, index);
    if (!picture.ok()) return picture.error();
    pictures.push_back(std::move(*picture));
  }
  figures.encode_ms = since_ms(begin);
  for (engine::Picture& picture : pictures) batch.push_back(&picture);
  const auto steps = time_steps(engine, batch, console);
  if (!steps.ok()) return steps.error();
  figures.step = spread(*steps);
  std::vector<double> decodes;
  for (int repeat = 0; repeat < 3; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    if (const auto bitmap = engine.finish(pictures.front()); !bitmap.ok()) return bitmap.error();
    decodes.push_back(since_ms(start));
  }
  figures.decode = spread(decodes);
  figures.peak_bytes = peak_resident_bytes();
  return figures;
}

nlohmann::json to_json(const Spread& spread) {
  return {{"min", spread.min}, {"median", spread.median}, {"mean", spread.mean}};
}

}  // namespace

int bench(const BenchOptions& options, const Console& console) {
  const InterruptGuard interrupts;
  const auto place = composition(options.place);
  if (!place.ok()) return console.fail(place.error());
  const auto begin = std::chrono::steady_clock::now();
  auto engine =
      engine::Engine::load(*place, {.threads = options.place.threads, .memory_budget = {}});
  if (!engine.ok()) return console.fail(engine.error());
  const double load_ms = since_ms(begin);
  const std::uint64_t loaded_bytes = resident_bytes();

  contract::GenerationRequest asked;
  asked.prompt = options.prompt;
  asked.width = options.width;
  asked.height = options.height;
  asked.steps = options.steps;
  asked.guidance_scale = options.guidance_scale;
  asked.num_images = options.batch_size;
  asked.seed = 0;
  const auto validation = contract::validate(asked, engine->limits(), 0);
  if (!validation.ok()) return console.fail(validation.error());
  const contract::ValidRequest& request = *validation.request;
  auto figures = measure(*engine, request, options, console);
  if (!figures.ok()) return console.fail(figures.error());
  figures->load_ms = load_ms;
  figures->loaded_bytes = loaded_bytes;

  const engine::ModelInfo& info = engine->info();
  if (console.json()) {
    console.result(nlohmann::json{
        {"model", info.name},
        {"family", info.family},
        {"device", info.device},
        {"dtype", {{"storage", info.storage_dtype}, {"compute", info.compute_dtype}}},
        {"threads", engine->threads()},
        {"width", request.width()},
        {"height", request.height()},
        {"steps", request.steps()},
        {"batch_size", options.batch_size},
        {"guidance_scale", request.guidance_scale()},
        {"load_ms", figures->load_ms},
        {"encode_ms", figures->encode_ms},
        {"step_ms", to_json(figures->step)},
        {"decode_ms", to_json(figures->decode)},
        {"loaded_rss_bytes", figures->loaded_bytes},
        {"peak_rss_bytes", figures->peak_bytes}}
                       .dump());
    return 0;
  }
  console.result(fmt::format(
      "{} ({}), {}x{}, batch {}, guidance {:g}, {} threads on {}, weights {}, arithmetic {}",
      info.name, info.family, request.width(), request.height(), options.batch_size,
      request.guidance_scale(), engine->threads(), info.device, info.storage_dtype,
      info.compute_dtype));
  console.result(fmt::format("  {:<10}{:>12}{:>12}{:>12}", "", "min ms", "median ms", "mean ms"));
  const auto row = [&](const char* name, const Spread& times) {
    console.result(fmt::format("  {:<10}{:>12.1f}{:>12.1f}{:>12.1f}", name, times.min, times.median,
                               times.mean));
  };
  console.result(fmt::format("  {:<10}{:>12.1f}", "load", figures->load_ms));
  console.result(fmt::format("  {:<10}{:>12.1f}", "encode", figures->encode_ms));
  row("step", figures->step);
  row("decode", figures->decode);
  console.result(fmt::format("  memory    {} after loading, {} at most",
                             human_bytes(figures->loaded_bytes), human_bytes(figures->peak_bytes)));
  return 0;
}

}  // namespace limner::cli
