// The adapters of one loaded model: from files to what its networks take.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/lora/adapter_folders.h"
#include "engine/lora/adapter_tiers.h"
#include "engine/lora/attach.h"
#include "engine/pipelines/pipeline.h"
#include "engine/weights/model_folder.h"
#include "prompt/parsed_prompt.h"

namespace limner::engine::pipelines {

// Safe to call from many threads, so that adapters can be loaded while others draw.
class ModelAdapters {
 public:
  struct Model {
    weights::ModelFolder folder;
    std::string variant;
    nn::Placement placement;
  };
  ModelAdapters(Model model, const EngineOptions& options);

  // From the cache, or read and attached. A file that changed since is read anew. Throws Failure.
  std::shared_ptr<const lora::AttachedAdapter> load(const std::filesystem::path& file,
                                                    bool allow_partial);
  // What a picture asked for, and what <lora:name:weight> in its prompt names.
  lora::AdapterList list(std::span<const PictureAdapter> asked,
                         std::span<const prompt::LoraTag> tags);
  lora::AdapterCacheStats attached() const { return tiers_.attached(); }
  lora::AdapterCacheStats files() const { return tiers_.files(); }

 private:
  const lora::ModelLayers& layers();

  Model model_;
  lora::AdapterFolders folders_;
  lora::AdapterTiers tiers_;
  std::once_flag layers_once_;
  std::optional<lora::ModelLayers> layers_;  // made at the first use
};

// What of the list changes the text encoders, as a key for encoded prompts; "" when nothing does.
std::string text_key(const lora::AdapterList& adapters);

// The adapters of one picture for the forwards of encode_prompt.
class TextRows {
 public:
  explicit TextRows(const lora::AdapterList& adapters);
  TextAdapters view() const { return {text_encoder_, text_encoder_2_}; }

 private:
  nn::RowAdapters text_encoder_, text_encoder_2_;
};

}  // namespace limner::engine::pipelines
