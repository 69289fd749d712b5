#include "engine/pipelines/dump.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <functional>

#include "engine/pipelines/denoiser.h"
#include "engine/weights/safetensors.h"

namespace limner::engine::pipelines {
namespace {

class DumpFile {
 public:
  void add(std::string name, const at::Tensor& tensor) {
    if (!tensor.defined()) return;
    const at::Tensor kept = tensor.to(at::kCPU, at::kFloat).contiguous();
    tensors_.push_back(kept);
    entries_.push_back({std::move(name),
                        weights::DType::kF32,
                        kept.sizes().vec(),
                        {static_cast<const std::byte*>(kept.const_data_ptr()), kept.nbytes()}});
  }

  Result<void> write(const std::filesystem::path& file) {
    return weights::write_safetensors(file, std::move(entries_));
  }

 private:
  std::vector<at::Tensor> tensors_;  // keep the bytes alive until they are written
  std::vector<weights::TensorToWrite> entries_;
};

}  // namespace

Result<void> write_dump(const Pipeline& pipeline, std::span<const PictureState* const> pictures,
                        const std::filesystem::path& file) {
  if (pictures.empty()) return Error{ErrorCode::kInvalidArgument, "no pictures to dump"};
  const PictureState& first = *pictures.front();
  for (const PictureState* picture : pictures) {
    if (!picture->trace || picture->trace->latents.size() != first.sampler->timesteps().size()) {
      return Error{ErrorCode::kInvalidArgument,
                   "only finished pictures with a trace can be dumped"};
    }
  }
  const auto stack = [&](const std::function<at::Tensor(const PictureState&)>& pick) {
    std::vector<at::Tensor> rows;
    for (const PictureState* picture : pictures) rows.push_back(pick(*picture));
    return rows.front().defined() ? at::cat(rows) : at::Tensor();
  };

  DumpFile dump;
  // Of the first step; the sides of an AND below each other.
  const auto first_step = [&](auto tensor) {
    return stack([&](const PictureState& picture) {
      std::vector<at::Tensor> sides;
      for (const WeightedConditioning& side : picture.prompt->conjuncts) {
        sides.push_back((*side.schedule.front().conditioning).*tensor);
      }
      return sides.front().defined() ? at::cat(sides) : at::Tensor();
    });
  };
  const auto negative = [&](auto tensor) {
    return stack([&](const auto& p) { return (*p.prompt->negative.front().conditioning).*tensor; });
  };
  dump.add("prompt_embeds", first_step(&Conditioning::prompt_embeds));
  dump.add("pooled_prompt_embeds", first_step(&Conditioning::pooled_prompt_embeds));
  if (is_guided(pipeline, first)) {
    dump.add("negative_prompt_embeds", negative(&Conditioning::prompt_embeds));
    dump.add("negative_pooled_prompt_embeds", negative(&Conditioning::pooled_prompt_embeds));
  }
  dump.add("timesteps", at::tensor(first.sampler->timesteps(), at::kDouble));
  if (!first.sampler->sigmas().empty()) {
    dump.add("sigmas", at::tensor(first.sampler->sigmas(), at::kDouble));
  }
  dump.add("latents.initial", stack([](const auto& p) { return p.trace->initial; }));
  for (std::size_t i = 0; i < first.trace->latents.size(); ++i) {
    dump.add(fmt::format("noise_pred.{:03}", i),
             stack([i](const auto& p) { return p.trace->noise_pred[i]; }));
    dump.add(fmt::format("latents.{:03}", i),
             stack([i](const auto& p) { return p.trace->latents[i]; }));
  }
  dump.add("latents.final", stack([](const auto& p) { return p.latents; }));
  dump.add("image", stack([](const auto& p) { return p.trace->image; }));
  return dump.write(file);
}

}  // namespace limner::engine::pipelines
