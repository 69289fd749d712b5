// A picture in overlapping tiles, each computed alone and blended into its neighbours above and to
// the left: memory stays that of one tile. The arithmetic is that of diffusers' AutoencoderKL
// (tiled_decode, _tiled_encode).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

namespace limner::engine::models {

struct Tiling {
  int64_t tile_in = 0;   // side of a tile of the input
  int64_t tile_out = 0;  // side of what becomes of a whole one
  double overlap = 0.25;

  // Whether x [B, C, H, W] is larger than one tile.
  bool needed(const at::Tensor& x) const;
};

// Applies `one` to every tile of x [B, C, H, W]. Throws Failure(kUnsupported) where the tile is too
// small to overlap.
at::Tensor tiled(const at::Tensor& x, const Tiling& tiling,
                 const std::function<at::Tensor(const at::Tensor&)>& one);

}  // namespace limner::engine::models
