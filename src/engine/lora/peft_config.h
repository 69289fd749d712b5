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
    std::optional<double> rank;  // for modules whose tensors do not tell
    bool rank_stabilised = false;
  };

  // From the header's "lora_adapter_metadata" (diffusers), or from the adapter_config.json beside a
  // file called adapter_model.safetensors (PEFT); empty when there is neither. Throws
  // Failure(kInvalidModel) for what is no configuration.
  static PeftConfig of(const std::filesystem::path& file,
                       const std::map<std::string, std::string, std::less<>>& metadata);

  // Of OFT's series, PEFT's own number where nothing says another; nothing: the inverse itself.
  std::optional<int> neumann_terms() const { return neumann_terms_; }

  // lora_alpha, or what alpha_pattern says for the layer. `layer` is spelled with dots.
  Scaling scaling_of(const std::string& layer) const;

 private:
  struct Section {
    Scaling scaling;
    std::map<std::string, double> alphas, ranks;  // end of a layer's name -> its own
  };
  static Section section_of(const nlohmann::json& tree, const std::string& prefix,
                            const std::string& where);
  void read_rotation(const nlohmann::json& tree, const std::string& where);
  std::optional<int> neumann_terms_ = 5;
  std::map<std::string, Section> sections_;  // "unet", "text_encoder", ...; "" for all
};

}  // namespace limner::engine::lora
