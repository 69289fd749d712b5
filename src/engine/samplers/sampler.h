// Sampler: the rule that takes latents from one noise level to the next. It knows its sigmas and
// its own history, never a model.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/samplers/noise.h"

namespace limner::engine::samplers {

// What a step needs to remember from the steps before; plain data, so that a picture can be written
// to bytes between steps. Its meaning belongs to the sampler that wrote it.
struct History {
  std::size_t position = 0;         // model calls taken so far
  std::int64_t counter = 0;         // e.g. lower-order steps taken
  std::vector<at::Tensor> tensors;  // earlier model outputs or samples; entries may be undefined
};

// One object per picture, owned by one thread at a time.
class Sampler {
 public:
  virtual ~Sampler() = default;

  // One entry per model call, equal to diffusers' `scheduler.timesteps`.
  const std::vector<double>& timesteps() const { return timesteps_; }
  // Equal to diffusers' `scheduler.sigmas`; empty for samplers that have none (ddim, ddpm, pndm,
  // lcm, tcd).
  const std::vector<double>& sigmas() const { return sigmas_; }
  // The first noise is multiplied by this.
  double init_noise_sigma() const { return init_noise_sigma_; }

  bool done() const { return history_.position >= timesteps_.size(); }
  double timestep() const { return timesteps_[history_.position]; }

  // What the model reads at the current position (diffusers' scale_model_input). Does not change
  // the sampler.
  virtual at::Tensor model_input(const at::Tensor& sample) const { return sample; }

  // The clean `sample` as it would look before model call `position` (0 .. timesteps().size() - 1):
  // where a picture that starts from an image begins. Continue with `restore({.position =
  // position})`.
  virtual at::Tensor add_noise(const at::Tensor& sample, const at::Tensor& noise,
                               std::size_t position) const = 0;

  // The sample after the current model call; advances the position. `model_output` and `sample` are
  // float32 of one shape; the answer is a new float32 tensor. Ancestral samplers draw from `noise`
  // as diffusers does.
  at::Tensor step(const at::Tensor& model_output, const at::Tensor& sample, Noise& noise);

  const History& history() const { return history_; }
  // Continues from a history this sampler wrote, or from `position` alone with nothing remembered.
  // Samplers with two model calls per step (heun, kdpm2, kdpm2_a) can start only at an even
  // position.
  void restore(History history) { history_ = std::move(history); }

 protected:
  virtual at::Tensor advance(const at::Tensor& model_output, const at::Tensor& sample,
                             Noise& noise) = 0;

  std::vector<double> timesteps_;
  std::vector<double> sigmas_;
  double init_noise_sigma_ = 1.0;
  History history_;
};

// What the caller asks for; the rest comes from the checkpoint's scheduler config.
struct SamplerRequest {
  std::string name;  // "euler", ...; empty: what the checkpoint's `_class_name` says
  std::string schedule =
      "default";  // default (the checkpoint's own flags), karras, exponential, beta, lu, ...
  int steps = 20;
  double eta = 0.0;  // ddim and tcd: share of fresh noise per step, 0..1
  std::int64_t image_tokens =
      0;  // for dynamic flow shift: number of latent tokens; 0 where it does not matter
  std::vector<double> sigmas;  // explicit sigmas (flow families), empty: computed
  std::vector<double>
      timesteps;  // explicit timesteps (tests, distilled checkpoints), empty: computed
};

}  // namespace limner::engine::samplers
