#include "engine/models/vae_tiling.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"

namespace limner::engine::models {
namespace {

// Fades the first `extent` lines of `to` (along `axis`) in from the last ones of `from`, in place.
void blend(const at::Tensor& from, const at::Tensor& to, int64_t axis, int64_t extent) {
  extent = std::min({from.size(axis), to.size(axis), extent});
  if (extent == 0) return;
  std::vector<int64_t> shape(4, 1);
  shape[static_cast<std::size_t>(axis)] = extent;
  const at::Tensor ramp =
      at::arange(extent, at::kDouble).div_(static_cast<double>(extent)).view(shape);
  const at::Tensor fade_in = ramp.to(to.device(), at::kFloat),
                   fade_out = (1 - ramp).to(to.device(), at::kFloat);
  const at::Tensor edge = to.narrow(axis, 0, extent);
  edge.copy_(from.narrow(axis, from.size(axis) - extent, extent) * fade_out + edge * fade_in);
}

at::Tensor crop(const at::Tensor& tile, int64_t limit) {
  return tile.narrow(2, 0, std::min(limit, tile.size(2)))
      .narrow(3, 0, std::min(limit, tile.size(3)));
}

}  // namespace

bool Tiling::needed(const at::Tensor& x) const {
  return x.size(2) > tile_in || x.size(3) > tile_in;
}

at::Tensor tiled(const at::Tensor& x, const Tiling& tiling,
                 const std::function<at::Tensor(const at::Tensor&)>& one) {
  const auto step =
      static_cast<int64_t>(static_cast<double>(tiling.tile_in) * (1 - tiling.overlap));
  const auto extent = static_cast<int64_t>(static_cast<double>(tiling.tile_out) * tiling.overlap);
  const int64_t limit = tiling.tile_out - extent;
  if (step < 1 || limit < 1) {
    throw Failure(ErrorCode::kUnsupported, "[vae] tiles of " + std::to_string(tiling.tile_in) +
                                               " are too small to overlap: decode without tiling");
  }

  std::vector<at::Tensor> above, rows;
  for (int64_t y = 0; y < x.size(2); y += step) {
    const at::Tensor band = x.narrow(2, y, std::min(tiling.tile_in, x.size(2) - y));
    std::vector<at::Tensor> row, cropped;
    for (int64_t left = 0; left < x.size(3); left += step) {
      const std::size_t column = row.size();
      const at::Tensor tile = one(band.narrow(3, left, std::min(tiling.tile_in, x.size(3) - left)));
      if (!above.empty()) blend(above[column], tile, 2, extent);
      if (column > 0) blend(row[column - 1], tile, 3, extent);
      cropped.push_back(crop(tile, limit));
      row.push_back(tile);
    }
    rows.push_back(at::cat(cropped, 3));
    above = std::move(row);
  }
  return at::cat(rows, 2);
}

}  // namespace limner::engine::models
