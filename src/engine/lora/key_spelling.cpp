#include "engine/lora/key_spelling.h"

namespace limner::engine::lora {
namespace {

struct Suffix {
  std::string_view text;
  std::string_view part;
  std::optional<Kind> kind;
};

constexpr Suffix kSuffixes[] = {
    // kohya, OneTrainer, LyCORIS
    {".lora_down.weight", "down", Kind::kLora},
    {".lora_up.weight", "up", Kind::kLora},
    {".lora_mid.weight", "mid", Kind::kLora},
    // PEFT
    {".lora_A.weight", "down", Kind::kLora},
    {".lora_B.weight", "up", Kind::kLora},
    {".lora_A.default.weight", "down", Kind::kLora},
    {".lora_B.default.weight", "up", Kind::kLora},
    {".lora_B.bias", "up_b", Kind::kLora},
    {".lora_B.default.bias", "up_b", Kind::kLora},
    {".ia3_l", "l", Kind::kIa3},
    {".ia3_l.default", "l", Kind::kIa3},
    {".oft_R.weight", "skew", Kind::kOft},
    {".oft_R.default.weight", "skew", Kind::kOft},
    {".oft_r", "old_blocks", Kind::kOft},
    {".oft_r.default", "old_blocks", Kind::kOft},
    {".boft_R", "butterfly", Kind::kBoft},
    {".boft_R.default", "butterfly", Kind::kBoft},
    {".boft_s", "factors", Kind::kBoft},
    {".boft_s.default", "factors", Kind::kBoft},
    {".lora_magnitude_vector", "magnitude", std::nullopt},
    {".lora_magnitude_vector.weight", "magnitude", std::nullopt},
    {".lora_magnitude_vector.default.weight", "magnitude", std::nullopt},
    // diffusers before PEFT: attention processors, text encoders, and the form between
    {"_lora.down.weight", "down", Kind::kLora},
    {"_lora.up.weight", "up", Kind::kLora},
    {".lora_linear_layer.down.weight", "down", Kind::kLora},
    {".lora_linear_layer.up.weight", "up", Kind::kLora},
    {".lora.down.weight", "down", Kind::kLora},
    {".lora.up.weight", "up", Kind::kLora},
    {".alpha", "alpha", std::nullopt},
    {".dora_scale", "dora", std::nullopt},
    {".hada_w1_a", "w1_a", Kind::kLoha},
    {".hada_w1_b", "w1_b", Kind::kLoha},
    {".hada_w2_a", "w2_a", Kind::kLoha},
    {".hada_w2_b", "w2_b", Kind::kLoha},
    {".hada_t1", "t1", Kind::kLoha},
    {".hada_t2", "t2", Kind::kLoha},
    {".lokr_w1", "w1", Kind::kLokr},
    {".lokr_w1_a", "w1_a", Kind::kLokr},
    {".lokr_w1_b", "w1_b", Kind::kLokr},
    {".lokr_w2", "w2", Kind::kLokr},
    {".lokr_w2_a", "w2_a", Kind::kLokr},
    {".lokr_w2_b", "w2_b", Kind::kLokr},
    {".lokr_t2", "t2", Kind::kLokr},
    {".a1.weight", "a1", Kind::kGlora},
    {".a2.weight", "a2", Kind::kGlora},
    {".b1.weight", "b1", Kind::kGlora},
    {".b2.weight", "b2", Kind::kGlora},
    {".bm.weight", "bm", Kind::kGlora},
    {".on_input", "on_input", Kind::kIa3},
    {".weight", "weight", std::nullopt},  // of an IA3 module, where there is an on_input
    {".oft_blocks", "blocks", Kind::kOft},
    {".oft_diag", "blocks", Kind::kOft},
    {".rescale", "rescale", std::nullopt},
    {".diff", "diff", Kind::kFull},
    {".diff_b", "diff_b", std::nullopt},
    {".w_norm", "diff", Kind::kFull},
    {".b_norm", "diff_b", Kind::kFull},
};

// What wrappers put around a name: PEFT's model class, the processors of old diffusers files.
std::string bare_layer(std::string_view name) {
  std::string layer(name);
  for (const std::string_view prefix : {"base_model.model.", "module."}) {
    if (layer.starts_with(prefix)) layer.erase(0, prefix.size());
  }
  constexpr std::string_view kProcessor = ".processor.";
  if (const auto at = layer.find(kProcessor); at != std::string::npos) {
    layer.erase(at, kProcessor.size() - 1);
  }
  return layer;
}

}  // namespace

std::optional<SpelledKey> split_key(std::string_view key) {
  const Suffix* best = nullptr;
  for (const Suffix& suffix : kSuffixes) {
    const bool fits = key.size() > suffix.text.size() && key.ends_with(suffix.text);
    if (fits && (best == nullptr || suffix.text.size() > best->text.size())) best = &suffix;
  }
  if (best == nullptr) return std::nullopt;
  return SpelledKey{bare_layer(key.substr(0, key.size() - best->text.size())), best->part,
                    best->kind};
}

}  // namespace limner::engine::lora
