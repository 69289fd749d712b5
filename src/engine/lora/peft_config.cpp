#include "engine/lora/peft_config.h"

#include "base/error.h"
#include "engine/weights/json.h"

namespace limner::engine::lora {
namespace {

constexpr const char* kComponents[] = {"unet", "text_encoder", "text_encoder_2"};

// The longest component that `layer` begins with, or "".
std::string component_of(const std::string& layer) {
  std::string found;
  for (const std::string component : kComponents) {
    if (layer.starts_with(component + ".")) found = component;
  }
  return found;
}

}  // namespace

PeftConfig::Section PeftConfig::section_of(const nlohmann::json& tree, const std::string& prefix,
                                           const std::string& where) {
  Section section;
  const auto number = [&](const nlohmann::json& value, const std::string& key) {
    if (!value.is_number()) {
      throw Failure(ErrorCode::kInvalidModel, where + ": '" + key + "' is not a number");
    }
    return value.get<double>();
  };
  if (const auto alpha = tree.find(prefix + "lora_alpha"); alpha != tree.end()) {
    section.alpha = number(*alpha, prefix + "lora_alpha");
  }
  if (const auto flag = tree.find(prefix + "use_rslora"); flag != tree.end()) {
    section.rank_stabilised = flag->is_boolean() && flag->get<bool>();
  }
  if (const auto list = tree.find(prefix + "alpha_pattern");
      list != tree.end() && list->is_object()) {
    for (const auto& [pattern, value] : list->items()) {
      section.patterns[pattern] = number(value, prefix + "alpha_pattern");
    }
  }
  return section;
}

PeftConfig PeftConfig::of(const std::filesystem::path& file,
                          const std::map<std::string, std::string, std::less<>>& metadata) {
  PeftConfig config;
  if (const auto found = metadata.find("lora_adapter_metadata"); found != metadata.end()) {
    const std::string where = file.filename().string() + ": lora_adapter_metadata";
    const nlohmann::json tree = weights::parse_json(found->second, where);
    if (!tree.is_object()) throw Failure(ErrorCode::kInvalidModel, where + " is not an object");
    for (const std::string component : kComponents) {
      config.sections_[component] = section_of(tree, component + ".", where);
    }
    return config;
  }
  const std::filesystem::path beside = file.parent_path() / "adapter_config.json";
  if (file.filename() == "adapter_model.safetensors" && std::filesystem::exists(beside)) {
    const nlohmann::json tree = weights::read_json(beside, beside.filename().string());
    if (!tree.is_object()) {
      throw Failure(ErrorCode::kInvalidModel, beside.string() + " is not an object");
    }
    config.sections_[""] = section_of(tree, "", beside.filename().string());
  }
  return config;
}

PeftConfig::Scaling PeftConfig::scaling_of(const std::string& layer) const {
  auto section = sections_.find(component_of(layer));
  if (section == sections_.end()) section = sections_.find("");
  if (section == sections_.end()) return {};
  Scaling scaling{section->second.alpha, section->second.rank_stabilised};
  for (const auto& [pattern, alpha] : section->second.patterns) {
    if (layer == pattern || layer.ends_with("." + pattern)) scaling.alpha = alpha;
  }
  return scaling;
}

}  // namespace limner::engine::lora
