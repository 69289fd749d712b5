#include "engine/weights/checkpoint/family.h"

#include <fmt/format.h>

#include <array>
#include <optional>

#include "engine/weights/checkpoint/name_table.h"

namespace limner::engine::weights {
namespace {

constexpr std::int64_t kInpaintChannels = 9;
constexpr std::array<const char*, 3> kUNetPrefixes = {"model.diffusion_model.", "diffusion_model.",
                                                      ""};

struct Foreign {
  const char* marker;  // a whole name below an optional UNet prefix, or a part ending in '.'
  const char* what;
};

// Architectures that are told apart by one tensor each, with and without a prefix.
constexpr std::array<Foreign, 9> kForeign = {
    {{"joint_blocks.0.context_block.adaLN_modulation.1.bias", "a Stable Diffusion 3 checkpoint"},
     {"double_stream_modulation_img.lin.weight", "a FLUX.2 checkpoint"},
     {"distilled_guidance_layer.layers.0.in_layer.weight", "a Chroma checkpoint"},
     {"double_blocks.0.img_attn.norm.key_norm.scale", "a FLUX.1 checkpoint"},
     {"layers.0.adaLN_modulation.0.weight", "a Z-Image checkpoint"},
     {"transformer_blocks.0.attn.norm_added_q.weight", "a Qwen-Image checkpoint"},
     {"down_blocks.0.0.body.1.resnets.0.conv1.weight", "a Stable Cascade checkpoint"},
     {"controlnet_cond_embedding.conv_in.weight", "a ControlNet, not a whole model"},
     {"down_blocks.0.resnets.0.conv1.weight",
      "one network in diffusers' naming, not a whole checkpoint: it belongs into the folder of one "
      "component"}}};

// Throws when a marker of something else is there.
void refuse_foreign(const Weights& weights, const NameSet& names, const std::string& where) {
  const auto refuse = [&](const std::string& what) {
    throw Failure(ErrorCode::kUnsupported,
                  fmt::format("{}: is {}; this build takes single-file checkpoints of Stable "
                              "Diffusion 1.x, 2.x and XL",
                              where, what));
  };
  for (const Foreign& foreign : kForeign) {
    for (const char* prefix : kUNetPrefixes) {
      if (weights.find(std::string(prefix) + foreign.marker) != nullptr) refuse(foreign.what);
    }
  }
  if (has_prefix(names, "control_model.")) refuse("a ControlNet, not a whole model");
  if (weights.find("edm_mean") != nullptr || weights.find("edm_vpred.sigma_max") != nullptr) {
    refuse("trained with EDM preconditioning, which no sampler here knows");
  }
  for (const std::string& name : names) {
    if (name.find("lora_") != std::string::npos || name.ends_with(".lora.up.weight") ||
        name.find(".hada_") != std::string::npos || name.find(".lokr_") != std::string::npos) {
      refuse("an adapter (LoRA or its kin), not a model: give it with --lora");
    }
  }
}

std::optional<std::string> find_unet(const NameSet& names) {
  for (const std::string prefix : kUNetPrefixes) {
    if (has_prefix(names, prefix + "input_blocks.0.0.")) return prefix;
  }
  return std::nullopt;
}

// The towers there are, by the embedder they lie under; the family follows from them.
std::vector<TowerPlace> find_towers(const NameSet& names) {
  const auto clip = [&](const std::string& prefix) {
    return has_prefix(names, prefix + "text_model.") || has_prefix(names, prefix + "embeddings.");
  };
  const auto open_clip = [&](const std::string& prefix) {
    return has_prefix(names, prefix + "transformer.resblocks.");
  };
  std::vector<TowerPlace> towers;
  if (clip("cond_stage_model.transformer."))
    towers.push_back({"text_encoder", "cond_stage_model.transformer.", false});
  if (open_clip("cond_stage_model.model."))
    towers.push_back({"text_encoder", "cond_stage_model.model.", true});
  if (clip("conditioner.embedders.0.transformer."))
    towers.push_back({"text_encoder", "conditioner.embedders.0.transformer.", false});
  if (open_clip("conditioner.embedders.1.model."))
    towers.push_back({"text_encoder_2", "conditioner.embedders.1.model.", true});
  if (open_clip("conditioner.embedders.0.model."))
    towers.push_back({"text_encoder_2", "conditioner.embedders.0.model.", true});
  return towers;
}

[[noreturn]] void refuse_incomplete(const std::string& where, const char* what,
                                    const char* looked_for) {
  throw Failure(ErrorCode::kInvalidModel,
                fmt::format("{}: has no {} (looked for tensors under {}); a single-file checkpoint "
                            "holds UNet, VAE and text encoders",
                            where, what, looked_for));
}

CheckpointFamily family_of(const std::vector<TowerPlace>& towers, const std::string& where) {
  const auto is = [&](std::size_t i, const char* prefix) { return towers[i].prefix == prefix; };
  if (towers.size() == 1) {
    if (is(0, "cond_stage_model.transformer.")) return CheckpointFamily::kSd1;
    if (is(0, "cond_stage_model.model.")) return CheckpointFamily::kSd2;
    if (is(0, "conditioner.embedders.0.model.")) return CheckpointFamily::kSdxlRefiner;
  }
  if (towers.size() == 2 && is(0, "conditioner.embedders.0.transformer.") &&
      is(1, "conditioner.embedders.1.model.")) {
    return CheckpointFamily::kSdxl;
  }
  if (towers.empty()) {
    refuse_incomplete(where, "text encoder", "cond_stage_model. and conditioner.embedders.");
  }
  std::string found;
  for (const TowerPlace& tower : towers) found += (found.empty() ? "" : ", ") + tower.prefix;
  throw Failure(
      ErrorCode::kInvalidModel,
      fmt::format("{}: its text encoders ({}) are those of no known family", where, found));
}

}  // namespace

CheckpointLayout identify_checkpoint(const Weights& weights, const std::string& where) {
  const std::vector<std::string> list = weights.names();
  const NameSet names(list.begin(), list.end());
  CheckpointLayout layout;
  const auto unet = find_unet(names);
  if (!unet) {
    refuse_foreign(weights, names, where);
    throw Failure(ErrorCode::kInvalidModel,
                  fmt::format("{}: is no checkpoint that can be recognised: it has no UNet (looked "
                              "for input_blocks.0.0. with and without model.diffusion_model.)",
                              where));
  }
  if (has_prefix(names, "control_model.")) refuse_foreign(weights, names, where);
  if (weights.find("edm_mean") != nullptr || weights.find("edm_vpred.sigma_max") != nullptr)
    refuse_foreign(weights, names, where);
  layout.unet_prefix = *unet;
  const TensorView* first = weights.find(*unet + "input_blocks.0.0.weight");
  layout.inpaint =
      first != nullptr && first->shape.size() == 4 && first->shape[1] == kInpaintChannels;
  layout.towers = find_towers(names);
  layout.family = family_of(layout.towers, where);
  layout.vae_prefix = "first_stage_model.";
  if (!has_prefix(names, layout.vae_prefix + "decoder."))
    refuse_incomplete(where, "VAE", "first_stage_model.");
  layout.has_ema = has_prefix(names, "model_ema.diffusion_model");
  if (weights.find("v_pred") != nullptr) layout.marker = PredictionMarker::kVelocity;
  if (weights.find("ztsnr") != nullptr) layout.marker = PredictionMarker::kVelocityZeroSnr;
  return layout;
}

std::string family_name(CheckpointFamily family) {
  switch (family) {
    case CheckpointFamily::kSd1:
      return "sd1";
    case CheckpointFamily::kSd2:
      return "sd2";
    case CheckpointFamily::kSdxl:
      return "sdxl";
    case CheckpointFamily::kSdxlRefiner:
      return "sdxl-refiner";
  }
  return "unknown";
}

}  // namespace limner::engine::weights
