#include "engine/pipelines/text_encoder.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/pipelines/component.h"

namespace limner::engine::pipelines {
namespace {

// A text of readable length: the middle of a long one is left out, never half a UTF-8 character.
std::string elided(const std::string& text) {
  constexpr std::size_t kShown = 2000;
  if (text.size() <= kShown) return text;
  const auto continues = [&](std::size_t at) {
    return (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80;
  };
  std::size_t head = kShown / 2, tail = text.size() - kShown / 2;
  while (continues(head)) --head;
  while (continues(tail)) ++tail;
  return text.substr(0, head) + " [...] " + text.substr(tail);
}

models::ClipTextModel load_model(const LoadRequest& request, const std::string& component) {
  const weights::ComponentEntry& entry = require_component(request.folder, component);
  const bool with_projection = entry.class_name == "CLIPTextModelWithProjection";
  if (!with_projection && entry.class_name != "CLIPTextModel") {
    throw Failure(ErrorCode::kUnsupported,
                  fmt::format("{}: '{}' is a {}, want CLIPTextModel or CLIPTextModelWithProjection",
                              request.folder.root.string(), component, entry.class_name));
  }
  return build_component(request, component, request.placement,
                         [&](const weights::Config& config, const nn::TensorSource& source) {
                           return models::ClipTextModel(config, source, with_projection);
                         });
}

}  // namespace

TextEncoder::TextEncoder(const LoadRequest& request, const std::string& suffix)
    : tokenizer_(prompt::ClipTokenizer::load(request.folder.root / ("tokenizer" + suffix))
                     .value_or_throw()),
      model_(load_model(request, "text_encoder" + suffix)),
      device_(request.placement.device) {
  if (static_cast<std::int64_t>(tokenizer_.vocabulary_size()) > model_.vocabulary_size()) {
    throw Failure(ErrorCode::kInvalidModel,
                  fmt::format("{}: tokenizer{} has {} tokens, but text_encoder{} knows {}",
                              request.folder.root.string(), suffix, tokenizer_.vocabulary_size(),
                              suffix, model_.vocabulary_size()));
  }
  if (static_cast<std::int64_t>(tokenizer_.max_length()) > model_.max_positions()) {
    throw Failure(
        ErrorCode::kInvalidModel,
        fmt::format("{}: tokenizer{} makes {} tokens, but text_encoder{} has {} positions",
                    request.folder.root.string(), suffix, tokenizer_.max_length(), suffix,
                    model_.max_positions()));
  }
}

models::ClipTextOutput TextEncoder::encode(const std::string& text,
                                           std::vector<std::string>& warnings) const {
  const prompt::ClipTokenizer::Encoding encoding = tokenizer_.encode(text).value_or_throw();
  if (!encoding.cut.empty()) {
    std::string warning =
        fmt::format("the prompt is longer than {} tokens; this part was cut: \"{}\"",
                    tokenizer_.max_length() - 2, elided(encoding.cut));
    if (std::find(warnings.begin(), warnings.end(), warning) == warnings.end()) {
      warnings.push_back(std::move(warning));
    }
  }
  const at::Tensor ids = at::tensor(encoding.ids, at::kInt).to(at::kLong).unsqueeze(0);  // [1, L]
  return model_.forward(ids.to(device_));
}

}  // namespace limner::engine::pipelines
