#include "engine/weights/checkpoint/configs.h"

#include <fmt/format.h>

#include <vector>

#include "engine/weights/checkpoint/name_table.h"

namespace limner::engine::weights {
namespace {

using nlohmann::json;

// The version whose config keys these are.
constexpr const char* kDiffusersVersion = "0.30.0";
constexpr std::int64_t kHeadWidth = 64;

// Sizes of one network, by tensor name.
class Sizes {
 public:
  Sizes(const Weights& weights, std::string component)
      : weights_(weights), component_(std::move(component)) {
    const auto list = weights.names();
    names_ = NameSet(list.begin(), list.end());
  }

  std::int64_t size(const std::string& name, std::size_t axis) const {
    const TensorView* view = weights_.find(name);
    if (view == nullptr || axis >= view->shape.size()) {
      throw Failure(ErrorCode::kInvalidModel,
                    fmt::format("{}: wants a tensor {} that tells a size", component_, name));
    }
    return view->shape[axis];
  }
  std::size_t dimensions(const std::string& name) const {
    const TensorView* view = weights_.find(name);
    return view == nullptr ? 0 : view->shape.size();
  }
  bool has(const std::string& prefix) const { return has_prefix(names_, prefix); }
  // How many of "<prefix>0<suffix>", "<prefix>1<suffix>", ... there are.
  std::int64_t count(const std::string& prefix, const std::string& suffix = ".") const {
    std::int64_t found = 0;
    while (found < 1000 && has(fmt::format("{}{}{}", prefix, found, suffix))) ++found;
    return found;
  }

