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
  const auto read = [&](const char* name, std::optional<double>& into) {
    const auto found = tree.find(prefix + name);
    if (found != tree.end() && !found->is_null()) into = number(*found, prefix + name);
  };
  const auto read_all = [&](const char* name, std::map<std::string, double>& into) {
    const auto list = tree.find(prefix + name);
    if (list == tree.end() || !list->is_object()) return;
    for (const auto& [pattern, value] : list->items()) {
      into[pattern] = number(value, prefix + name);
    }
  };
  read("alpha", section.scaling.alpha);  // LoHa, LoKr
  read("lora_alpha", section.scaling.alpha);
  read("r", section.scaling.rank);
  read_all("alpha_pattern", section.alphas);
  read_all("rank_pattern", section.ranks);
  if (const auto flag = tree.find(prefix + "use_rslora"); flag != tree.end()) {
    section.scaling.rank_stabilised = flag->is_boolean() && flag->get<bool>();
  }
  return section;
}

void PeftConfig::read_rotation(const nlohmann::json& tree, const std::string& where) {
  constexpr int kMostTerms = 100;
  const auto series = tree.find("use_cayley_neumann");
  // Versions before 0.17 do not have the setting, and take the inverse.
  if (tree.contains("oft_block_size") && series == tree.end()) neumann_terms_.reset();
  if (series != tree.end() && series->is_boolean() && !series->get<bool>()) neumann_terms_.reset();
  const auto terms = tree.find("num_cayley_neumann_terms");
  if (!neumann_terms_ || terms == tree.end()) return;
  if (!terms->is_number_integer() || *terms < 1 || *terms > kMostTerms) {
    throw Failure(ErrorCode::kInvalidModel, where + ": 'num_cayley_neumann_terms' is not 1 to 100");
  }
  neumann_terms_ = terms->get<int>();
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
    config.read_rotation(tree, beside.filename().string());
  }
  return config;
}

PeftConfig::Scaling PeftConfig::scaling_of(const std::string& layer) const {
  auto section = sections_.find(component_of(layer));
  if (section == sections_.end()) section = sections_.find("");
  if (section == sections_.end()) return {};
  Scaling scaling = section->second.scaling;
  const auto fits = [&](const std::string& pattern) {
    return layer == pattern || layer.ends_with("." + pattern);
  };
  for (const auto& [pattern, alpha] : section->second.alphas) {
    if (fits(pattern)) scaling.alpha = alpha;
  }
  for (const auto& [pattern, rank] : section->second.ranks) {
    if (fits(pattern)) scaling.rank = rank;
  }
  return scaling;
}

}  // namespace limner::engine::lora
