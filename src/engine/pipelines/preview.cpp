#include "engine/pipelines/preview.h"

#include <ATen/ATen.h>

#include <cstring>

#include "engine/samplers/noise.h"

namespace limner::engine::pipelines {

PreviewMap::PreviewMap(const Pipeline& pipeline, at::Device device) {
  const std::int64_t channels = pipeline.traits().latent_channels,
                     factor = pipeline.traits().spatial_factor;
  constexpr std::int64_t kPatches = 8, kPatchSide = 4, kSide = kPatches * kPatchSide;
  samplers::Noise noise(0);
  // Flat patches: within one, a pixel's colour depends on little but its own latent.
  const at::Tensor latents = noise.normal({1, channels, kPatches, kPatches})
                                 .repeat_interleave(kPatchSide, 2)
                                 .repeat_interleave(kPatchSide, 3)
                                 .to(device);  // [1, C, 32, 32]
  const at::Tensor colours =
      at::avg_pool2d(pipeline.decode(latents, false), {factor, factor}).to(at::kCPU);
  const at::Tensor inputs = latents.to(at::kCPU).view({channels, kSide * kSide}).t();  // [N, C]
  const at::Tensor design = at::cat({inputs, at::ones({kSide * kSide, 1})}, 1).to(at::kDouble);
  const at::Tensor targets = colours.view({3, kSide * kSide}).t().to(at::kDouble);  // [N, 3]
  const at::Tensor normal = design.t().mm(design) + 1e-6 * at::eye(channels + 1, at::kDouble);
  map_ = at::linalg_solve(normal, design.t().mm(targets)).to(at::kFloat);
}

image::Bitmap PreviewMap::draw(const at::Tensor& latents) const {
  const at::Tensor pixels = latents.to(at::kCPU).squeeze(0).permute({1, 2, 0});  // [h, w, C]
  const std::int64_t channels = pixels.size(2);
  const at::Tensor colours =
      pixels.matmul(map_.narrow(0, 0, channels)) + map_[channels];  // [h, w, 3]
  return to_bitmap(colours.permute({2, 0, 1}).unsqueeze(0));
}

image::Bitmap to_bitmap(const at::Tensor& image) {
  const at::Tensor bytes = (image.to(at::kCPU) * 0.5 + 0.5)
                               .clamp(0.0, 1.0)
                               .mul(255.0)
                               .round()
                               .to(at::kByte)
                               .squeeze(0)
                               .permute({1, 2, 0})
                               .contiguous();  // [H, W, 3]
  image::Bitmap bitmap{.width = bytes.size(1), .height = bytes.size(0), .pixels = {}};
  bitmap.pixels.resize(static_cast<std::size_t>(bytes.numel()));
  std::memcpy(bitmap.pixels.data(), bytes.const_data_ptr<std::uint8_t>(), bitmap.pixels.size());
  return bitmap;
}

}  // namespace limner::engine::pipelines
