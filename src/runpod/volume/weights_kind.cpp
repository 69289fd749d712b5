#include "runpod/volume/weights_kind.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "engine/lora/adapter_file.h"
#include "engine/weights/safetensors.h"

namespace limner::runpod {
namespace {

using Tensors = std::map<std::string, engine::weights::TensorView, std::less<>>;

constexpr std::array<std::string_view, 4> kCheckpointPrefixes = {
    "model.diffusion_model.", "cond_stage_model.", "conditioner.embedders.", "double_blocks.0."};
constexpr std::array<std::string_view, 4> kEmbeddingNames = {"emb_params", "clip_l", "clip_g",
                                                             "string_to_param"};

template <typename Fits>
bool any_name(const Tensors& tensors, const Fits& fits) {
  return std::any_of(tensors.begin(), tensors.end(),
                     [&](const auto& entry) { return fits(std::string_view(entry.first)); });
}

// A few vectors of one width; diffusers names the one tensor after the token, as in "<cat-toy>".
bool is_embedding(const Tensors& tensors) {
  if (tensors.empty() || tensors.size() > 4) return false;
  const bool small = std::all_of(tensors.begin(), tensors.end(),
                                 [](const auto& entry) { return entry.second.shape.size() <= 2; });
  return small && any_name(tensors, [](std::string_view name) {
           const bool token = name.starts_with('<') && name.ends_with('>');
           return token || std::find(kEmbeddingNames.begin(), kEmbeddingNames.end(), name) !=
                               kEmbeddingNames.end();
         });
}

// Layers that the file changes in one of the many spellings that the engine reads, and tensors that
// are of no such layer.
std::pair<std::size_t, std::size_t> adapter_layers(const std::filesystem::path& file) {
  using engine::lora::AdapterFile;
  const auto adapter = AdapterFile::read(file, AdapterFile::Depth::kHeader);
  if (!adapter.ok()) return {};
  return {(*adapter)->modules().size(), (*adapter)->unknown_keys().size()};
}

}  // namespace

Result<WeightsKind> weights_kind(const std::filesystem::path& file) {
  const auto opened = engine::weights::SafetensorsFile::open(file);
  if (!opened.ok()) return opened.error();
  const Tensors& tensors = opened->tensors();
  const auto [layers, others] = adapter_layers(file);
  const bool checkpoint = any_name(tensors, [](std::string_view name) {
    return std::any_of(kCheckpointPrefixes.begin(), kCheckpointPrefixes.end(),
                       [&](std::string_view prefix) { return name.starts_with(prefix); });
  });
  if (layers > (checkpoint ? others : 0)) return WeightsKind::kAdapter;
  if (checkpoint) return WeightsKind::kCheckpoint;
  return is_embedding(tensors) ? WeightsKind::kEmbedding : WeightsKind::kOther;
}

}  // namespace limner::runpod
