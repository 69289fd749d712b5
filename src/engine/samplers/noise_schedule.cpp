#include "engine/samplers/noise_schedule.h"

#include <ATen/ATen.h>

#include <cmath>
#include <numbers>

#include "base/check.h"
#include "base/error.h"

namespace limner::engine::samplers {
namespace {

constexpr auto kFloat = at::kFloat;

// Cosine schedule of "Improved Denoising Diffusion Probabilistic Models" (Nichol, Dhariwal),
// eq. 17.
at::Tensor cosine_betas(int count) {
  const auto alpha_bar = [](double t) {
    const double c = std::cos((t + 0.008) / 1.008 * std::numbers::pi / 2.0);
    return c * c;
  };
  std::vector<float> betas;
  for (int i = 0; i < count; ++i) {
    const double from = alpha_bar(static_cast<double>(i) / count);
    const double to = alpha_bar(static_cast<double>(i + 1) / count);
    betas.push_back(static_cast<float>(std::min(1.0 - to / from, 0.999)));
  }
  return at::tensor(betas, kFloat);
}

at::Tensor make_betas(const Settings& s) {
  if (!s.trained_betas.empty()) return at::tensor(s.trained_betas, at::kDouble).to(kFloat);
  if (s.beta_schedule == "linear") {
    return at::linspace(s.beta_start, s.beta_end, s.num_train_timesteps, kFloat);
  }
  if (s.beta_schedule == "scaled_linear") {
    return at::linspace(std::sqrt(s.beta_start), std::sqrt(s.beta_end), s.num_train_timesteps,
                        kFloat)
        .square();
  }
  if (s.beta_schedule == "squaredcos_cap_v2") return cosine_betas(s.num_train_timesteps);
  throw Failure(ErrorCode::kInvalidModel,
                "[sampler] want beta_schedule linear, scaled_linear or squaredcos_cap_v2, got '" +
                    s.beta_schedule + "'");
}

// Algorithm 1 of "Common Diffusion Noise Schedules and Sample Steps are Flawed" (Lin et al.).
at::Tensor rescale_to_zero_terminal_snr(const at::Tensor& betas) {
  at::Tensor root = (1.0 - betas).cumprod(0).sqrt();
  const at::Tensor first = root[0].clone();
  const at::Tensor last = root[-1].clone();
  root = (root - last) * (first / (first - last));
  const at::Tensor bar = root.square();
  const at::Tensor alphas = at::cat({bar.slice(0, 0, 1), bar.slice(0, 1) / bar.slice(0, 0, -1)});
  return 1.0 - alphas;
}

std::vector<double> to_doubles(const at::Tensor& values) {
  const at::Tensor wide = values.to(at::kDouble).contiguous();
  return {wide.const_data_ptr<double>(), wide.const_data_ptr<double>() + wide.numel()};
}

}  // namespace

double NoiseSchedule::alpha(std::int64_t timestep) const {
  LIMNER_CHECK(timestep >= 0 && timestep < static_cast<std::int64_t>(alphas_cumprod.size()),
               "timestep outside the training schedule");
  return alphas_cumprod[static_cast<std::size_t>(timestep)];
}

NoiseSchedule make_noise_schedule(const Settings& settings, bool finite_sigmas) {
  at::Tensor betas = make_betas(settings);
  if (settings.rescale_betas_zero_snr) betas = rescale_to_zero_terminal_snr(betas);
  at::Tensor alphas = (1.0 - betas).cumprod(0);
  if (settings.rescale_betas_zero_snr && finite_sigmas) alphas[-1] = std::exp2(-24.0);
  const at::Tensor sigmas = ((1.0 - alphas) / alphas).sqrt();
  return {to_doubles(alphas), to_doubles(sigmas), to_doubles(sigmas.log())};
}

}  // namespace limner::engine::samplers
