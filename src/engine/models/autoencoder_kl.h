// AutoencoderKL of diffusers: pictures to latents and back.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>

#include "engine/nn/tensor_source.h"
#include "engine/weights/config.h"

namespace limner::engine::models {

struct AutoencoderOptions {
  bool slicing = false;  // one picture at a time
  bool tiling = false;   // overlapping tiles, blended as diffusers does
};

// Immutable; forward functions are const and thread-safe.
class AutoencoderKL {
 public:
  AutoencoderKL(const weights::Config& config, const nn::TensorSource& source);
  AutoencoderKL(AutoencoderKL&&) noexcept;
  ~AutoencoderKL();

  // z [B, latent_channels, h, w] (already divided by the scaling factor) -> [B, out_channels, 8h,
  // 8w], about -1..1, in the compute dtype, channels-last.
  at::Tensor decode(const at::Tensor& z, const AutoencoderOptions& options = {}) const;

  struct Posterior {
    at::Tensor mean;    // [B, latent_channels, h, w]
    at::Tensor logvar;  // clamped to -30..20
  };
  // x [B, in_channels, H, W] in -1..1.
  Posterior encode(const at::Tensor& x, const AutoencoderOptions& options = {}) const;

  struct Traits {
    int64_t latent_channels = 4;
    int64_t spatial_factor = 8;
  };
  // From the config alone. Throws Failure(kInvalidModel).
  static Traits traits_of(const weights::Config& config);

  int64_t latent_channels() const;
  int64_t spatial_factor() const;  // 2^(blocks-1), 8 for every known checkpoint
  double scaling_factor() const;
  double shift_factor() const;         // 0 when the config has none
  bool force_upcast() const;           // decode in float32 (never plain float16)
  int64_t tile_sample_size() const;    // side in pixels of a tile when tiling
  int64_t full_size_channels() const;  // widest activation of the decoder at full picture size
  const std::optional<std::vector<double>>& latents_mean() const;
  const std::optional<std::vector<double>>& latents_std() const;

 private:
  struct Network;
  std::unique_ptr<const Network> network_;
};

}  // namespace limner::engine::models
