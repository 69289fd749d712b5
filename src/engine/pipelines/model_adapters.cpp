#include "engine/pipelines/model_adapters.h"

#include <fmt/format.h>

namespace limner::engine::pipelines {
namespace {

namespace fs = std::filesystem;

// Path, size and time of change: equal for files with equal contents, as far as a look tells.
std::string identity_of(const fs::path& file, bool allow_partial) {
  std::error_code failed;
  const fs::path real = fs::canonical(file, failed);
  if (failed) {
    throw Failure(ErrorCode::kNotFound,
                  fmt::format("no such adapter: there is no file {}", file.string()));
  }
  const auto bytes = fs::file_size(real, failed);
  const auto time = failed ? fs::file_time_type() : fs::last_write_time(real, failed);
  if (failed) {
    throw Failure(ErrorCode::kIo, fmt::format("{}: {}", file.string(), failed.message()));
  }
  return fmt::format("{}|{}|{}{}", real.string(), bytes, time.time_since_epoch().count(),
                     allow_partial ? "|partial" : "");
}

nn::RowAdapters rows_for(std::string_view component, const lora::AdapterList& adapters) {
  const lora::AdapterList* const one[] = {&adapters};
  return lora::row_adapters(component, one);
}

}  // namespace

ModelAdapters::ModelAdapters(Model model, const EngineOptions& options)
    : model_(std::move(model)),
      folders_(options.adapter_folders),
      tiers_({.attached = options.adapter_cache_bytes,
              .files = model_.placement.device.is_cpu()
                           ? std::nullopt
                           : std::optional(options.adapter_host_cache_bytes)}) {}

const lora::ModelLayers& ModelAdapters::layers() {
  std::call_once(layers_once_, [&] {
    lora::Networks networks;
    for (const char* component : {"unet", "text_encoder", "text_encoder_2"}) {
      if (!model_.folder.components.contains(component)) continue;
      networks[component] = model_.folder.weights(component, model_.variant).value_or_throw();
    }
    layers_.emplace(std::move(networks));
  });
  return *layers_;
}

std::shared_ptr<const lora::AttachedAdapter> ModelAdapters::load(const fs::path& file,
                                                                 bool allow_partial) {
  const std::string identity = identity_of(file, allow_partial);
  return tiers_.get(
      identity, [&] { return lora::AdapterFile::read(file).value_or_throw(); },
      [&](const lora::AdapterFile& read) {
        return lora::attach(read, layers(), model_.placement,
                            {.allow_partial = allow_partial, .identity = identity});
      });
}

lora::AdapterList ModelAdapters::list(std::span<const PictureAdapter> asked,
                                      std::span<const prompt::LoraTag> tags) {
  lora::AdapterList adapters;
  for (const PictureAdapter& use : asked) {
    adapters.push_back({load(use.file, use.allow_partial), use.scales});
  }
  for (const prompt::LoraTag& tag : tags) {
    lora::AdapterScales scales = lora::AdapterScales::all(tag.text_encoder_weight);
    scales.unet = tag.unet_weight;
    adapters.push_back({load(folders_.find(tag.name).value_or_throw(), false), scales});
  }
  return adapters;
}

std::string text_key(const lora::AdapterList& adapters) {
  std::string key;
  for (const auto& [adapter, scales] : adapters) {
    if (!adapter->changes("text_encoder") && !adapter->changes("text_encoder_2")) continue;
    key +=
        fmt::format("{}\n{},{}\n", adapter->identity, scales.text_encoder, scales.text_encoder_2);
  }
  return key;
}

TextRows::TextRows(const lora::AdapterList& adapters)
    : text_encoder_(rows_for("text_encoder", adapters)),
      text_encoder_2_(rows_for("text_encoder_2", adapters)) {}

}  // namespace limner::engine::pipelines
