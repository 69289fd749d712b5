// Settings: a checkpoint's scheduler_config.json as the samplers read it.
#pragma once

#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "engine/weights/config.h"

namespace limner::engine::samplers {

enum class Prediction { kEpsilon, kVelocity, kSample, kFlow };
enum class Spacing { kLinspace, kLeading, kTrailing };
// How sigmas lie between the largest and the smallest one; kPlain is the training schedule itself.
enum class Curve { kPlain, kKarras, kExponential, kBeta, kLu, kFlow };

// Names are those of the JSON keys; the values here are the most common defaults of the diffusers
// classes, and a row of the registry changes what its class has otherwise.
struct Settings {
  int num_train_timesteps = 1000;
  double beta_start = 0.0001;
  double beta_end = 0.02;
  std::string beta_schedule = "linear";
  std::vector<double> trained_betas;
  bool rescale_betas_zero_snr = false;

  Prediction prediction = Prediction::kEpsilon;
  Spacing spacing = Spacing::kLinspace;
  int steps_offset = 0;
  Curve curve = Curve::kPlain;
  std::optional<double> sigma_min;
  std::optional<double> sigma_max;
  std::string interpolation_type = "linear";
  std::string timestep_type = "discrete";
  bool final_sigma_zero = true;  // final_sigmas_type: "zero", else "sigma_min"

  bool set_alpha_to_one = true;
  bool clip_sample = false;
  double clip_sample_range = 1.0;
  bool thresholding = false;
  double dynamic_thresholding_ratio = 0.995;
  double sample_max_value = 1.0;
  std::string variance_type;

  int solver_order = 2;
  std::string algorithm_type = "dpmsolver++";
  std::string solver_type = "midpoint";
  bool lower_order_final = true;
  bool euler_at_final = false;
  double lambda_min_clipped = -std::numeric_limits<double>::infinity();
  bool predict_x0 = true;
  std::vector<std::int64_t> disable_corrector;
  bool skip_prk_steps = false;
  int original_inference_steps = 50;
  double timestep_scaling = 10.0;

  // Flow matching. `shift` is `shift` of FlowMatchEuler, or `flow_shift` of the solvers with
  // `use_flow_sigmas`.
  double shift = 1.0;
  double flow_shift = 1.0;
  bool use_dynamic_shifting = false;
  double base_shift = 0.5;
  double max_shift = 1.15;
  int base_image_seq_len = 256;
  int max_image_seq_len = 4096;
  bool invert_sigmas = false;
  double shift_terminal = 0.0;  // 0: none
  std::string time_shift_type = "exponential";
  bool stochastic_sampling = false;
};

// Reads every key that any sampler knows over `defaults`; a key that no diffusers scheduler of
// these families has is an error (Failure kInvalidModel naming it), as are values outside their
// lists.
Settings read_settings(const weights::Config& config, Settings defaults);

std::string_view name(Prediction prediction);

}  // namespace limner::engine::samplers