 private:
  const Weights& weights_;
  std::string component_;
  NameSet names_;
};

bool is_xl(CheckpointFamily family) {
  return family == CheckpointFamily::kSdxl || family == CheckpointFamily::kSdxlRefiner;
}

// A list of one value for all, as published configs write it.
json joined(const json& values) {
  for (const json& value : values) {
    if (value != values.front()) return values;
  }
  return values.front();
}

json unet_levels(const Sizes& sizes, bool eight_heads) {
  json channels = json::array(), down = json::array(), depths = json::array();
  json heads = json::array(), up = json::array();
  const std::int64_t levels = sizes.count("down_blocks.");
  for (std::int64_t i = 0; i < levels; ++i) {
    const std::string at = fmt::format("down_blocks.{}.", i);
    const std::int64_t width = sizes.size(at + "resnets.0.conv1.weight", 0);
    const bool attends = sizes.has(at + "attentions.");
    channels.push_back(width);
    heads.push_back(eight_heads ? 8 : std::max<std::int64_t>(1, width / kHeadWidth));
    down.push_back(attends ? "CrossAttnDownBlock2D" : "DownBlock2D");
    depths.push_back(
        std::max<std::int64_t>(1, sizes.count(at + "attentions.0.transformer_blocks.")));
  }
  for (std::int64_t i = 0; i < levels; ++i) {
    const bool attends = sizes.has(fmt::format("up_blocks.{}.attentions.", i));
    up.push_back(attends ? "CrossAttnUpBlock2D" : "UpBlock2D");
  }
  // The last level's depth is that of the middle, which alone has one when the level has none.
  if (!depths.empty()) {
    depths.back() =
        std::max<std::int64_t>(1, sizes.count("mid_block.attentions.0.transformer_blocks."));
  }
  return {{"block_out_channels", channels},
          {"down_block_types", down},
          {"up_block_types", up},
          {"attention_head_dim", eight_heads ? json(8) : heads},
          {"transformer_layers_per_block", joined(depths)}};
}

json unet_config(const CheckpointLayout& layout, const Components& components) {
  const Sizes sizes(*components.at("unet"), "unet");
  const bool xl = is_xl(layout.family);
  json config = {{"_class_name", "UNet2DConditionModel"},
                 {"_diffusers_version", kDiffusersVersion},
                 {"act_fn", "silu"},
                 {"center_input_sample", false},
                 {"cross_attention_dim",
                  sizes.size("mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight", 1)},
                 {"downsample_padding", 1},
                 {"flip_sin_to_cos", true},
                 {"freq_shift", 0},
                 {"in_channels", sizes.size("conv_in.weight", 1)},
                 {"layers_per_block", sizes.count("down_blocks.0.resnets.")},
                 {"mid_block_scale_factor", 1},
                 {"norm_eps", 1e-05},
                 {"norm_num_groups", 32},
                 {"out_channels", sizes.size("conv_out.weight", 0)},
                 {"sample_size", xl ? 128 : 64}};
  config.update(unet_levels(sizes, layout.family == CheckpointFamily::kSd1));
  if (sizes.dimensions("mid_block.attentions.0.proj_in.weight") == 2)
    config["use_linear_projection"] = true;
  // Harmless where it is not needed, and needed by SD 2.1 in float16.
  if (layout.family == CheckpointFamily::kSd2) config["upcast_attention"] = true;
  if (sizes.has("time_embedding.cond_proj."))
    config["time_cond_proj_dim"] = sizes.size("time_embedding.cond_proj.weight", 1);
  if (sizes.has("add_embedding.")) {
    const std::int64_t width = sizes.size("add_embedding.linear_1.weight", 1);
    const Sizes tower(*components.at("text_encoder_2"), "text_encoder_2");
    const std::int64_t pooled = tower.size("text_projection.weight", 0);
    const std::int64_t ids = layout.family == CheckpointFamily::kSdxlRefiner ? 5 : 6;
    if (width <= pooled || (width - pooled) % ids != 0) {
      throw Failure(ErrorCode::kInvalidModel,
                    fmt::format("unet: add_embedding reads {} values, which are not {} pooled ones "
                                "and {} equal embeddings",
                                width, pooled, ids));
    }
    config["addition_embed_type"] = "text_time";
    config["addition_time_embed_dim"] = (width - pooled) / ids;
    config["projection_class_embeddings_input_dim"] = width;
  }
  return config;
}

json vae_config(const CheckpointLayout& layout, const Components& components) {
  const Sizes sizes(*components.at("vae"), "vae");
  const std::int64_t levels = sizes.count("encoder.down_blocks.");
  json channels = json::array(), down = json::array(), up = json::array();
  for (std::int64_t i = 0; i < levels; ++i) {
    channels.push_back(
        sizes.size(fmt::format("encoder.down_blocks.{}.resnets.0.conv1.weight", i), 0));
    down.push_back("DownEncoderBlock2D");
    up.push_back("UpDecoderBlock2D");
  }
  json config = {{"_class_name", "AutoencoderKL"},
                 {"_diffusers_version", kDiffusersVersion},
                 {"act_fn", "silu"},
                 {"block_out_channels", channels},
                 {"down_block_types", down},
                 {"in_channels", sizes.size("encoder.conv_in.weight", 1)},
                 {"latent_channels", sizes.size("decoder.conv_in.weight", 1)},
                 {"layers_per_block", sizes.count("encoder.down_blocks.0.resnets.")},
                 {"norm_num_groups", 32},
                 {"out_channels", sizes.size("decoder.conv_out.weight", 0)},
                 {"sample_size", is_xl(layout.family) ? 1024 : 512},
                 {"scaling_factor", is_xl(layout.family) ? 0.13025 : 0.18215},
                 {"up_block_types", up}};
  if (is_xl(layout.family)) config["force_upcast"] = true;
  if (!sizes.has("quant_conv.")) config["use_quant_conv"] = false;
  if (!sizes.has("post_quant_conv.")) config["use_post_quant_conv"] = false;
  return config;
}

json text_config(const TowerPlace& tower, const Components& components) {
  const Sizes sizes(*components.at(tower.component), tower.component);
  const std::string embeddings = "text_model.embeddings.";
  const std::int64_t words = sizes.size(embeddings + "token_embedding.weight", 0);
  const std::int64_t width = sizes.size(embeddings + "token_embedding.weight", 1);
  const bool projects = sizes.has("text_projection.");
  return {
      {"architectures", json::array({projects ? "CLIPTextModelWithProjection" : "CLIPTextModel"})},
      {"attention_dropout", 0.0},
      {"bos_token_id", words - 2},
      {"eos_token_id", words - 1},
      {"hidden_act", tower.open_clip ? "gelu" : "quick_gelu"},
      {"hidden_size", width},
      {"intermediate_size", sizes.size("text_model.encoder.layers.0.mlp.fc1.weight", 0)},
      {"layer_norm_eps", 1e-05},
      {"max_position_embeddings", sizes.size(embeddings + "position_embedding.weight", 0)},
      {"model_type", "clip_text_model"},
      {"num_attention_heads", std::max<std::int64_t>(1, width / kHeadWidth)},
      {"num_hidden_layers", sizes.count("text_model.encoder.layers.")},
      {"pad_token_id", tower.open_clip ? 0 : words - 1},
      {"projection_dim", projects ? sizes.size("text_projection.weight", 0) : width},
      {"vocab_size", words}};
}

}  // namespace

json component_config(const CheckpointLayout& layout, const std::string& component,
                      const Components& components) {
  if (component == "unet") return unet_config(layout, components);
  if (component == "vae") return vae_config(layout, components);
  for (const TowerPlace& tower : layout.towers) {
    if (tower.component == component) return text_config(tower, components);
  }
  throw Failure(ErrorCode::kInternal, "no component '" + component + "' in a checkpoint");
}

json scheduler_config(const CheckpointLayout& layout, const std::string& prediction,
                      const std::string& where) {
  if (!prediction.empty() && prediction != "epsilon" && prediction != "v_prediction") {
    throw Failure(ErrorCode::kInvalidArgument,
                  fmt::format("prediction '{}' is not known; want epsilon or v_prediction",
                              prediction.substr(0, 64)));
  }
  std::string type = prediction;
  if (type.empty()) {
    if (layout.marker != PredictionMarker::kNone) {
      type = "v_prediction";
    } else if (layout.family != CheckpointFamily::kSd2) {
      type = "epsilon";
    } else {
      throw Failure(ErrorCode::kInvalidArgument,
                    fmt::format("{}: is Stable Diffusion 2.x, whose two kinds have the same "
                                "tensors; say --prediction v_prediction (the 768 pixel models) or "
                                "--prediction epsilon (the 512 pixel ones)",
                                where));
    }
  }
  const bool zero_snr = layout.marker == PredictionMarker::kVelocityZeroSnr;
  const bool euler = is_xl(layout.family) || zero_snr;
  json config = {{"_class_name", euler                    ? "EulerDiscreteScheduler"
                                 : type == "v_prediction" ? "DDIMScheduler"
                                                          : "PNDMScheduler"},
                 {"_diffusers_version", kDiffusersVersion},
                 {"beta_end", 0.012},
                 {"beta_schedule", "scaled_linear"},
                 {"beta_start", 0.00085},
                 // For other samplers than the config's own, whose defaults these are not.
                 {"clip_sample", false},
                 {"set_alpha_to_one", false},
                 {"skip_prk_steps", true},
                 {"num_train_timesteps", 1000},
                 {"prediction_type", type},
                 {"steps_offset", 1},
                 {"timestep_spacing", zero_snr ? "trailing" : "leading"}};
  if (euler) config["interpolation_type"] = "linear";
  if (zero_snr) config["rescale_betas_zero_snr"] = true;
  return config;
}

std::string pipeline_class(const CheckpointLayout& layout) {
  const std::string stem = is_xl(layout.family) ? "StableDiffusionXL" : "StableDiffusion";
  if (layout.inpaint) return stem + "InpaintPipeline";
  if (layout.family == CheckpointFamily::kSdxlRefiner) return stem + "Img2ImgPipeline";
  return stem + "Pipeline";
}

json model_index(const CheckpointLayout& layout, const json& scheduler) {
  const json absent = json::array({nullptr, nullptr});
  json index = {{"_class_name", pipeline_class(layout)},
                {"_diffusers_version", kDiffusersVersion},
                {"feature_extractor", absent},
                {"image_encoder", absent},
                {"scheduler", json::array({"diffusers", scheduler.at("_class_name")})},
                {"unet", json::array({"diffusers", "UNet2DConditionModel"})},
                {"vae", json::array({"diffusers", "AutoencoderKL"})}};
  for (const TowerPlace& tower : layout.towers) {
    const bool projects = tower.component == "text_encoder_2";
    index[tower.component] =
        json::array({"transformers", projects ? "CLIPTextModelWithProjection" : "CLIPTextModel"});
    index["tokenizer" + tower.component.substr(std::string("text_encoder").size())] =
        json::array({"transformers", "CLIPTokenizer"});
  }
  if (!is_xl(layout.family)) {
    index["safety_checker"] = absent;
    index["requires_safety_checker"] = false;
    return index;
  }
  if (layout.family == CheckpointFamily::kSdxlRefiner) {
    index["text_encoder"] = index["tokenizer"] = absent;
    index["requires_aesthetics_score"] = true;
  } else if (layout.inpaint) {
    index["requires_aesthetics_score"] = false;
  }
  index["force_zeros_for_empty_prompt"] = layout.family == CheckpointFamily::kSdxl;
  return index;
}

}  // namespace limner::engine::weights
