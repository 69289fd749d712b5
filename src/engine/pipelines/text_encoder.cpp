#include "engine/pipelines/text_encoder.h"

#include <fmt/format.h>

#include "engine/pipelines/component.h"

namespace limner::engine::pipelines {
namespace {

bool has_projection(const weights::ModelFolder& folder, const std::string& component) {
  const weights::ComponentEntry& entry = require_component(folder, component);
  const bool with_projection = entry.class_name == "CLIPTextModelWithProjection";
  if (!with_projection && entry.class_name != "CLIPTextModel") {
    throw Failure(ErrorCode::kUnsupported,
                  fmt::format("{}: '{}' is a {}, want CLIPTextModel or CLIPTextModelWithProjection",
                              folder.root.string(), component, entry.class_name));
  }
  return with_projection;
}

models::ClipTextModel load_model(const LoadRequest& request, const std::string& component) {
  const bool with_projection = has_projection(request.folder, component);
  return build_component(request, component, request.placement,
                         [&](const weights::Config& config, const nn::TensorSource& source) {
                           return models::ClipTextModel(config, source, with_projection);
                         });
}

}  // namespace

models::ClipTextModel::Traits text_encoder_traits(const weights::ModelFolder& folder,
                                                  const std::string& suffix) {
  const std::string component = "text_encoder" + suffix;
  const bool with_projection = has_projection(folder, component);
  return models::ClipTextModel::traits_of(folder.config(component), with_projection);
}

TextEncoder::TextEncoder(const LoadRequest& request, const std::string& suffix)
    : tokenizer_(prompt::ClipTokenizer::load(request.folder.tokenizer_folder("tokenizer" + suffix))
                     .value_or_throw()),
      model_([request, suffix] { return load_model(request, "text_encoder" + suffix); },
             request.offload),
      device_(request.placement.device) {
  if (static_cast<std::int64_t>(tokenizer_.vocabulary_size()) > model().vocabulary_size()) {
    throw Failure(ErrorCode::kInvalidModel,
                  fmt::format("{}: tokenizer{} has {} tokens, but text_encoder{} knows {}",
                              request.folder.root.string(), suffix, tokenizer_.vocabulary_size(),
                              suffix, model().vocabulary_size()));
  }
  if (static_cast<std::int64_t>(tokenizer_.max_length()) > model().max_positions()) {
    throw Failure(
        ErrorCode::kInvalidModel,
        fmt::format("{}: tokenizer{} makes {} tokens, but text_encoder{} has {} positions",
                    request.folder.root.string(), suffix, tokenizer_.max_length(), suffix,
                    model().max_positions()));
  }
  hidden_size_ = model().hidden_size();
  leave();
}

models::ClipTextOutput TextEncoder::forward(const std::vector<std::int32_t>& ids,
                                            const nn::RowAdapters& adapters,
                                            const models::ClipTextChanges& changes) const {
  const at::Tensor row = at::tensor(ids, at::kInt).to(at::kLong).unsqueeze(0);  // [1, L]
  return model().forward(row.to(device_), adapters, changes);
}

}  // namespace limner::engine::pipelines
