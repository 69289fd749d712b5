// Which architecture a single-file checkpoint is, told by its tensors and never by its name.
#pragma once

#include <string>
#include <vector>

#include "engine/weights/weights.h"

namespace limner::engine::weights {

enum class CheckpointFamily { kSd1, kSd2, kSdxl, kSdxlRefiner };

// A text tower and where it lies.
struct TowerPlace {
  std::string component;  // text_encoder, text_encoder_2
  std::string prefix;     // "conditioner.embedders.1.model."
  bool open_clip = false;
};

enum class PredictionMarker { kNone, kVelocity, kVelocityZeroSnr };

// Where the parts of a checkpoint lie. Prefixes end in a dot or are empty.
struct CheckpointLayout {
  CheckpointFamily family = CheckpointFamily::kSd1;
  bool inpaint = false;  // the first convolution reads 9 channels
  std::string unet_prefix;
  std::string vae_prefix;
  std::vector<TowerPlace> towers;
  bool has_ema = false;  // a second, averaged UNet under model_ema.
  PredictionMarker marker = PredictionMarker::kNone;
};

// Throws Failure(kUnsupported) naming what it is instead (FLUX, SD 3, a ControlNet, an adapter, a
// lone UNet, ...) where that can be told, else kInvalidModel. Markers as diffusers' single-file
// loader has them.
CheckpointLayout identify_checkpoint(const Weights& weights, const std::string& where);

std::string family_name(CheckpointFamily family);  // "sd1", "sd2", "sdxl", "sdxl-refiner"

}  // namespace limner::engine::weights
