#include "engine/samplers/settings.h"

#include <algorithm>
#include <array>
#include <utility>

namespace limner::engine::samplers {
namespace {

using weights::Config;

// The value of `key` as one of `choices`.
template <typename T, std::size_t N>
T choice(const Config& config, std::string_view key, T fallback,
         const std::array<std::pair<std::string_view, T>, N>& choices) {
  if (!config.has(key)) return fallback;
  const std::string text = config.text(key, "");
  std::string wanted;
  for (const auto& [word, value] : choices) {
    if (word == text) return value;
    wanted += (wanted.empty() ? "" : ", ") + std::string(word);
  }
  config.fail(key, "want one of " + wanted + ", got '" + text + "'");
}

int integer(const Config& config, std::string_view key, int fallback, int lowest, int highest) {
  return static_cast<int>(config.integer_in(key, fallback, lowest, highest));
}

void read_noise_schedule(const Config& config, Settings& s) {
  s.num_train_timesteps = integer(config, "num_train_timesteps", s.num_train_timesteps, 1, 100000);
  s.beta_start = config.number("beta_start", s.beta_start);
  s.beta_end = config.number("beta_end", s.beta_end);
  s.beta_schedule = config.text("beta_schedule", s.beta_schedule);
  s.trained_betas = config.numbers("trained_betas", {});
  if (!s.trained_betas.empty() &&
      s.trained_betas.size() != static_cast<std::size_t>(s.num_train_timesteps)) {
    config.fail("trained_betas",
                "want num_train_timesteps = " + std::to_string(s.num_train_timesteps) +
                    " values, got " + std::to_string(s.trained_betas.size()));
  }
  const auto is_beta = [](double beta) { return beta >= 0.0 && beta < 1.0; };
  if (!is_beta(s.beta_start)) config.fail("beta_start", "want a number from 0 to 1");
  if (!is_beta(s.beta_end)) config.fail("beta_end", "want a number from 0 to 1");
  if (!std::all_of(s.trained_betas.begin(), s.trained_betas.end(), is_beta)) {
    config.fail("trained_betas", "want numbers from 0 to 1");
  }
  s.rescale_betas_zero_snr = config.boolean("rescale_betas_zero_snr", s.rescale_betas_zero_snr);
}

void read_curve(const Config& config, Settings& s) {
  s.spacing = choice<Spacing, 3>(config, "timestep_spacing", s.spacing,
                                 {{{"linspace", Spacing::kLinspace},
                                   {"leading", Spacing::kLeading},
                                   {"trailing", Spacing::kTrailing}}});
  s.steps_offset = integer(config, "steps_offset", s.steps_offset, 0, 1000);
  const std::array<std::pair<std::string_view, Curve>, 5> flags = {
      {{"use_karras_sigmas", Curve::kKarras},
       {"use_lu_lambdas", Curve::kLu},
       {"use_exponential_sigmas", Curve::kExponential},
       {"use_beta_sigmas", Curve::kBeta},
       {"use_flow_sigmas", Curve::kFlow}}};
  int curves = 0;
  for (const auto& [key, curve] : flags) {
    if (!config.boolean(key, false)) continue;
    ++curves;
    s.curve = curve;
    if (curves > 1) config.fail(key, "want at most one of the use_*_sigmas flags");
  }
  if (config.has("sigma_min")) s.sigma_min = config.number("sigma_min", 0.0);
  if (config.has("sigma_max")) s.sigma_max = config.number("sigma_max", 0.0);
  s.interpolation_type =
      choice<std::string, 2>(config, "interpolation_type", s.interpolation_type,
                             {{{"linear", "linear"}, {"log_linear", "log_linear"}}});
  s.timestep_type =
      choice<std::string, 2>(config, "timestep_type", s.timestep_type,
                             {{{"discrete", "discrete"}, {"continuous", "continuous"}}});
  s.final_sigma_zero = choice<bool, 2>(config, "final_sigmas_type", s.final_sigma_zero,
                                       {{{"zero", true}, {"sigma_min", false}}});
}

void read_step(const Config& config, Settings& s) {
  s.prediction = choice<Prediction, 5>(config, "prediction_type", s.prediction,
                                       {{{"epsilon", Prediction::kEpsilon},
                                         {"v_prediction", Prediction::kVelocity},
                                         {"sample", Prediction::kSample},
                                         {"original_sample", Prediction::kSample},
                                         {"flow_prediction", Prediction::kFlow}}});
  s.set_alpha_to_one = config.boolean("set_alpha_to_one", s.set_alpha_to_one);
  s.clip_sample = config.boolean("clip_sample", s.clip_sample);
  s.clip_sample_range = config.number("clip_sample_range", s.clip_sample_range);
  s.thresholding = config.boolean("thresholding", s.thresholding);
  s.dynamic_thresholding_ratio =
      config.number("dynamic_thresholding_ratio", s.dynamic_thresholding_ratio);
  if (!(s.dynamic_thresholding_ratio >= 0.0 && s.dynamic_thresholding_ratio <= 1.0)) {
    config.fail("dynamic_thresholding_ratio", "want a number from 0 to 1");
  }
  s.sample_max_value = config.number("sample_max_value", s.sample_max_value);
  s.variance_type = config.text("variance_type", s.variance_type);
}

void read_solver(const Config& config, Settings& s) {
  s.solver_order = integer(config, "solver_order", s.solver_order, 1, 3);
  s.algorithm_type = config.text("algorithm_type", s.algorithm_type);
  s.solver_type = choice<std::string, 5>(config, "solver_type", s.solver_type,
                                         {{{"midpoint", "midpoint"},
                                           {"heun", "heun"},
                                           {"logrho", "logrho"},
                                           {"bh1", "bh1"},
                                           {"bh2", "bh2"}}});
  s.lower_order_final = config.boolean("lower_order_final", s.lower_order_final);
  s.euler_at_final = config.boolean("euler_at_final", s.euler_at_final);
  // Python's json writes the default as -Infinity, which is not JSON; some tools make it text.
  if (!(config.raw("lambda_min_clipped").is_string())) {
    s.lambda_min_clipped = config.number("lambda_min_clipped", s.lambda_min_clipped);
  }
  s.predict_x0 = config.boolean("predict_x0", s.predict_x0);
  s.disable_corrector = config.integers("disable_corrector", s.disable_corrector);
  s.skip_prk_steps = config.boolean("skip_prk_steps", s.skip_prk_steps);
  s.original_inference_steps =
      integer(config, "original_inference_steps", s.original_inference_steps, 1, 100000);
  s.timestep_scaling = config.number("timestep_scaling", s.timestep_scaling);
}

void read_flow(const Config& config, Settings& s) {
  s.shift = config.number("shift", s.shift);
  s.flow_shift = config.number("flow_shift", s.flow_shift);
  if (!(s.shift > 0.0)) config.fail("shift", "want a number above 0");
  if (!(s.flow_shift > 0.0)) config.fail("flow_shift", "want a number above 0");
  s.use_dynamic_shifting = config.boolean("use_dynamic_shifting", s.use_dynamic_shifting);
  s.base_shift = config.number("base_shift", s.base_shift);
  s.max_shift = config.number("max_shift", s.max_shift);
  s.base_image_seq_len = integer(config, "base_image_seq_len", s.base_image_seq_len, 0, 1 << 30);
  s.max_image_seq_len = integer(config, "max_image_seq_len", s.max_image_seq_len, 0, 1 << 30);
  if (s.max_image_seq_len <= s.base_image_seq_len) {
    config.fail("max_image_seq_len", "want more than base_image_seq_len");
  }
  s.invert_sigmas = config.boolean("invert_sigmas", s.invert_sigmas);
  s.shift_terminal = config.number("shift_terminal", s.shift_terminal);
  if (!(s.shift_terminal >= 0.0 && s.shift_terminal < 1.0)) {
    config.fail("shift_terminal", "want a number from 0 to 1");
  }
  s.time_shift_type =
      choice<std::string, 2>(config, "time_shift_type", s.time_shift_type,
                             {{{"exponential", "exponential"}, {"linear", "linear"}}});
  s.stochastic_sampling = config.boolean("stochastic_sampling", s.stochastic_sampling);
}

}  // namespace

Settings read_settings(const weights::Config& config, Settings defaults) {
  read_noise_schedule(config, defaults);
  read_curve(config, defaults);
  read_step(config, defaults);
  read_solver(config, defaults);
  read_flow(config, defaults);
  config.only("solver_p", nullptr);
  // `skip_prk_steps` and the like are read above; these belong to training or to the caller.
  config.ignore({"noise_sampler_seed", "eta", "name", "version"});
  config.finish();
  return defaults;
}

std::string_view name(Prediction prediction) {
  switch (prediction) {
    case Prediction::kEpsilon:
      return "epsilon";
    case Prediction::kVelocity:
      return "v_prediction";
    case Prediction::kSample:
      return "sample";
    case Prediction::kFlow:
      return "flow_prediction";
  }
  return "";
}

}  // namespace limner::engine::samplers
