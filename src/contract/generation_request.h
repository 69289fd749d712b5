// GenerationRequest: what a client asked, before anybody checked it. Plain data; names as in the
// HTTP API.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace limner::contract {

// SDXL's micro-conditioning: the picture the model is told it is cropped from (SDXL paper,
// section 2.2). In pixels.
struct MicroConditioning {
  std::optional<std::int64_t> original_width, original_height;  // absent: the picture's own size
  std::optional<std::int64_t> crop_left, crop_top;              // absent: 0
  std::optional<std::int64_t> target_width, target_height;      // absent: the picture's own size
};

struct GenerationRequest {
  std::string prompt{};
  std::string negative_prompt{};
  std::optional<std::int64_t> width{};  // absent: the model's own size
  std::optional<std::int64_t> height{};
  std::optional<std::int64_t> steps{};  // absent: the model's default
  std::optional<double> guidance_scale{};
  double guidance_rescale = 0.0;  // 0..1 (Lin et al. 2023, section 3.4)
  std::string sampler{};          // "": the checkpoint's own
  std::string schedule = "default";
  std::optional<std::int64_t> seed{};  // absent: a random one is chosen and reported
  std::int64_t num_images = 1;
  std::int64_t clip_skip =
      0;             // text-encoder layers left out at the end, beyond the model's own choice
  double eta = 0.0;  // 0..1, for ddim and tcd-like samplers
  MicroConditioning micro{};
  std::string prompt_syntax{};        // a1111, compel, plain; "": plain with truncate, else a1111
  std::string long_prompt = "chunk";  // chunk, truncate
  std::string weighting{};            // a1111, lpw, compel; "": compel with its syntax, else a1111
  bool extract_negative = false;      // the prompt may hold "### negative: ..." or "--no ..."
};

}  // namespace limner::contract
