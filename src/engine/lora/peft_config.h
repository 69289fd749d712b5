// What PEFT says about an adapter's scaling outside its tensors.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace limner::engine::lora {

class PeftConfig {
 public:
  struct Scaling {
    std::optional<double> alpha;
    bool rank_stabilised = false;
  };

  // From the header's "lora_adapter_metadata" (diffusers), or from the adapter_config.json beside a
  // file called adapter_model.safetensors (PEFT); empty when there is neither. Throws
  // Failure(kInvalidModel) for what is no configuration.
  static PeftConfig of(const std::filesystem::path& file,
                       const std::map<std::string, std::string, std::less<>>& metadata);

  // lora_alpha, or what alpha_pattern says for the layer. `layer` is spelled with dots.
  Scaling scaling_of(const std::string& layer) const;

 private:
  struct Section {
    std::optional<double> alpha;
    bool rank_stabilised = false;
    std::map<std::string, double> patterns;  // end of a layer's name -> alpha
  };
  static Section section_of(const nlohmann::json& tree, const std::string& prefix,
                            const std::string& where);
  std::map<std::string, Section> sections_;  // "unet", "text_encoder", ...; "" for all
};

}  // namespace limner::engine::lora
