// Configs for a checkpoint that came without: what diffusers' folders of that family hold, with
// every size read from the tensors.
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/weights/checkpoint/family.h"

namespace limner::engine::weights {

using Components = std::map<std::string, std::shared_ptr<const Weights>>;

// What tensors do not tell: heads are 64 channels wide (SD 1: 8 heads), norms have 32 groups.
// `component` is unet, vae, text_encoder or text_encoder_2, in diffusers' names. Throws
// Failure(kInvalidModel) when a tensor that tells a size is missing.
nlohmann::json component_config(const CheckpointLayout& layout, const std::string& component,
                                const Components& components);

// `prediction`: epsilon, v_prediction, or "" for what the family and its markers say. Throws
// Failure(kInvalidArgument) for SD 2 without it (its two kinds have the same tensors) and for a
// name that is none.
nlohmann::json scheduler_config(const CheckpointLayout& layout, const std::string& prediction,
                                const std::string& where);

nlohmann::json model_index(const CheckpointLayout& layout, const nlohmann::json& scheduler);
std::string pipeline_class(const CheckpointLayout& layout);

}  // namespace limner::engine::weights
