#include "engine/samplers/registry.h"

#include <algorithm>
#include <cmath>

#include "base/suggest.h"
#include "engine/samplers/factories.h"
#include "engine/samplers/settings.h"

namespace limner::engine::samplers {
namespace {

// What a sampler can take beyond a plain step count.
enum Ability : unsigned {
  kSpacing = 1u << 0,
  kCurves = 1u << 1,  // karras, exponential, beta
  kLu = 1u << 2,
  kFlowCurve = 1u << 3,
  kRescale = 1u << 4,  // rescale_betas_zero_snr
  kEpsilon = 1u << 5,
  kVelocity = 1u << 6,
  kSample = 1u << 7,
  kTimesteps = 1u << 8,  // explicit ones
  kSigmas = 1u << 9,
  kFlowOnly = 1u << 10,  // has no noise schedule but flow sigmas
};
constexpr unsigned kTwoPredictions = kEpsilon | kVelocity;
constexpr unsigned kThreePredictions = kTwoPredictions | kSample;
constexpr unsigned kSolver = kCurves | kFlowCurve | kThreePredictions;

struct Row {
  SamplerInfo info;
  unsigned abilities;
  SamplerPtr (*make)(const Settings&, const SamplerRequest&);
  void (*defaults)(Settings&);  // where the diffusers class has other defaults than Settings
};

void common(Settings&) {}
void latent_betas(Settings& s) {
  s.beta_start = 0.00085;
  s.beta_end = 0.012;
}
void leading_clipped(Settings& s) {
  s.spacing = Spacing::kLeading;
  s.clip_sample = true;
}
void leading_pndm(Settings& s) {
  s.spacing = Spacing::kLeading;
  s.set_alpha_to_one = false;
}
void distilled(Settings& s) {
  latent_betas(s);
  s.beta_schedule = "scaled_linear";
  s.spacing = Spacing::kLeading;
}
void unipc(Settings& s) {
  s.solver_type = "bh2";
}
void deis(Settings& s) {
  s.solver_type = "logrho";
}
void singlestep(Settings& s) {
  s.lower_order_final = false;
}

const std::vector<Row>& rows() {
  static const std::vector<Row> kRows = {
      {{"euler", "Euler", "EulerDiscreteScheduler", false},
       kSpacing | kCurves | kRescale | kThreePredictions | kTimesteps | kSigmas,
       make_euler,
       common},
      {{"euler_a", "Euler ancestral", "EulerAncestralDiscreteScheduler", true},
       kSpacing | kRescale | kTwoPredictions,
       make_euler_ancestral,
       common},
      {{"ddim", "DDIM", "DDIMScheduler", false},
       kSpacing | kRescale | kThreePredictions,
       make_ddim,
       leading_clipped},
      {{"ddpm", "DDPM", "DDPMScheduler", true},
       kSpacing | kRescale | kThreePredictions | kTimesteps,
       make_ddpm,
       leading_clipped},
      {{"dpmpp_2m", "DPM++ 2M", "DPMSolverMultistepScheduler", false},
       kSpacing | kLu | kRescale | kTimesteps | kSolver,
       make_dpm_solver_multistep,
       common},
      {{"dpmpp_2m_sde", "DPM++ 2M SDE", "DPMSolverMultistepScheduler", true},
       kSpacing | kLu | kRescale | kTimesteps | kSolver,
       make_dpm_solver_multistep,
       common},
      {{"dpmpp_2s", "DPM++ 2S", "DPMSolverSinglestepScheduler", false},
       kTimesteps | kSolver,
       make_dpm_solver_singlestep,
       singlestep},
      {{"heun", "Heun", "HeunDiscreteScheduler", false},
       kSpacing | kCurves | kThreePredictions,
       make_heun,
       latent_betas},
      {{"lms", "LMS", "LMSDiscreteScheduler", false},
       kSpacing | kCurves | kThreePredictions,
       make_lms,
       common},
      {{"pndm", "PNDM", "PNDMScheduler", false},
       kSpacing | kTwoPredictions,
       make_pndm,
       leading_pndm},
      {{"unipc", "UniPC", "UniPCMultistepScheduler", false},
       kSpacing | kRescale | kSigmas | kSolver,
       make_unipc,
       unipc},
      {{"deis", "DEIS", "DEISMultistepScheduler", false}, kSpacing | kSolver, make_deis, deis},
      {{"lcm", "LCM", "LCMScheduler", true},
       kRescale | kThreePredictions | kTimesteps,
       make_lcm,
       distilled},
      {{"tcd", "TCD", "TCDScheduler", true},
       kRescale | kThreePredictions | kTimesteps,
       make_tcd,
       distilled},
      {{"kdpm2", "KDPM2", "KDPM2DiscreteScheduler", false},
       kSpacing | kCurves | kTwoPredictions,
       make_kdpm2,
       latent_betas},
      {{"kdpm2_a", "KDPM2 ancestral", "KDPM2AncestralDiscreteScheduler", true},
       kSpacing | kCurves | kTwoPredictions,
       make_kdpm2_ancestral,
       latent_betas},
      {{"flow_euler", "Flow Euler", "FlowMatchEulerDiscreteScheduler", false},
       kCurves | kTimesteps | kSigmas | kFlowOnly,
       make_flow_match_euler,
       common},
  };
  return kRows;
}

[[noreturn]] void refuse(std::string message) {
  throw Failure(ErrorCode::kInvalidArgument, "[sampler] " + std::move(message));
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

std::vector<std::string> names() {
  std::vector<std::string> result;
  for (const Row& row : rows()) result.push_back(row.info.name);
  return result;
}

const Row& row_of_name(const std::string& name) {
  for (const Row& row : rows()) {
    if (row.info.name == name) return row;
  }
  refuse("unknown sampler '" + name + "'" + did_you_mean(name, names()) + "; there are " +
         joined(names()));
}

// The checkpoint's own sampler.
const Row& row_of_config(const std::string& class_name, const Settings& settings) {
  const bool stochastic = settings.algorithm_type.starts_with("sde-");
  for (const Row& row : rows()) {
    if (row.info.class_name != class_name) continue;
    if (row.info.name == "dpmpp_2m" && stochastic) return row_of_name("dpmpp_2m_sde");
    return row;
  }
  throw Failure(ErrorCode::kInvalidModel,
                "[sampler] scheduler_config.json: _class_name '" + class_name +
                    "' is not supported; name a sampler: " + joined(names()));
}

struct ScheduleWord {
  const char* name;
  unsigned needs;
  Curve curve;
  Spacing spacing;  // of the words that need kSpacing
};
constexpr ScheduleWord kSchedules[] = {
    {"default", 0, Curve::kPlain, Spacing::kLinspace},
    {"karras", kCurves, Curve::kKarras, Spacing::kLinspace},
    {"exponential", kCurves, Curve::kExponential, Spacing::kLinspace},
    {"beta", kCurves, Curve::kBeta, Spacing::kLinspace},
    {"lu", kLu, Curve::kLu, Spacing::kLinspace},
    {"leading", kSpacing, Curve::kPlain, Spacing::kLeading},
    {"trailing", kSpacing, Curve::kPlain, Spacing::kTrailing},
    {"linspace", kSpacing, Curve::kPlain, Spacing::kLinspace},
    {"sgm_uniform", kSpacing, Curve::kPlain, Spacing::kTrailing},
};

bool can_take(const Row& row, const ScheduleWord& word) {
  return (row.abilities & word.needs) == word.needs;
}

bool knows(const Row& row, Curve curve) {
  switch (curve) {
    case Curve::kPlain:
      return true;
    case Curve::kLu:
      return (row.abilities & kLu) != 0;
    case Curve::kFlow:
      return (row.abilities & kFlowCurve) != 0;
    default:
      return (row.abilities & kCurves) != 0;
  }
}

void apply_schedule(const Row& row, const std::string& schedule, Settings& settings) {
  // A flag of another class means nothing here, as when a checkpoint's config is given to this
  // class.
  if (!knows(row, settings.curve)) settings.curve = Curve::kPlain;
  if (schedule.empty() || schedule == "default") return;
  for (const ScheduleWord& word : kSchedules) {
    if (schedule != word.name) continue;
    if (!can_take(row, word)) {
      std::vector<std::string> able;
      for (const Row& other : rows()) {
        if (can_take(other, word)) able.push_back(other.info.name);
      }
      std::vector<std::string> own;
      for (const ScheduleWord& other : kSchedules) {
        if (can_take(row, other)) own.push_back(other.name);
      }
      refuse("sampler '" + row.info.name + "' cannot take schedule '" + schedule + "'; it takes " +
             joined(own) + "; samplers that take '" + schedule + "': " + joined(able));
    }
    if (settings.curve == Curve::kFlow) {
      refuse("schedule '" + schedule + "' does not fit a flow model (use_flow_sigmas)");
    }
    settings.curve = word.curve;
    if (word.needs == kSpacing) settings.spacing = word.spacing;
    return;
  }
  refuse("unknown schedule '" + schedule + "'" + did_you_mean(schedule, all_schedules()) +
         "; there are " + joined(all_schedules()));
}

bool predicts(const Row& row, Prediction prediction) {
  switch (prediction) {
    case Prediction::kEpsilon:
      return (row.abilities & kEpsilon) != 0;
    case Prediction::kVelocity:
      return (row.abilities & kVelocity) != 0;
    case Prediction::kSample:
      return (row.abilities & kSample) != 0;
    case Prediction::kFlow:
      return (row.abilities & kFlowCurve) != 0;
  }
  return false;
}

// A flow model's output means nothing to a sampler of noise predictions, and the other way round.
void check_model_kind(const Row& row, const std::string& class_name, const Settings& settings) {
  const bool flow_model =
      class_name.starts_with("FlowMatch") || settings.prediction == Prediction::kFlow;
  const bool flow_row = (row.abilities & kFlowOnly) != 0;
  if (class_name.starts_with("FlowMatch") && !flow_row) {
    refuse("sampler '" + row.info.name + "' does not fit this flow model; it wants flow_euler");
  }
  if (flow_row) {
    if (flow_model || class_name.empty()) return;
    refuse("sampler '" + row.info.name + "' wants a flow model; this one is made for " +
           class_name);
  }
  if (settings.prediction == Prediction::kFlow) {
    if (settings.curve != Curve::kFlow) {
      throw Failure(ErrorCode::kInvalidModel,
                    "[sampler] prediction_type 'flow_prediction' wants use_flow_sigmas true");
    }
    if (settings.algorithm_type == "dpmsolver" || settings.algorithm_type == "sde-dpmsolver" ||
        !settings.predict_x0) {
      throw Failure(ErrorCode::kInvalidModel,
                    "[sampler] prediction_type 'flow_prediction' wants a solver that predicts the "
                    "clean picture, got algorithm_type '" +
                        settings.algorithm_type + "'");
    }
  }
  if (settings.variance_type.starts_with("learned")) {
    throw Failure(ErrorCode::kInvalidModel,
                  "[sampler] variance_type '" + settings.variance_type +
                      "' is not supported: the model's output would hold its variance too");
  }
  if (predicts(row, settings.prediction)) return;
  std::vector<std::string> able;
  for (const Row& other : rows()) {
    if (predicts(other, settings.prediction)) able.push_back(other.info.name);
  }
  refuse("sampler '" + row.info.name + "' cannot take prediction_type '" +
         std::string(name(settings.prediction)) + "'; samplers that can: " + joined(able));
}

void check_request(const Row& row, const Settings& settings, SamplerRequest& request) {
  const auto check = [&](const std::vector<double>& values, unsigned ability, const char* what) {
    if (values.empty()) return;
    if (!(row.abilities & ability)) {
      refuse("sampler '" + row.info.name + "' cannot take explicit " + what);
    }
    if (values.size() > 1001 || !std::all_of(values.begin(), values.end(), [](double value) {
          return std::isfinite(value) && value >= 0.0;
        })) {
      refuse("want at most 1001 explicit " + std::string(what) + ", none negative");
    }
    for (std::size_t i = 1; i < values.size(); ++i) {
      if (values[i] >= values[i - 1]) refuse("want explicit " + std::string(what) + " that fall");
    }
    request.steps = static_cast<int>(values.size());
  };
  check(request.timesteps, kTimesteps, "timesteps");
  check(request.sigmas, kSigmas, "sigmas");
  const bool flow = (row.abilities & kFlowOnly) != 0 || settings.curve == Curve::kFlow;
  if (!request.timesteps.empty() && settings.curve != Curve::kPlain) {
    refuse("explicit timesteps fit only schedule 'default', without use_*_sigmas flags");
  }
  if (!request.sigmas.empty() && row.info.name == "unipc" && !flow) {
    refuse("sampler 'unipc' takes explicit sigmas only with use_flow_sigmas");
  }
  if (!request.sigmas.empty() && !request.timesteps.empty() &&
      (!(row.abilities & kFlowOnly) || request.sigmas.size() != request.timesteps.size())) {
    refuse("want explicit timesteps or explicit sigmas, got both");
  }
  if (!flow && !request.sigmas.empty() && --request.steps < 1) {
    refuse("want at least two explicit sigmas, the last one where the steps end");
  }
  const int most = flow ? 1000 : std::min(1000, settings.num_train_timesteps);
  if (request.steps < 1 || request.steps > most) {
    refuse("want steps from 1 to " + std::to_string(most) + ", got " +
           std::to_string(request.steps));
  }
  if (!(request.eta >= 0.0 && request.eta <= 1.0)) {
    refuse("want eta from 0 to 1, got " + std::to_string(request.eta));
  }
  if (request.eta > 0.0 && row.info.name != "ddim" && row.info.name != "tcd") {
    refuse("sampler '" + row.info.name + "' has no eta; samplers that have one: ddim, tcd");
  }
}

// Betas that are legal one by one can still leave no signal, or no noise, at all.
void check_finite(const Sampler& sampler) {
  const auto finite = [](double value) { return std::isfinite(value); };
  const std::vector<double>& sigmas = sampler.sigmas();
  if (std::all_of(sigmas.begin(), sigmas.end(), finite) &&
      (sigmas.empty() || sigmas.front() > 0.0 || sigmas.back() > 0.0) &&
      std::all_of(sampler.timesteps().begin(), sampler.timesteps().end(), finite)) {
    return;
  }
  throw Failure(ErrorCode::kInvalidModel,
                "[sampler] the betas of scheduler_config.json give no usable noise levels");
}

// The named twin decides whether noise is drawn, whatever the checkpoint's algorithm_type says.
void apply_name(const Row& row, Settings& settings) {
  std::string& type = settings.algorithm_type;
  if (row.info.name == "dpmpp_2m" && type.starts_with("sde-")) type = type.substr(4);
  // A solver type of another family stands for this family's own.
  const bool own_bh = row.info.name == "unipc";
  const bool is_bh = settings.solver_type.starts_with("bh");
  if (own_bh && !is_bh) settings.solver_type = "bh2";
  if (!own_bh && (is_bh || settings.solver_type == "logrho")) settings.solver_type = "midpoint";
  if (row.info.name == "dpmpp_2m_sde" && !type.starts_with("sde-")) type = "sde-dpmsolver++";
}

SamplerPtr make(const nlohmann::json& scheduler_config, SamplerRequest request) {
  const weights::Config config(scheduler_config, "scheduler_config.json");
  const std::string class_name = config.text("_class_name", "");
  const Row* row = request.name.empty() ? nullptr : &row_of_name(request.name);
  if (!row) row = &row_of_config(class_name, read_settings(config, {}));
  Settings settings;
  row->defaults(settings);
  settings = read_settings(config, settings);
  if (!(row->abilities & kRescale)) settings.rescale_betas_zero_snr = false;
  apply_name(*row, settings);
  check_model_kind(*row, class_name, settings);
  apply_schedule(*row, request.schedule, settings);
  check_request(*row, settings, request);
  SamplerPtr sampler = row->make(settings, request);
  check_finite(*sampler);
  return sampler;
}

}  // namespace

const std::vector<SamplerInfo>& all_samplers() {
  static const std::vector<SamplerInfo> kInfos = [] {
    std::vector<SamplerInfo> infos;
    for (const Row& row : rows()) infos.push_back(row.info);
    return infos;
  }();
  return kInfos;
}

const std::vector<std::string>& all_schedules() {
  static const std::vector<std::string> kNames = [] {
    std::vector<std::string> result;
    for (const ScheduleWord& word : kSchedules) result.emplace_back(word.name);
    return result;
  }();
  return kNames;
}

Result<std::string> checkpoint_sampler(const nlohmann::json& scheduler_config) {
  try {
    const weights::Config config(scheduler_config, "scheduler_config.json");
    return row_of_config(config.text("_class_name", ""), read_settings(config, {})).info.name;
  } catch (const Failure& failure) {
    return failure.error();
  }
}

Result<std::unique_ptr<Sampler>> make_sampler(const nlohmann::json& scheduler_config,
                                              const SamplerRequest& request) {
  try {
    return make(scheduler_config, request);
  } catch (const Failure& failure) {
    return failure.error();
  }
}

}  // namespace limner::engine::samplers
